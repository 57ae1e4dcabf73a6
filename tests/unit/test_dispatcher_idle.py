"""How long an idle shard sleeps: until its next timer is due, or until it is woken."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from scheduler.dispatch import Turn
from scheduler.dispatcher import Dispatcher
from scheduler.errors import StoreUnavailableError

HOUR_MS = 3_600_000

pytestmark = pytest.mark.timeout(20)


@pytest.fixture(autouse=True)
def _nobody_looks_again_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.dispatcher.IDLE_MS", HOUR_MS)
    monkeypatch.setattr("scheduler.dispatcher.HANDOVER_S", 0.0)


class Site:
    """Group, wheel and owners of some shards in one; nothing is due for `idle_ms`."""

    def __init__(self, shards: set[int], *, idle_ms: int) -> None:
        self._shards = frozenset(shards)
        self._idle_ms = idle_ms
        self._turned = asyncio.Event()
        self._assigned = asyncio.Event()
        self.listened = asyncio.Event()
        self.wakes_heard: asyncio.Queue[int | Exception] = asyncio.Queue()
        self.turns: Counter[int] = Counter()

    @property
    def assigned(self) -> frozenset[int]:
        return self._shards

    async def changed(self) -> frozenset[int]:
        if self._assigned.is_set():
            await asyncio.Event().wait()
        # Whoever begins to listen wakes all shards there are: not ours.
        await self.listened.wait()
        self._assigned.set()
        return self._shards

    @asynccontextmanager
    async def wakes(self, _shards: Sequence[int]) -> AsyncIterator[AsyncIterator[int]]:
        async def heard() -> AsyncIterator[int]:
            self.listened.set()
            while True:
                said = await self.wakes_heard.get()
                if isinstance(said, Exception):
                    raise said
                yield said

        yield heard()

    def open(self, shard: int) -> Any:
        return Owner(shard, self)

    def turn(self, shard: int) -> Turn:
        self.turns[shard] += 1
        self._turned.set()
        return Turn((), self._idle_ms)

    async def turned(self, shard: int, times: int) -> None:
        """Wait until `shard` has had so many turns."""
        while self.turns[shard] < times:
            self._turned.clear()
            await self._turned.wait()

    async def close(self) -> None:
        pass


class Owner:
    """Of one shard, in which nothing is due yet."""

    def __init__(self, shard: int, site: Site) -> None:
        self._shard = shard
        self._site = site

    async def take(self, *, rebuild: bool) -> bool:
        return rebuild

    async def run_once(self) -> Turn:
        return self._site.turn(self._shard)

    async def project(self) -> None:
        await asyncio.Event().wait()

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        pass


@asynccontextmanager
async def running(*shards: int, idle_ms: int) -> AsyncIterator[Site]:
    """A dispatcher of these shards, each of which has had its first turn."""
    site: Any = Site(set(shards), idle_ms=idle_ms)
    dispatcher = Dispatcher(site, site, site.open, partitions=2, fenced_wait_s=HOUR_MS)
    stop = asyncio.Event()
    task = asyncio.create_task(dispatcher.run(stop))
    try:
        for shard in shards:
            await site.turned(shard, 1)
        yield site
    finally:
        stop.set()
        await task


async def test_a_shard_sleeps_no_longer_than_until_its_next_timer_is_due() -> None:
    async with running(0, idle_ms=50) as site:
        await site.turned(0, 3)


async def test_a_wake_ends_the_sleep_of_its_shard_and_of_no_other() -> None:
    async with running(0, 1, idle_ms=HOUR_MS) as site:
        # The second is heard when whatever the first has woken has had its turn.
        for times in (2, 3):
            site.wakes_heard.put_nowait(1)
            await site.turned(1, times)
        assert site.turns[0] == 1
        site.wakes_heard.put_nowait(0)
        await site.turned(0, 2)


async def test_a_wake_for_a_shard_of_others_is_nothing() -> None:
    async with running(0, idle_ms=HOUR_MS) as site:
        site.wakes_heard.put_nowait(1)
        site.wakes_heard.put_nowait(0)
        await site.turned(0, 2)
        assert site.turns == {0: 2}


async def test_who_listens_again_looks_for_what_was_said_meanwhile() -> None:
    async with running(0, 1, idle_ms=HOUR_MS) as site:
        site.wakes_heard.put_nowait(StoreUnavailableError("Redis", "away"))
        await site.turned(0, 2)
        await site.turned(1, 2)
