"""The demo as a user sees it: what it says, what it leaves behind, and how it takes a death."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from pod_automation.cli.exit_codes import ExitCode
from tests.unit.program import COMMAND, NOWHERE, command_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

QUICK = ("--speed", "3600", "--pods", "2", "--posts", "6")
LONG = ("--speed", "600", "--pods", "2", "--posts", "20")
PROCESSES = ("worker", "dispatcher", "executor")
FAULTS = (
    *("lost", "duplicates", "left_out", "early", "not_asked_for", "over_the_cap", "unfinished"),
    *("two_ends", "wrong_ends", "wrong_attempts", "wrong_members", "letters_missing"),
    *("letters_unasked", "left_in_wheel"),
)
STREAMING = b"engagements; the last falls due"

# In the environment of the demo, and so of every process that comes of it.
MARK = "DEMO_UNDER_TEST"

only_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")


@asynccontextmanager
async def demo(*arguments: str, mark: str = "") -> AsyncIterator[Process]:
    # Servers of the user, which must not be touched, nor asked.
    environment: Mapping[str, str] = {**NOWHERE, "POD_AUTOMATION_TOPIC_PREFIX": "production."}
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "demo", *arguments),
        env={**command_environment(environment), MARK: mark},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=PIPE,
        stderr=PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def until_streaming(process: Process) -> None:
    assert process.stdout is not None
    async for line in process.stdout:
        if STREAMING in line:
            return
    raise AssertionError("it ended before it began")


def processes(mark: str, of: str = "") -> set[int]:
    """Processes that came of one demo, with `of` in their command line."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (folder / "environ").read_bytes()
            command = (folder / "cmdline").read_bytes()
            if f"{MARK}={mark}".encode() in environment and of.encode() in command:
                found.add(int(folder.name))
    return found


async def until_none_is_left(mark: str) -> None:
    async with asyncio.timeout(30):
        while processes(mark):  # noqa: ASYNC110 - nothing tells us of other people's processes
            await asyncio.sleep(0.05)


def check(report: dict[str, Any]) -> None:
    """What holds of every demo, with and without chaos."""
    assert report["ok"]
    assert report["agree"]
    asked = report["asked_for"]
    assert asked > 50
    for number in ("planned", "dispatched", "recorded"):
        assert report[number] == asked
    for number in FAULTS:
        assert report[number] == 0
    kafka, rows = report["sources"]["kafka"], report["sources"]["postgresql"]
    for number in ("executed", "failed"):
        assert report[number] == kafka[number] == rows[number]
    assert report["sources"]["members"]["executed"] == report["executed"]
    assert report["executed"] + report["failed"] == asked
    assert report["retried"] > 0
    assert report["published_twice"] > 0
    assert report["broken"] == 2
    assert report["dead_letters"] == 2 + report["failed"]


async def test_it_counts_what_became_of_everything(tmp_path: Path) -> None:
    async with demo(*QUICK, "--json", "--dir", str(tmp_path / "demo")) as process:
        out, err = await process.communicate()
    told = err.decode()
    assert process.returncode == ExitCode.OK, told
    *_, last = out.decode().splitlines()
    report = json.loads(last)
    check(report)
    sources = report["sources"]
    assert sources["kafka"] == sources["postgresql"] == sources["expected"]
    assert report["killed"] == 0
    assert "each activity came to one end" in told
    assert "POD_AUTOMATION_REDIS_URL is ignored" in told
    assert "Traceback" not in told
    for name in PROCESSES:
        log = (tmp_path / "demo" / f"{name}.log").read_text("utf-8")
        assert "Traceback" not in log
        assert "stopped" in log


@pytest.mark.nightly
async def test_it_counts_the_same_with_processes_killed_in_mid_run(tmp_path: Path) -> None:
    async with demo(*QUICK, "--chaos", "--json", "--dir", str(tmp_path)) as process:
        out, err = await process.communicate()
    assert process.returncode == ExitCode.OK, err.decode()
    report = json.loads(out.splitlines()[-1])
    check(report)
    assert report["killed"] == len(PROCESSES)
    for number in ("retried", "timed_out"):
        assert report[number] >= report["sources"]["expected"][number]


@only_linux
@pytest.mark.parametrize(
    "signum", [pytest.param(signal.SIGINT, marks=pytest.mark.nightly), signal.SIGTERM]
)
async def test_it_leaves_nothing_behind_when_interrupted(signum: int, tmp_path: Path) -> None:
    mark = uuid4().hex
    async with demo(*LONG, "--dir", str(tmp_path), mark=mark) as process:
        await until_streaming(process)
        assert processes(mark, "tethered")
        process.send_signal(signum)
        _, err = await process.communicate()
    assert process.returncode == ExitCode.INTERRUPTED
    assert b"Traceback" not in err
    assert not processes(mark)
    for name in PROCESSES:
        assert "stopped" in (tmp_path / f"{name}.log").read_text("utf-8")


@only_linux
async def test_it_leaves_nothing_behind_when_killed(tmp_path: Path) -> None:
    mark = uuid4().hex
    async with demo(*LONG, "--dir", str(tmp_path), mark=mark) as process:
        await until_streaming(process)
        process.kill()
        await process.wait()
        await until_none_is_left(mark)


@only_linux
@pytest.mark.parametrize(
    "victim",
    [
        "worker",
        pytest.param("executor", marks=pytest.mark.nightly),
        pytest.param("kafka", marks=pytest.mark.nightly),
    ],
)
async def test_it_tells_of_a_death_that_it_did_not_cause(victim: str, tmp_path: Path) -> None:
    mark = uuid4().hex
    async with demo(*LONG, "--dir", str(tmp_path), mark=mark) as process:
        await until_streaming(process)
        named = {"kafka": "kafka.Kafka"}.get(victim, f"\0{victim}\0")
        (pid,) = processes(mark, named) - processes(mark, "leash.py")
        os.kill(pid, signal.SIGKILL)
        _, err = await process.communicate()
    told = err.decode()
    assert process.returncode == ExitCode.STACK, told
    assert victim in told.lower()
    assert str(tmp_path) in told
    assert "Traceback" not in told
    assert not processes(mark)
