"""The help teaches, and comes quickly."""

import subprocess
import sys

import pytest

from pod_automation.cli.exit_codes import IN_HELP, ExitCode
from tests.unit.program import ROOT, call

COMMANDS = (
    "init",
    "stack",
    "demo",
    "worker",
    "dispatcher",
    "run",
    "executor",
    "publish",
    "schedule",
    "stats",
    "status",
    "clear",
    "rebuild",
    "reconcile",
    "dead-letters",
    "prune",
)
WITH_RESULT = (
    "init",
    "stack",
    "demo",
    "publish",
    "schedule",
    "stats",
    "status",
    "clear",
    "rebuild",
    "reconcile",
    "prune",
)


def test_help_names_every_command_and_exit_code() -> None:
    outcome = call("--help")
    assert outcome.code == 0
    for command in COMMANDS:
        assert f" {command} " in outcome.out
    for code in ExitCode:
        assert f" {code.value}  " in IN_HELP
        assert f" {code.value}  " in outcome.out


def test_without_arguments_there_is_help() -> None:
    outcome = call()
    assert "Usage: pod-automation" in outcome.out + outcome.err


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_teaches(command: str) -> None:
    outcome = call(command, "--help")
    assert outcome.code == 0
    assert "Example" in outcome.out
    assert f"pod-automation {command}" in outcome.out
    assert ("--json" in outcome.out) == (command in WITH_RESULT)


def test_version() -> None:
    outcome = call("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("pod-automation")


def test_help_loads_neither_drivers_nor_the_engine() -> None:
    """A fifth of a second instead of one: it is also what completion waits for at each key."""
    code = (
        "import sys; from pod_automation.cli import main; main(['publish', '--help']);"
        "heavy = {'aiokafka', 'alembic', 'asyncpg', 'faust', 'pydantic_settings', 'redis',"
        " 'scheduler.settings', 'streams', 'structlog'} & set(sys.modules);"
        "sys.exit(f'{heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
