"""How the program ends when something is wrong: one line that says what to do, and a code."""

import os
import shlex
import signal
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest

from pod_automation.cli import terminal
from pod_automation.cli.exit_codes import ExitCode
from scheduler.errors import (
    EngineError,
    PermanentError,
    SettingsError,
    StoreUnavailableError,
    WheelLostError,
)
from tests.unit.program import (
    COMMAND,
    NOWHERE,
    Outcome,
    call,
    command_environment,
    start,
)

ASKING = (
    ("init", "--wait", "0"),
    ("publish", "--pod", "p", "--post", "x", "--member", "m"),
    ("stats", "--pod", "p"),
    ("schedule", "likes", "--pod", "p"),
    ("clear", "--yes"),
    ("status",),
    ("status", "--json"),
    ("rebuild", "--all"),
    ("prune", "--dry-run"),
)
EVENT = (
    b'{"event_id": "e", "pod_id": "p", "post_id": "x", "member_ids": ["ann"],'
    b' "detected_at": "2026-11-24T08:00:00Z"}'
)
SERVING = ("worker", "dispatcher", "run", "executor")


@pytest.mark.parametrize("arguments", ASKING, ids=" ".join)
def test_store_away(arguments: tuple[str, ...]) -> None:
    outcome = call(*arguments)
    assert outcome.code == ExitCode.STORE_AWAY
    assert outcome.shows_no_traceback()
    assert "is not available" in outcome.out + outcome.err


@pytest.mark.parametrize("arguments", ASKING[:5], ids=" ".join)
def test_a_store_that_is_away_is_one_line(arguments: tuple[str, ...]) -> None:
    lines = [line for line in call(*arguments).err.splitlines() if line]
    (line,) = lines
    assert "`pod-automation stack` starts one" in line


def test_status_tells_of_each_store() -> None:
    outcome = call("status")
    for store in ("Kafka", "Redis", "PostgreSQL"):
        assert f"ERROR {store} is not available" in outcome.out


def test_init_says_that_it_waits() -> None:
    outcome = call("init", "--wait", "0.6")
    assert outcome.code == ExitCode.STORE_AWAY
    assert "waiting up to" in outcome.err


@pytest.mark.parametrize("arguments", [*ASKING, *((each,) for each in SERVING)], ids=" ".join)
@pytest.mark.parametrize(
    ("name", "value"), [("PARTITIONS", "0"), ("REDIS_URL", "http://x"), ("LOG_LEVEL", "loud")]
)
def test_wrong_setting_names_itself(arguments: tuple[str, ...], name: str, value: str) -> None:
    variable = f"POD_AUTOMATION_{name}"
    outcome = call(*arguments, environment={**NOWHERE, variable: value})
    assert outcome.code == ExitCode.USAGE
    assert outcome.shows_no_traceback()
    assert variable in outcome.err
    assert outcome.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("unknown",),
        ("status", "--unknown"),
        ("stats",),
        ("stats", "--pod", ""),
        ("schedule", "likes"),
        ("schedule", "--pod", "p"),
        ("schedule", "shares", "--pod", "p"),
        ("schedule", "likes", "--pod", ""),
        ("clear",),
        ("clear", "--yes", "--pod", "x" * 201),
        ("stack", "--redis", "memcached"),
        ("demo", "--speed", "0"),
        ("rebuild",),
        ("rebuild", "--all", "--shard", "1"),
        ("rebuild", "--shard", "8"),
        ("rebuild", "--shard", "-1"),
        ("init", "--wait", "-1"),
    ],
    ids=" ".join,
)
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    outcome = call(*arguments)
    assert outcome.code == ExitCode.USAGE
    assert outcome.shows_no_traceback()
    assert "Usage" in outcome.err
    assert outcome.out == ""


def ending_with(error: BaseException) -> Outcome:
    with patch("pod_automation.cli.loop.run", side_effect=error, autospec=True) as run:
        # Nobody runs what the command has made.
        run.side_effect = lambda main: (_ for _ in ()).throw(_closed(main, error))
        return call("stats", "--pod", "p")


def _closed(main: object, error: BaseException) -> BaseException:
    main.close()  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("POD_AUTOMATION_X: wrong"), ExitCode.USAGE),
        (StoreUnavailableError("Redis", "gone"), ExitCode.STORE_AWAY),
        (PermanentError("no topic: run `pod-automation init`"), ExitCode.NOT_READY),
        (EngineError("Redis refuses the credentials"), ExitCode.NOT_READY),
        (WheelLostError(3), ExitCode.NOT_READY),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
    ],
    ids=lambda each: type(each).__name__,
)
def test_errors_have_their_codes(error: BaseException, code: ExitCode) -> None:
    outcome = ending_with(error)
    assert outcome.code == code
    assert outcome.shows_no_traceback()
    assert str(error) in outcome.err


