"""The tutorial, word for word: each command runs, and says what the text says it does."""

import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import pytest

from tests.unit.program import command_environment

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"

pytestmark = pytest.mark.timeout(240)


UNTIL_EXECUTED = (
    "until pod-automation stats --pod p1 | grep -qE 'executed +3\\b'; do sleep 1; done\n"
)


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
    process = await asyncio.create_subprocess_exec(
        "bash",
        "-c",
        script,
        env={**ours, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
    told = out.decode()
    parts = re.split(r"^== \d+\n", told, flags=re.M)
    assert process.returncode == 0, told
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
