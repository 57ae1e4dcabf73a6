"""Options that several commands share."""

import sys
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as one line of JSON.", show_default=False)
]
Pod = Annotated[str | None, typer.Option("--pod", metavar="ID", help="This pod.")]
Member = Annotated[str | None, typer.Option("--member", metavar="ID", help="This member.")]
Post = Annotated[str | None, typer.Option("--post", metavar="ID", help="This post.")]
Reason = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why: kept on record.")
]
Actor = Annotated[
    str | None,
    typer.Option(
        "--actor",
        metavar="NAME",
        help="Who asks for it: kept on record. Default: the user of this machine.",
    ),
]


def opened(file: Path | None) -> AbstractContextManager[BinaryIO]:
    """What `--file` names; standard input for none and for `-`."""
    if file is None or str(file) == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from None


def a_time(text: str) -> datetime:
    """The moment that an option names. Raises `typer.BadParameter`."""
    if text == "now":
        return datetime.now(UTC)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: write it like 2026-11-27T09:00:00Z"
        ) from None
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} says no offset from UTC: write 2026-11-27T09:00:00Z")
    return found
