"""Writes the JSON Schema files and the AsyncAPI document: `python -m schemas.generate`.

They are committed, for readers and for clients in other languages. With `--check` nothing is
written: the exit code is 1 when a file is not what the types say.
"""

import argparse
import sys
from pathlib import Path

import orjson

from schemas.asyncapi import EVENTS_BY_TOPIC, asyncapi
from schemas.json_schema import document

FOLDER = Path(__file__).parent
COMMAND = "python -m schemas.generate"


def documents() -> dict[str, bytes]:
    """All generated files: path below the package, and content."""
    found = {
        f"json/{topic}.schema.json": document(event_type, topic)
        for topic, event_type in EVENTS_BY_TOPIC.items()
    }
    found["asyncapi.json"] = asyncapi()
    return {
        path: orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
        for path, content in found.items()
    }


def stale(folder: Path = FOLDER) -> list[str]:
    """The files below `folder` that are missing, differ, or are no longer generated."""
    wanted = documents()
    there = {path.relative_to(folder).as_posix() for path in folder.glob("json/*.json")}
    return sorted(
        path
        for path in there | wanted.keys()
        if path not in wanted or _content(folder / path) != wanted[path]
    )


def write(folder: Path = FOLDER) -> list[str]:
    """Bring all files below `folder` up to date; returns those that changed."""
    wanted = documents()
    changed = stale(folder)
    for path in changed:
        if path in wanted:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(wanted[path])
        else:
            (folder / path).unlink()
    return changed


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when stale")
    if parser.parse_args(arguments).check:
        found = stale()
        for path in found:
            print(f"stale: schemas/{path}", file=sys.stderr)
        if found:
            print(f"Run: {COMMAND}", file=sys.stderr)
        return 1 if found else 0
    for path in write():
        print(f"written: schemas/{path}")
    return 0


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


if __name__ == "__main__":
    sys.exit(main())