def test_a_bug_shows_its_traceback() -> None:
    outcome = ending_with(ZeroDivisionError("oh"))
    assert outcome.code == ExitCode.BUG
    assert "Traceback" in outcome.err
    assert "report it: ZeroDivisionError: oh" in outcome.err


def test_debug_shows_the_traceback_of_any_error() -> None:
    outcome = call("--debug", "stats", "--pod", "p")
    assert outcome.code == ExitCode.STORE_AWAY
    assert "Traceback" in outcome.err


def test_a_reader_that_has_had_enough_is_no_bug() -> None:
    program = start("--help")
    assert program.stdout is not None
    program.stdout.close()
    _, err = program.communicate(timeout=30)
    assert "Traceback" not in err
    assert program.returncode in (ExitCode.OK, ExitCode.NO)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", SERVING)
def test_processes_wait_for_stores_and_stop_when_told(command: str, signum: signal.Signals) -> None:
    program = start(command)
    try:
        assert program.stderr is not None
        seen = []
        for line in program.stderr:
            seen.append(line)
            if "Kafka is not available" in line:
                break
        program.send_signal(signum)
        out, err = program.communicate(timeout=30)
    finally:
        program.kill()
        program.wait()
    everything = "".join(seen) + err
    assert program.returncode == ExitCode.OK, everything
    assert "Traceback" not in everything
    assert all(line.startswith("[POD_AUTOMATION] ") for line in everything.splitlines())
    assert out == ""


def test_terminal_keeps_no_colour_and_no_width_limit_in_pipes() -> None:
    with patch.dict(os.environ, {"NO_COLOR": "1"}):
        console = terminal.console()
    assert console.no_color
    assert console.width == terminal.PIPED_COLUMNS


def test_no_command_reads_a_terminal_it_has_not() -> None:
    """`publish` without options takes standard input, and an empty one is no events."""
    program = start("publish", "--json")
    out, err = program.communicate(input="", timeout=30)
    assert (program.returncode, err) == (0, "")
    assert '"published":0' in out


@pytest.mark.parametrize("command", ["demo", "stack"])
def test_a_folder_that_cannot_be_made_is_told(command: str) -> None:
    outcome = call(command, "--dir", "x" * 3000)
    assert outcome.code in (ExitCode.USAGE, ExitCode.STACK)
    assert outcome.shows_no_traceback()
    assert "File name too long" in outcome.err


FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="this system has no /dev/full")
def test_a_result_that_cannot_be_written_is_no_bug() -> None:
    with FULL.open("w") as full:
        ended = subprocess.run(
            [*COMMAND, "plan", "--offline", "--file", "-", "--json"],
            input=EVENT,
            stdout=full,
            stderr=subprocess.PIPE,
            env=command_environment(NOWHERE),
            check=False,
        )
    assert ended.returncode == ExitCode.NO
    assert ended.stderr.decode().splitlines() == [
        "error: the result cannot be written: No space left on device"
    ]


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_bug(closed: str) -> None:
    words = shlex.join([*COMMAND, "plan", "--offline", "--file", "-"])
    ended = subprocess.run(
        ["bash", "-c", f"{words} {closed}"],
        input=EVENT,
        capture_output=True,
        env=command_environment(NOWHERE),
        check=False,
    )
    assert ended.returncode == (ExitCode.USAGE if "<" in closed else ExitCode.OK)
    assert b"Traceback" not in ended.stderr


def test_what_the_encoding_of_the_output_lacks_is_escaped() -> None:
    ended = subprocess.run(
        [*COMMAND, "plan", "--offline", "--file", "-"],
        input=EVENT.replace(b"ann", "änn".encode()),
        capture_output=True,
        env=command_environment(NOWHERE) | {"PYTHONIOENCODING": "ascii"},
        check=False,
    )
    assert ended.returncode == ExitCode.OK, ended.stderr
    assert b"\\xe4nn" in ended.stdout


def test_debug_comes_before_a_level_out_of_a_file(tmp_path: Path) -> None:
    level = tmp_path / "level"
    level.write_text("error")
    environment = {**NOWHERE, "POD_AUTOMATION_LOG_LEVEL_FILE": str(level)}
    outcome = call("--debug", "stats", "--pod", "p", environment=environment)
    assert outcome.code == ExitCode.STORE_AWAY, outcome.err
    assert "Traceback" in outcome.err
