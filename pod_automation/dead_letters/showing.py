"""Dead letters as tables and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pod_automation.dead_letters.index import Entry
from pod_automation.dead_letters.letter import Letter
from pod_automation.dead_letters.text import (
    content,
    json_bytes,
    safe_bytes,
    shortened,
)
from scheduler.adapters.postgres_replays import Replay
from schemas.printable import printable
from schemas.times import EARLIEST_MS, LATEST_MS, rfc3339

if TYPE_CHECKING:
    from rich.table import Table

KEY_CHARS = 24
REASON_CHARS = 300
ID_COLUMNS = 60
SHOWN_CHARS = 4000
"""Of a value, unless all of it is wanted."""

Replays = Mapping[str, Replay] | None
"""Those of some letters; None where the record is away."""


def entries_table(
    entries: Sequence[Entry], replays: Replays, id_width: int, *, heading: bool
) -> "Table":
    """A page of the list. Each page has the same columns, so that they stand below each other."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, header_style="bold", show_header=heading, pad_edge=False, expand=True)
    made.add_column("time", width=24, no_wrap=True)
    made.add_column("id", width=min(max(id_width, 2), ID_COLUMNS), overflow="fold")
    made.add_column("reason", ratio=1, min_width=40, overflow="fold")
    made.add_column("key", width=KEY_CHARS, overflow="fold")
    made.add_column("size", width=10, justify="right")
    made.add_column("replayed", width=8)
    for each in entries:
        copies = f" ({each.copies} copies)" if each.copies > 1 else ""
        # Text, since rich would take brackets in a letter for markup.
        made.add_row(
            Text(time_of(each.at_ms)),
            Text(printable(each.id)),
            Text(shortened(printable(each.reason), REASON_CHARS) + copies),
            Text(shortened(safe_bytes(each.key), KEY_CHARS)),
            Text(f"{each.size:,}"),
            Text(_times(each.id, replays)),
        )
    return made


def entry_json(entry: Entry, replays: Replays) -> dict[str, Any]:
    """One letter of the list."""
    return {
        "id": entry.id,
        "at": time_of(entry.at_ms),
        "partition": entry.partition,
        "offset": entry.offset,
        "copies": entry.copies,
        "source_topic": entry.source_topic,
        "source_partition": entry.source_partition,
        "source_offset": entry.source_offset,
        "reason": entry.reason,
        # Cut in the middle of a character it would be no text.
        **json_bytes("key", entry.key if entry.key_size == len(entry.key or b"") else None),
        "key_size": entry.key_size,
        "size": entry.size,
        "truncated_from": entry.truncated_from,
        "failures": entry.failures,
        "replayable": entry.why_not is None,
        "why_not": entry.why_not,
        "replayed": replay_json(entry.id, replays),
    }


def letter_json(
    letter: Letter, copies: int, why_not: str | None, replays: Replays
) -> dict[str, Any]:
    """All of one letter, its value too."""
    topic, partition, offset = letter.source or (None, None, None)
    return {
        "id": letter.id,
        "at": time_of(letter.at_ms),
        "partition": letter.partition,
        "offset": letter.offset,
        "copies": copies,
        "source_topic": topic,
        "source_partition": partition,
        "source_offset": offset,
        "reason": letter.reason,
        "headers": [{"name": name, **json_bytes("value", data)} for name, data in letter.headers],
        "history": [
            {"attempt": each.attempt, "at": each.at, "error": each.error} for each in letter.history
        ],
        **json_bytes("key", letter.key),
        **json_bytes("value", letter.value),
        "size": letter.size,
        "truncated_from": letter.truncated_from,
        "replayable": why_not is None,
        "why_not": why_not,
        "replayed": replay_json(letter.id, replays),
    }


def replay_json(letter_id: str, replays: Replays) -> Any:
    """How often and where; False where never, None where that is not known."""
    if replays is None:
        return None
    if (found := replays.get(letter_id)) is None:
        return False
    return {
        "times": found.replays,
        "at": time_of(found.at_ms),
        "topic": found.topic,
        "partition": found.partition,
        "offset": found.offset,
    }


def letter_lines(
    letter: Letter, copies: int, why_not: str | None, replays: Replays, *, full: bool
) -> Iterator[str]:
    """All of one letter, for people. Every line is safe."""
    yield _field("id", letter.id)
    yield _field("time", time_of(letter.at_ms) + (f", {copies} copies" if copies > 1 else ""))
    yield _field("stands at", f"partition {letter.partition}, offset {letter.offset}")
    if letter.source is not None:
        topic, partition, offset = letter.source
        yield _field("came from", f"{topic}, partition {partition}, offset {offset}")
    yield _field("reason", printable(letter.reason))
    yield _field("replayed", _replayed(letter.id, replays))
    if why_not is not None:
        yield _field("cannot be replayed", why_not)
    yield _field("key", _bounded(letter.key, full=full))
    for number, (name, data) in enumerate(letter.headers):
        yield _field("" if number else "headers", f"{printable(name)}: {_bounded(data, full=full)}")
    for number, each in enumerate(letter.history):
        text = f"attempt {each.attempt}  {printable(each.at)}  {printable(each.error or '-')}"
        yield _field("" if number else "history", text)
    if letter.value is None:
        yield _field("value", "(none: a tombstone)")
        return
    what, lines = content(letter.value, None if full else SHOWN_CHARS)
    cut = "" if letter.truncated_from is None else f", cut from {letter.truncated_from:,}"
    yield _field("value", f"{letter.size:,} bytes{cut}, {what}")
    yield from lines


def time_of(at_ms: int) -> str:
    """`at_ms` as on the wire; a record may say anything."""
    return rfc3339(at_ms) if EARLIEST_MS <= at_ms <= LATEST_MS else f"{at_ms} ms"


def _field(name: str, text: str) -> str:
    return f"{name:<10}  {text}"


def _bounded(data: bytes | None, *, full: bool) -> str:
    text = safe_bytes(data)
    return text if full else shortened(text, REASON_CHARS)


def _times(letter_id: str, replays: Replays) -> str:
    if replays is None:
        return "?"
    found = replays.get(letter_id)
    return "no" if found is None else "yes" if found.replays == 1 else f"{found.replays:,} x"


def _replayed(letter_id: str, replays: Replays) -> str:
    if replays is None:
        return "? (PostgreSQL is not available)"
    if (found := replays.get(letter_id)) is None:
        return "never"
    times = "once" if found.replays == 1 else f"{found.replays:,} times, the last time"
    where = f"{found.topic}, partition {found.partition}, offset {found.offset}"
    return f"{times} at {time_of(found.at_ms)}, to {printable(where)}"
