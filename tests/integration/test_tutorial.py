"""The tutorial, word for word: each command runs, and says what the text says it does."""

import asyncio
import contextlib
import os
import re
import sys
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from tests.unit.program import command_environment

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"

pytestmark = pytest.mark.timeout(240)


UNTIL_EXECUTED = (
    "until pod-automation stats --pod p1 | grep -qE 'executed +3\\b'; do sleep 1; done\n"
)


def kill_session(leader: int) -> list[str]:
    """Kill all that are left of a session, of whatever process group: each job has its own. Returns
    their command lines."""
    killed: list[str] = []
    while found := [each for each in psutil.process_iter() if _is_of(each, leader)]:
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                killed.append(" ".join(process.cmdline()))
                process.kill()
    return killed


def _is_of(process: psutil.Process, leader: int) -> bool:
    try:
        return os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


@pytest.mark.usefixtures("settings")
async def test_every_command_of_the_tutorial(environment: dict[str, str], tmp_path: Path) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", TUTORIAL.read_text("utf-8"), re.M | re.S)
    assert len(blocks) > 6
    # As in a terminal, where jobs have numbers.
    script = "set -em\n" + "".join(f"echo '== {n}'\n{block}" for n, block in enumerate(blocks))
    # A slow machine may take longer for it; the comments are a minute away.
    assert script.count("sleep 15\n") == 1
    script = script.replace("sleep 15\n", UNTIL_EXECUTED)
    ours = command_environment({**environment, "POD_AUTOMATION_SESSION_TIMEOUT_MS": "30000"})
    told_to = tmp_path / "terminal.log"
    # No pipe: jobs that are left hold it open, and it would be read to an end that does not come.
    with told_to.open("wb") as terminal:
        process = await asyncio.create_subprocess_exec(
            *("bash", "-c", script),
            env={**ours, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=terminal,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await process.wait()
    finally:
        left = kill_session(process.pid)
    told = told_to.read_text()
    parts = re.split(r"^== \d+\n", told, flags=re.M)
    assert process.returncode == 0, told
    assert left == []
    assert len(parts) == len(blocks) + 1
    by_command = {
        block.splitlines()[-1]: part for block, part in zip(blocks, parts[1:], strict=True)
    }
    planned = next(part for part in parts if "bob" in part and "after" in part)
    assert planned.count("comment") >= 3
    stats = by_command["pod-automation stats --pod p1"]
    assert re.search(r"executed +3\b", stats), stats
    assert re.search(r"scheduled +3\b", stats), stats
    controls = by_command["pod-automation controls"]
    assert "asked by mail" in controls
    assert "under review" in controls
    assert "cancelled 1 activity" in controls
    assert "opt_out" in by_command["pod-automation status"]
    assert '"pod_id":"p1"' in by_command["pod-automation stats --pod p1 --json"]
