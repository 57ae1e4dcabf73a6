"""Options that several commands share."""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as one line of JSON.", show_default=False)
]


def opened(file: Path | None) -> AbstractContextManager[BinaryIO]:
    """What `--file` names; standard input for none and for `-`."""
    if file is None or str(file) == "-":
        return nullcontext(sys.stdin.buffer)
    try:
        return file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}") from None
