"""What stood in a letter, for people to read: nothing in it may disturb a terminal."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import orjson

from schemas.printable import printable

HEX_COLUMNS = 16


def safe_bytes(data: bytes | None) -> str:
    """`data` as UTF-8, likewise; what is none is escaped too."""
    return "(none)" if data is None else printable(data.decode(errors="backslashreplace"))


def shortened(text: str, chars: int) -> str:
    """At most `chars` characters of `text`."""
    return text if len(text) <= chars else f"{text[: chars - 3]}..."


def as_json(value: object) -> str:
    """`value` as one line of JSON, in which all that is not printable is escaped."""
    line = orjson.dumps(value).decode()
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else _escaped(c) for c in line)


def json_bytes(name: str, data: bytes | None) -> dict[str, Any]:
    """`data` under `name` as text, where it is UTF-8; else under `<name>_base64`."""
    try:
        return {name: None if data is None else data.decode()}
    except UnicodeDecodeError:
        return {name: None, f"{name}_base64": base64.b64encode(data or b"").decode()}


def content(value: bytes, limit: int | None) -> tuple[str, Iterator[str]]:
    """What `value` is (JSON, text, bytes), and its lines, each safe; at most about `limit`
    characters of them, and then a line that says that it goes on."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return f"not UTF-8 (byte {error.start})", _hex(value, limit)
    pretty = _pretty(value)
    return ("text" if pretty is None else "JSON"), _lines(pretty or text, limit)


def _pretty(value: bytes) -> str | None:
    try:
        return orjson.dumps(orjson.loads(value), option=orjson.OPT_INDENT_2).decode()
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, RecursionError):
        return None


def _lines(text: str, limit: int | None) -> Iterator[str]:
    shown = text if limit is None else text[:limit]
    for line in shown.split("\n"):
        yield printable(line)
    if len(shown) < len(text):
        yield f"... and {len(text) - len(shown):,} characters more (--full)"


def _hex(value: bytes, limit: int | None) -> Iterator[str]:
    # Four characters of output are one byte.
    shown = value if limit is None else value[: limit // 4]
    for start in range(0, len(shown), HEX_COLUMNS):
        row = shown[start : start + HEX_COLUMNS]
        plain = "".join(chr(each) if 32 <= each < 127 else "." for each in row)
        yield f"{start:08x}  {row.hex(' '):<{HEX_COLUMNS * 3 - 1}}  {plain}"
    if len(shown) < len(value):
        yield f"... and {len(value) - len(shown):,} bytes more (--full)"


def _escaped(char: str) -> str:
    # JSON's own escapes; json leaves DEL alone.
    return json.dumps(char)[1:-1] if char != "\x7f" else "\\u007f"
