"""The demo's processes: watched while they run, and gone when it is gone."""

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pod_automation.demo.child import Child, ChildDiedError, clean_environment
from tests.unit.program import NOWHERE, ROOT

WAITS = "is not available"


async def logged(child: Child, text: str) -> None:
    """Wait until the child has said `text`."""
    async with asyncio.timeout(30):
        while text not in child.last_lines():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)


@pytest.fixture
def environment() -> dict[str, str]:
    return {**clean_environment(), **NOWHERE}


async def test_it_stops_in_order(environment: dict[str, str], tmp_path: Path) -> None:
    child = Child("dispatcher", environment, tmp_path / "log")
    await child.start()
    watching = asyncio.create_task(child.watch())
    await logged(child, WAITS)
    await child.stop()
    await watching
    assert "stopped" in child.last_lines()


async def test_its_unexpected_end_is_told_with_its_last_words(
    environment: dict[str, str], tmp_path: Path
) -> None:
    child = Child("worker", {**environment, "POD_AUTOMATION_PARTITIONS": "none"}, tmp_path / "log")
    await child.start()
    with pytest.raises(ChildDiedError, match="exit code 2") as raised:
        await child.watch()
    assert "POD_AUTOMATION_PARTITIONS" in str(raised.value)
    assert str(tmp_path / "log") in str(raised.value)
    await child.stop()


async def test_it_may_be_killed_and_is_watched_again(
    environment: dict[str, str], tmp_path: Path
) -> None:
    child = Child("dispatcher", environment, tmp_path / "log")
    await child.start()
    watching = asyncio.create_task(child.watch())
    await logged(child, WAITS)
    (tmp_path / "log").write_bytes(b"")
    await child.kill_and_restart()
    await logged(child, WAITS)
    assert not watching.done()
    await child.stop()
    await watching


PARENT = """
import asyncio, sys
from pathlib import Path
from pod_automation.demo.child import Child, clean_environment

async def main():
    child = Child("dispatcher", dict(clean_environment(), **{nowhere}), Path(sys.argv[1]))
    await child.start()
    print(child._process.pid, flush=True)
    await child._process.wait()

asyncio.run(main())
"""


def test_it_does_not_outlive_a_parent_that_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT.format(nowhere=NOWHERE), str(log)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        wait_for_end(pid)
    assert "Traceback" not in log.read_text("utf-8")


def wait_for_end(pid: int) -> None:
    """Wait until the process, which is not our child, has ended."""
    if hasattr(os, "pidfd_open"):
        # Linux: readable once it has ended, even where nobody has collected it yet.
        descriptor = os.pidfd_open(pid)
        readable, _, _ = select.select([descriptor], [], [], 30)
        os.close(descriptor)
        assert readable
        return
    with contextlib.suppress(ProcessLookupError):
        while True:
            os.kill(pid, 0)


def test_settings_of_the_user_do_not_reach_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_AUTOMATION_REDIS_URL", "redis://production")
    monkeypatch.setenv("POD_AUTOMATION_LOG_LEVEL", "debug")
    kept = {name: value for name, value in clean_environment().items() if "POD_" in name}
    assert kept == {"POD_AUTOMATION_LOG_LEVEL": "debug"}
