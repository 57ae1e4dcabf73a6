"""What a test that hangs leaves behind: nothing. It cleans up, and the next one finds no task."""

import subprocess
import sys
from pathlib import Path

from tests.unit.program import ROOT

HANGING = """
import asyncio

import pytest

told = []


async def helping():
    try:
        await asyncio.Event().wait()
    finally:
        told.append("helper ended")
        asyncio.create_task(asyncio.Event().wait())


@pytest.fixture(scope="session")
async def lasting():
    task = asyncio.create_task(asyncio.Event().wait())
    yield task
    task.cancel()


@pytest.fixture
def late(request):
    return request.getfixturevalue("lasting")


@pytest.fixture
async def server():
    yield
    told.append("server stopped")


@pytest.mark.timeout(0.5)
async def test_hangs(late, server):
    helper = asyncio.create_task(helping())
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        told.append("cleaned up")


async def test_next(lasting):
    assert told == ["cleaned up", "server stopped", "helper ended"]
    assert asyncio.all_tasks() == {asyncio.current_task(), lasting}
    assert not lasting.done()
"""


def test_a_test_that_hangs_cleans_up_and_leaves_no_task_to_the_next(tmp_path: Path) -> None:
    tests = tmp_path / "test_hanging.py"
    tests.write_text(HANGING, "utf-8")
    ours = ("-c", ROOT / "pyproject.toml", "--rootdir", tmp_path, "-p", "tests.conftest")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *ours, tests],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Timeout (>0.5s)" in done.stdout, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout, done.stdout
