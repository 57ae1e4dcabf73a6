"""NDJSON in: one `post-detected` event a line, checked before anything is sent.

Memory is bounded, whatever the input is: lines are read one by one and up to a length, and what
cannot be read twice goes through a temporary file.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import BinaryIO

from schemas.codec import InvalidEvent, decode
from schemas.events import PostDetected

MAX_LINE_BYTES = 900_000
"""A broker takes batches of 1 MiB, headers included, by default."""

MAX_PROBLEMS = 100
"""Problems kept with their reason; the rest is counted."""

BOM = b"\xef\xbb\xbf"
"""Some editors and shells put it there, and it is no JSON."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that is no event. Lines are counted from 1."""

    line: int
    reason: str


@dataclass(slots=True)
class Checked:
    """What a first pass has found."""

    valid: int = 0
    invalid: int = 0
    problems: list[Problem] = field(default_factory=list)

    def add(self, found: "Event | Problem") -> None:
        """Count one line."""
        if isinstance(found, Event):
            self.valid += 1
            return
        self.invalid += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(found)


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its bytes as they were given, unknown fields included, and what they mean."""

    value: bytes
    fields: PostDetected


def read(file: BinaryIO) -> Iterator[Event | Problem]:
    """Every line of `file` that is not blank."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        cut = len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")
        if number == 1:
            line = line.removeprefix(BOM)
        if cut:
            while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Problem(number, f"longer than {MAX_LINE_BYTES:,} bytes")
            continue
        value = line.strip()
        if value:
            yield _event(number, value)


def one(value: bytes) -> Event:
    """The event that `value` holds. Raises `InvalidEvent`."""
    return Event(value, decode(PostDetected, value))


@contextmanager
def rereadable(file: BinaryIO) -> Iterator[BinaryIO]:
    """`file` itself if it can be read twice, else a copy in a temporary file."""
    if file.seekable():
        yield file
        return
    with TemporaryFile() as copy:
        copyfileobj(file, copy)
        copy.seek(0)
        yield copy


def check(file: BinaryIO, progress: Callable[[], None] = lambda: None) -> Checked:
    """A first pass over the rest of `file`, which is then where it was. `progress` is called for
    each line."""
    found, start = Checked(), file.tell()
    for each in read(file):
        found.add(each)
        progress()
    file.seek(start)
    return found


def _event(number: int, value: bytes) -> Event | Problem:
    try:
        return one(value)
    except InvalidEvent as error:
        return Problem(number, error.reason)
