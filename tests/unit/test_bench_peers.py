"""What the benchmark asks the drivers of other engines, and what if one cannot be had."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.harness import SERVERS, Bench
from bench.peers import install, measure
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


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What drivers and stores are asked for, in that order."""
    asked: list[str] = []

    class Noting:
        def __init__(self) -> None:
            self.name = f"driver {sum('starts' in each for each in asked) + 1}"

        def __getattr__(self, name: str) -> Any:
            async def note(*_: object) -> object:
                asked.append(f"{self.name}: {name}")
                return Fired(0, 1, [0]) if name == "fired" else 0.001

            return note

    @asynccontextmanager
    async def noting(*_: object) -> AsyncIterator[Noting]:
        made = Noting()
        asked.append(f"{made.name} starts")
        yield made
        asked.append(f"{made.name} ends")

    @asynccontextmanager
    async def no_rewrite(_: object) -> AsyncIterator[None]:
        asked.append("no rewrite")
        yield
        asked.append("rewrite")

    async def emptied(_: object) -> None:
        asked.append("the store is emptied")

    async def vacuumed(trial: measure._Trial) -> None:
        if trial.peer.store == "PostgreSQL":
            asked.append("vacuum")

    async def size(_: object) -> int:
        return 0

    async def idle(_: object, made: Noting, pending: int) -> list[object]:
        asked.append(f"{made.name}: measured beside {pending:,}")
        return []

    async def late(*_: object) -> list[object]:
        return []

    monkeypatch.setattr(measure, "driver", noting)
    monkeypatch.setattr(measure, "SETTLED_S", 0)
    monkeypatch.setattr(Bench, "no_rewrite", no_rewrite)
    monkeypatch.setattr(measure._Trial, "_empty", emptied)
    monkeypatch.setattr(measure._Trial, "_vacuumed", vacuumed)
    monkeypatch.setattr(measure._Trial, "_bytes", size)
    monkeypatch.setattr(measure._Trial, "_idle", idle)
    monkeypatch.setattr(measure._Trial, "_punctuality", late)
    return asked


def trial_of(peer: Peer, folder: Path) -> measure._Trial:
    servers = dict.fromkeys(SERVERS, "redis://localhost")
    bench = Bench(servers, {}, folder, quick=False, repeats=1, say=lambda _: None)
    return measure._Trial(bench, peer, peer.setups[0], ["x"], folder)


async def test_who_works_beside_a_million_has_not_made_them(
    done: list[str], tmp_path: Path
) -> None:
    (found,) = await trial_of(PEERS[0], tmp_path)._waiting(100)
    assert found.notes["timers"] == 1_000_000
    assert done == [
        "the store is emptied",
        "driver 1 starts",
        "driver 1: schedule",
        "driver 1 ends",
        "driver 2 starts",
        "driver 2: work",
        "driver 2: measured beside 1,000,000",
        "driver 2 ends",
    ]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.title)
async def test_no_store_is_busy_with_itself_while_others_are_measured(
    peer: Peer, done: list[str], tmp_path: Path
) -> None:
    trial = trial_of(peer, tmp_path)
    await trial._scheduling(100)
    await trial._firing(100, -1)
    wanted = [
        *("the store is emptied", "driver 1 starts", "no rewrite", "driver 1: schedule"),
        *("rewrite", "driver 1 ends"),
        *("the store is emptied", "driver 2 starts", "no rewrite", "driver 2: schedule"),
        *("vacuum", "driver 2: work", "driver 2: fired", "rewrite", "driver 2 ends"),
    ]
    other = {"Redis": ["vacuum"], "PostgreSQL": ["no rewrite", "rewrite"]}[peer.store]
    assert done == [each for each in wanted if each not in other]


def test_the_work_is_spread_evenly() -> None:
    made = timers(40, 1000, 3000)
    assert [due for due, _ in made[:3]] == [1000, 1050, 1100]
    assert made[-1][0] == 2950
    assert len({fields["post_id"] for _, fields in made}) == 2
    assert {len(fields) for _, fields in made} == {4}
