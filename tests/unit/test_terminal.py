"""What the command line looks like to who sits in front of it: tables and questions."""

import io
import json
import os
import pty
import re
import subprocess
import sys
import termios
from fcntl import ioctl
from unittest.mock import patch

import pytest
from rich.table import Table

from pod_automation.cli import terminal
from pod_automation.cli.exit_codes import ExitCode
from tests.unit.program import COMMAND, NOWHERE, command_environment

STYLES = re.compile(r"\x1b\[[0-9;]*m")

LONG = "why it was so " * 5


class Screen(io.StringIO):
    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def shown(*tables: Table, columns: int | None) -> list[str]:
    """The lines of what a terminal of so many columns, or a pipe, gets."""
    screen = Screen(is_terminal=columns is not None)
    environment = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "xterm"}
    with patch.dict(os.environ, environment), patch.object(sys, "stdout", screen):
        terminal.table(*tables)
    return [line.rstrip() for line in STYLES.sub("", screen.getvalue()).splitlines()]


def made(*names: str, rows: int = 2) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name)
    for number in range(rows):
        table.add_row(*(f"{name} {number}" for name in names))
    return table


def wide() -> Table:
    table = made("who", "why", rows=1)
    table.add_row("ann", LONG)
    table.add_row("bob", "")
    return table


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "utf-8"])
def test_json_is_json_in_any_encoding(encoding: str) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding)
    value = {"é": "\N{PILE OF POO} \u202e€ \\xe9"}
    with patch.object(sys, "stdout", out):
        terminal.open_streams()
        terminal.json_result(value)
    raw = out.buffer
    assert isinstance(raw, io.BytesIO)
    assert json.loads(raw.getvalue().decode("utf-8")) == value


def test_a_table_that_fits_is_one() -> None:
    assert shown(made("a", "b"), made("other"), columns=20) == ["a    b", "a 0  b 0", "a 1  b 1"]


def test_a_title_is_a_line_whatever_the_width_of_its_table() -> None:
    table = made("a")
    table.title = "what all of it is about"
    assert shown(table, columns=40)[0] == "what all of it is about"


def test_a_table_that_does_not_fit_has_its_rows_in_lines() -> None:
    lines = shown(wide(), columns=40)
    assert lines[:4] == ["who  who 0", "why  why 0", "", "who  ann"]
    assert " ".join(each[5:] for each in lines[4:-3]) == LONG.strip()
    assert lines[-3:] == ["", "who  bob", ""]


def test_narrower_tables_take_the_place_of_one_that_does_not_fit() -> None:
    parts = made("who", rows=1), made("why", rows=1)
    assert shown(wide(), *parts, columns=40) == ["who", "who 0", "why", "why 0"]
    assert shown(wide(), *parts, columns=200)[0] == "who    why"


def test_a_pipe_gets_each_row_as_one_line() -> None:
    table = wide()
    table.add_row("cyd", LONG * 5)
    lines = shown(table, made("narrow"), columns=None)
    assert len(lines) == 5
    assert lines[-1].endswith(LONG.strip())


def test_a_table_that_takes_all_there_is_has_a_least_width() -> None:
    def table() -> Table:
        filling = made("id", rows=0)
        filling.expand = True
        filling.add_column("reason", ratio=1, min_width=20)
        filling.add_row("id 0", "none")
        return filling

    assert shown(table(), columns=30)[0].split() == ["id", "reason"]
    assert shown(table(), columns=20)[0].split() == ["id", "id", "0"]


@pytest.mark.parametrize(
    ("keys", "code", "told"),
    [(b"n\n", ExitCode.NO, "nothing was done"), (b"\x03", ExitCode.INTERRUPTED, "^C")],
)
def test_a_question_that_is_not_answered_by_yes_ends_the_command(
    keys: bytes, code: ExitCode, told: str
) -> None:
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [*COMMAND, "clear"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=command_environment(NOWHERE),
        start_new_session=True,
        # Ctrl-C is for whom the terminal is that of.
        preexec_fn=lambda: ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    seen = b""
    try:
        while data := _read(ours):
            if b"[y/N]" not in seen and b"[y/N]" in seen + data:
                os.write(ours, keys)
            seen += data
        assert program.wait(30) == code
    finally:
        program.kill()
        program.wait()
        os.close(ours)
    assert told in seen.decode()


def _read(end: int) -> bytes:
    try:
        return os.read(end, 4096)
    except OSError:  # nobody has the other end any more
        return b""
