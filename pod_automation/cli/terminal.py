"""Results go to standard output; everything else, logs and progress too, to standard error."""

import io
import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from pod_automation.cli.exit_codes import ExitCode

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

LOG_LEVEL = "POD_AUTOMATION_LOG_LEVEL"
LOG_LEVEL_FILE = f"{LOG_LEVEL}_FILE"

PIPED_COLUMNS = 160
"""Width of tables that go to a file or pipe, at least: rich would cut them to 80."""

_ANY_WIDTH = 1_000_000

# Each tells of a broker that is away in lines of its own, beside the one that we print.
_LIBRARIES = ("aiokafka", "kafka", "asyncio", "alembic")


def debugging() -> bool:
    """Whether `--debug` was given, or the log level is debug."""
    return os.environ.get(LOG_LEVEL, "").lower() == "debug"


class OutputError(Exception):
    """The result cannot be written, though what was asked for is done."""


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"the result cannot be written: {error.strerror or error}") from error


def open_streams() -> None:
    """Have a standard input, output and error: who starts us may have closed them, and then files
    and connections would take their numbers. What a stream's encoding lacks is escaped."""
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            os.open(os.devnull, os.O_RDWR)  # which gets the lowest number that is free
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - for good
    out = sys.stdout
    if isinstance(out, io.TextIOWrapper) and not _is_utf8(out):
        out.reconfigure(errors="backslashreplace")


def _is_utf8(stream: TextIO) -> bool:
    return (stream.encoding or "utf-8").lower().replace("-", "") == "utf8"


def result(text: str) -> None:
    """A line of the result. Raises `OutputError`."""
    part(f"{text}\n")


def part(text: str) -> None:
    """A part of a line of the result, which does not end with it. Raises `OutputError`."""
    with _writing():
        sys.stdout.write(text)


def json_result(value: object) -> None:
    """The result as one line of JSON."""
    import orjson

    result(json_text(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()))


def json_text(json_line: str) -> str:
    """`json_line`; all that is not ASCII escaped where the output's encoding is another than UTF-8:
    JSON knows no other, and not the escapes that stand for what an encoding lacks."""
    if _is_utf8(sys.stdout):
        return json_line
    return re.sub(r"[^\x00-\x7f]", lambda found: json.dumps(found[0])[1:-1], json_line)


def note(text: str) -> None:
    """Something the user may want to know, beside the result."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def error(text: str) -> None:
    """What went wrong, and what to do."""
    note(f"error: {text}")


def table(made: "Table", *narrow: "Table") -> None:
    """Print a table as part of the result, and its title above it. Raises `OutputError`.

    Where it is wider than the terminal: `narrow` in its place, or without those each row as lines
    of its own, with the headings before the values.
    """
    shown = console()
    title, made.title = made.title, None
    widths = shown.measure(made, options=shown.options.update(max_width=_ANY_WIDTH))
    # One that takes what there is says how little will do.
    needed = widths.minimum if made.expand else widths.maximum
    parts: tuple[Table, ...] = (made,)
    if not sys.stdout.isatty():
        shown.width = max(shown.width, needed)
    elif needed > shown.width:
        parts = narrow or (_in_lines(made),)
    with _writing():
        if title:
            shown.print(title, soft_wrap=True)
        for each in parts:
            shown.print(each)


def _in_lines(wide: "Table") -> "Table":
    """The rows of a table below each other, an empty line behind each; empty cells are left out."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    for row in zip(*(column.cells for column in wide.columns), strict=True):
        for column, cell in zip(wide.columns, row, strict=True):
            if cell:
                made.add_row(column.header, cell)
        made.add_row()
    return made


def console(*, stderr: bool = False) -> "Console":
    """A rich console on standard output; wide when that is no terminal."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else PIPED_COLUMNS
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)


def quiet_logs() -> None:
    """Logs of a command that only prints a result: warnings of ours, nothing of libraries."""
    from pod_automation import logs

    logs.configure("debug" if debugging() else "warning")
    if not debugging():
        for name in _LIBRARIES:
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def failed(raised: BaseException) -> ExitCode:
    """Say what went wrong, and with which code to end.

    A user's mistake or a store that is away is one line, with its traceback only under `--debug`; a
    bug always shows its traceback.
    """
    from scheduler.errors import (
        EngineError,
        InstanceReplacedError,
        SettingsError,
        StoreUnavailableError,
    )

    code = ExitCode.BUG
    hint = ""
    if isinstance(raised, SettingsError):
        code = ExitCode.USAGE
        hint = " (settings are environment variables: see `pod-automation --help`)"
    elif isinstance(raised, StoreUnavailableError):
        code = ExitCode.STORE_AWAY
        hint = f" ({_WHERE.get(raised.store, 'is it running?')})"
    elif _is(raised, "pod_automation.stack", "StackError") or _is(
        raised, "pod_automation.demo.child", "ChildError"
    ):
        code = ExitCode.STACK
    elif _is(raised, "streams.worker", "WorkerCrashedError"):
        code = ExitCode.STALLED
    elif isinstance(raised, OutputError):
        code = ExitCode.NO
    elif isinstance(raised, InstanceReplacedError):
        code = ExitCode.REPLACED
    elif isinstance(raised, EngineError):
        code = ExitCode.NOT_READY
    if code is ExitCode.BUG or debugging():
        traceback.print_exception(raised)
    if code is ExitCode.BUG:
        error(f"this is a bug, please report it: {type(raised).__name__}: {raised}")
    else:
        error(f"{str(raised) or type(raised).__name__}{hint}")
    return code


_WHERE = {
    "Kafka": "is it running at POD_AUTOMATION_KAFKA_BOOTSTRAP? `pod-automation stack` starts one",
    "Redis": "is it running at POD_AUTOMATION_REDIS_URL? `pod-automation stack` starts one",
    "PostgreSQL": "is it running at POD_AUTOMATION_POSTGRES_DSN? `pod-automation stack` starts one",
}


def _is(raised: BaseException, module: str, name: str) -> bool:
    # Where the module was not imported, nothing can have raised it; and importing it takes time.
    return isinstance(raised, getattr(sys.modules.get(module), name, ()))
