"""An onlooker beside the whole engine, under every interleaving and death that chance can find.

What it reports would be a false alarm: nothing is broken here but processes that die and a wheel
that is lost. And it must see what is broken on purpose.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scheduler import compare, second_look
from scheduler.adapters.memory_view import MemoryWheelView
from scheduler.findings import ShardReport
from scheduler.mentions import Mentions
from scheduler.ports import WheelMeta
from scheduler.reconcile import Reconciler
from schemas.events import WheelCursor
from schemas.topics import Topics
from tests.property.shard_world import SHARD, STATUSES, Shaky
from tests.property.test_life import (
    AWAIT_MS,
    INPUTS,
    RESULTS,
    WatchedWheel,
    World,
    outside,
    owning,
    working,
)

TOPICS = Topics.prefixed()
assert TOPICS.inputs == INPUTS
assert TOPICS.engagement_status == STATUSES
FOR_EVER_S = 1e6
EVENTS = 40
DEATH = 0.001
"""Fewer than in other lives: who dies leaves the wheel behind, and an onlooker just waits then."""


class SeenWheel(MemoryWheelView, WatchedWheel):
    """A wheel that can be looked at, and notes what goes wrong."""


class WorldLog:
    """The `LogView` port over the logs of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def _log(self, topic: str) -> Sequence[tuple[int, bytes | None]]:
        world = self._world
        if topic == STATUSES:
            return list(enumerate(world.kafka._statuses))
        if topic == RESULTS:
            world.log_timeouts()
        return [(record.offset, record.value) for record in world.logs[topic]]

    async def cursors(self, shards: Sequence[int]) -> Mapping[int, WheelCursor | None]:
        cursors = self._world.kafka.cursors
        return {SHARD: cursors[-1] if cursors else None}

    async def spans(
        self, topics: Sequence[str], shards: Sequence[int]
    ) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        logs = {topic: self._log(topic) for topic in topics}
        return {topic: {SHARD: (0, log[-1][0] + 1 if log else 0)} for topic, log in logs.items()}

    async def acked(self) -> Mapping[str, Mapping[int, int]]:
        logs, done = self._world.logs, self._world.committed
        return {
            topic: {SHARD: logs[topic][at - 1].offset if at else -1} for topic, at in done.items()
        }

    async def offset_at(self, topic: str, shard: int, at_ms: int) -> int:
        return 0

    async def read(
        self, topic: str, shard: int, start: int, end: int, *, committed: bool
    ) -> AsyncGenerator[Sequence[tuple[int, bytes | None]], None]:
        found = [each for each in self._log(topic) if start <= each[0] < end]
        for each in found:
            # A control record is never delivered.
            if topic != STATUSES or each[1] is not None:
                yield [each]


def world_of(seed: int) -> World:
    world = World(seed, death=DEATH)
    world.wheel = SeenWheel(lambda: world.now_ms)
    world.wheel.record = world.record
    return world


def onlooker(world: World) -> Reconciler:
    async def pause() -> None:
        for _ in range(world.rng.choice((0, 0, 0, 1, 5))):
            await asyncio.sleep(0)

    wheel: Any = Shaky(world.wheel, pause, without={"timers"})
    record: Any = Shaky(world.record, pause, without={"snapshot"})
    log: Any = Shaky(WorldLog(world), pause, without={"read"})
    return Reconciler(
        wheel,
        record,
        log,
        TOPICS,
        await_ms=AWAIT_MS,
        timeout_s=FOR_EVER_S,
        sleep=lambda _: asyncio.sleep(0),
        clock=lambda: 0.0,
    )


async def looking(world: World, seen: list[ShardReport]) -> None:
    reconciler = onlooker(world)
    while True:
        seen.append(await reconciler.run_once(SHARD))
        await asyncio.sleep(0)


async def losses(world: World, done: asyncio.Event) -> None:
    while not done.is_set():
        await asyncio.sleep(0)
        if world.rng.random() < 0.0003:
            world.wheel.lose()


async def watched(world: World) -> list[ShardReport]:
    """A life with somebody who looks on."""
    seen: list[ShardReport] = []
    life = asyncio.create_task(outside(world, EVENTS))
    done = asyncio.Event()
    life.add_done_callback(lambda _: done.set())
    watching = [asyncio.create_task(looking(world, seen)) for _ in range(2)]
    try:
        await asyncio.gather(
            life,
            *(working(world, topic, life.done) for topic in INPUTS for _ in range(2)),
            *(owning(world, life.done) for _ in range(2)),
            losses(world, done),
        )
    finally:
        for each in watching:
            each.cancel()
        for result in await asyncio.gather(*watching, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result
    return seen


@given(seed=st.integers(0, 2**32))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_false_alarm(seed: int) -> None:
    for report in asyncio.run(watched(world_of(seed))):
        assert report.counts == {}, report.first


async def test_much_is_looked_at() -> None:
    looks = rows = timers = awaited = 0
    for seed in range(10):
        for report in await watched(world_of(seed)):
            looks += 1
            rows += report.rows
            timers += report.timers
            awaited += report.awaited
    assert looks > 100
    assert min(rows, timers, awaited) > 500


# The proof must be able to fail. Each of these leaves out one step of the second look.


async def _at_once(self: second_look.SecondLook, marks: Mapping[str, int]) -> Mapping[str, int]:
    self.same(await self._stores.wheel.meta(self._shard))
    return {}


async def _nothing_said(*_: Any) -> Mentions:
    return Mentions(frozenset(), -1, 0)


class _AnyLife(second_look.SecondLook):
    def same(self, meta: WheelMeta) -> WheelMeta:
        return meta


@pytest.mark.parametrize(
    ("owner", "name", "broken", "seed"),
    [
        pytest.param(second_look.SecondLook, "caught_up", _at_once, 0, id="wheel-behind"),
        pytest.param(second_look, "dispatched", _nothing_said, 0, id="sent-not-projected"),
        pytest.param(second_look, "reported", _nothing_said, 0, id="timed-out-not-applied"),
        # The rarest; so it begins where it is known to come soon.
        pytest.param(second_look, "_version", lambda row: 0, 84, id="row-changed-meanwhile"),
        pytest.param(second_look.SecondLook, "same", _AnyLife.same, 0, id="rebuilt-meanwhile"),
        pytest.param(compare, "_swept", lambda row, known: False, 0, id="sweep-at-work"),
    ],
)
async def test_each_step_is_needed(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, broken: Any, seed: int
) -> None:
    monkeypatch.setattr(owner, name, broken)
    for seed in range(seed, seed + 300):  # noqa: B020
        if any(report.counts for report in await watched(world_of(seed))):
            return
    pytest.fail("nothing was reported falsely")
