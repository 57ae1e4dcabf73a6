"""Calls the command line as a user does, inside this process or as one of its own."""

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from pod_automation.cli import main

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "pod_automation")

# Nobody listens on port 1, and a connection to it is refused at once.
NOWHERE = {
    "POD_AUTOMATION_KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "POD_AUTOMATION_REDIS_URL": "redis://127.0.0.1:1/0",
    "POD_AUTOMATION_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/nothing",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str

    def shows_no_traceback(self) -> bool:
        return "Traceback" not in self.out + self.err


def call(*arguments: str, stdin: bytes = b"", environment: Mapping[str, str] = NOWHERE) -> Outcome:
    """In this process; standard input is a pipe, as far as the program can tell."""
    # As Python opens them: a message may hold anything, a result must not.
    out, err = _Captured("strict"), _Captured("backslashreplace")
    source = io.TextIOWrapper(_Pipe(stdin), encoding="utf-8")
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("POD_AUTOMATION_")
    }
    with (
        patch.dict(os.environ, {**clean, **environment, "COLUMNS": "100"}, clear=True),
        patch.multiple(sys, stdin=source, stdout=out, stderr=err),
        _logging_restored(),
    ):
        code = main(arguments)
    return Outcome(code, out.getvalue(), err.getvalue())


def start(*arguments: str, environment: Mapping[str, str] = NOWHERE) -> "subprocess.Popen[str]":
    """As a process of its own, with pipes on all sides."""
    return subprocess.Popen(
        [*COMMAND, *arguments],
        env=command_environment(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """What a process gets to see: `settings`, and none of a developer's own."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith("POD_AUTOMATION_")
    }
    return {**own, **settings, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


class _Captured(io.TextIOWrapper):
    def __init__(self, errors: str) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", errors=errors, write_through=True)

    def getvalue(self) -> str:
        raw = self.buffer
        assert isinstance(raw, io.BytesIO)
        return raw.getvalue().decode()


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


@contextmanager
def _logging_restored() -> Iterator[None]:
    """The program sends all logs of its process to its standard error; here it is one of many."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {
        name: logger.level
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    }
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, logger in list(logging.Logger.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger):
                logger.setLevel(levels.get(name, logging.NOTSET))
