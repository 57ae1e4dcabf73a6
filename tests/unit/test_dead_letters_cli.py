"""`dead-letters` where there is nothing to read: its help, wrong usage, stores that are away."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest.mock import patch

import pytest

from pod_automation.cli.dead_letters_run import _print_json, _print_table
from pod_automation.cli.entry import _write_no_more
from pod_automation.cli.exit_codes import ExitCode
from pod_automation.cli.terminal import OutputError
from pod_automation.dead_letters.index import Index
from tests.unit.program import call

REPLAY = ("dead-letters", "replay")


@pytest.mark.parametrize("command", ["list", "show", "replay"])
def test_each_command_teaches(command: str) -> None:
    outcome = call("dead-letters", command, "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out
    assert f"pod-automation dead-letters {command}" in outcome.out
    assert "--json" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("dead-letters", "list", "--since", "yesterday"), "--since: neither a time"),
        (("dead-letters", "list", "--until", "1"), "--until: neither a time"),
        (("dead-letters", "list", "--since", "1h", "--until", "2h"), "--since must be before"),
        (("dead-letters", "list", "--source", "a/b"), "--source: a topic"),
        (("dead-letters", "list", "--limit", "0"), "--limit"),
        (("dead-letters", "show"), "ID"),
        (REPLAY, "name letters by their ids or by a filter"),
        ((*REPLAY, "a/1/2", "--reason", "x"), "ids and --reason exclude each other"),
        ((*REPLAY, "a/1/2", "--all"), "ids and --all exclude each other"),
        ((*REPLAY, "--not-replayed", "--again"), "--not-replayed and --again"),
        ((*REPLAY, "--all"), "nobody is here to be asked: give --yes"),
        ((*REPLAY, "--reason", "x", "--again"), "nobody is here to be asked: give --yes"),
    ],
)
def test_wrong_usage_is_one_clear_message(arguments: tuple[str, ...], says: str) -> None:
    outcome = call(*arguments)
    assert outcome.code == ExitCode.USAGE
    assert outcome.shows_no_traceback()
    assert says in " ".join(outcome.err.replace("│", " ").split())
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("arguments", "store"),
    [
        (("dead-letters", "list"), "Kafka"),
        (("dead-letters", "show", "post-detected/0/1"), "Kafka"),
        ((*REPLAY, "post-detected/0/1"), "PostgreSQL"),
        ((*REPLAY, "--all", "--yes"), "PostgreSQL"),
    ],
)
def test_a_store_that_is_away_is_one_line(arguments: tuple[str, ...], store: str) -> None:
    outcome = call(*arguments)
    assert outcome.code == ExitCode.STORE_AWAY
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"error: {store} is not available")


@pytest.mark.parametrize("show", [_print_json, _print_table])
def test_a_list_that_cannot_be_written_is_no_bug(show: Callable[..., Awaitable[None]]) -> None:
    async def listed() -> None:
        with Index() as index:
            await show(index, None, "dead-letter", None)

    with Path("/dev/full").open("w") as full, patch.object(sys, "stdout", full):
        with pytest.raises(OutputError, match="No space left"):
            asyncio.run(listed())
        _write_no_more()
