"""What the benchmark asks the drivers of other engines, and what if one cannot be had."""

import sys
from pathlib import Path

import pytest

from bench.peers import install
from bench.peers.catalogue import PEERS, Peer
from bench.peers.install import NotInstalledError, installed
from bench.peers.protocol import DriverError, Fired, driver
from bench.peers.work import timers

ECHO = """
import json, sys
print("is here", file=sys.stderr, flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "work":
        sys.exit("it is broken")
    answers = {
        "schedule": {"seconds": 2.0},
        "fired": {"first_ms": 5, "last_ms": 505, "lateness_ms": [1] * asked.get("count", 0)},
    }
    print(json.dumps(answers.get(asked["do"], {})), flush=True)
    if asked["do"] == "stop":
        break
"""


async def test_a_driver_answers_line_by_line(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with driver([sys.executable, "-c", ECHO], tmp_path, {"a": 1}, log) as made:
        assert await made.schedule(10, 0, 1) == 2.0
        fired = await made.fired(100)
    assert (fired, fired.a_second) == (Fired(5, 505, [1] * 100), 200.0)
    assert log.read_text() == "is here\n"


async def test_one_that_ends_has_the_last_word(tmp_path: Path) -> None:
    async with driver([sys.executable, "-c", ECHO], tmp_path, {}, tmp_path / "log") as made:
        with pytest.raises(DriverError, match="work: is here\nit is broken"):
            await made.work()


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.title)
async def test_a_peer_without_its_package_manager_is_left_out(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert peer.version[0].isdigit()
    assert {setup.name for setup in peer.setups} == {"default", "best"}
    if peer.requirements == "requirements.txt":
        return  # Python is here
    monkeypatch.setattr(install, "CACHE", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalledError, match="on this machine"):
        await installed(peer)


def test_the_work_is_spread_evenly() -> None:
    made = timers(40, 1000, 3000)
    assert [due for due, _ in made[:3]] == [1000, 1050, 1100]
    assert made[-1][0] == 2950
    assert len({fields["post_id"] for _, fields in made}) == 2
    assert {len(fields) for _, fields in made} == {4}
