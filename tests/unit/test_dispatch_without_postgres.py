"""PostgreSQL is away: what is in the wheel fires on, and the record is told when it is back."""

import asyncio
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from scheduler.activity import Status, StatusChange
from scheduler.adapters.memory_log import MemoryPartition
from scheduler.adapters.memory_record import MemoryRecord
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.dispatch import ShardDispatcher
from scheduler.errors import StoreUnavailableError
from scheduler.project import Projection
from scheduler.rebuild import Rebuild
from scheduler.tasks import ended
from scheduler.timer import Timer

SHARD, STATUSES = 0, "engagement-status"
INPUTS = ("post-detected", "engagement-executed", "pod-commands")
BATCHES, LIMIT = 10, 3

pytestmark = pytest.mark.timeout(20)


class Record(MemoryRecord):
    """Of all that it can, what a projection calls may be refused."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.refused = asyncio.Event()
        self.told: list[StatusChange] = []
        self.more = asyncio.Event()

    async def watermark(self, topic: str, shard: int) -> int:
        self._answer()
        return await super().watermark(topic, shard)

    async def project(
        self, topic: str, shard: int, expected: int, upto: int, changes: Sequence[StatusChange]
    ) -> bool:
        self._answer()
        moved = await super().project(topic, shard, expected, upto, changes)
        if moved:
            self.told += changes
            self.more.set()
        return moved

    def _answer(self) -> None:
        if self.away:
            self.refused.set()
            raise StoreUnavailableError("PostgreSQL", "away")


class Site:
    """A shard whose wheel holds ten batches of due timers, and its owner."""

    def __init__(self) -> None:
        tokens = count()
        self.record = Record()
        self.kafka = MemoryPartition(SHARD)
        self.wheel = MemoryWheel(lambda: 1_000)
        wheel: Any = self.wheel

        def token() -> str:
            return f"token-{next(tokens)}"

        rebuild = Rebuild(
            wheel,
            self.record,
            input_topics=INPUTS,
            commands=INPUTS[-1],
            token=token,
            await_ms=1000,
        )
        self.owner = ShardDispatcher(
            SHARD,
            wheel,
            self.kafka.open(),
            Projection(SHARD, STATUSES, self.record, self.kafka),
            rebuild,
            token=token,
            limit=LIMIT,
            await_ms=1000,
        )

    async def fill(self) -> None:
        timers = [
            Timer(f"activity-{n}", "pod", "post", f"m-{n}", "like", 1, 900 + n)
            for n in range(BATCHES * LIMIT)
        ]
        assert await self.wheel.add(SHARD, INPUTS[0], -1, 0, timers) == 0


async def test_what_is_in_the_wheel_fires_without_postgres_which_is_told_later() -> None:
    site = Site()
    await site.owner.take()
    await site.fill()
    site.record.away = True
    projecting = asyncio.create_task(site.owner.project())
    try:
        await site.record.refused.wait()
        turns = [await site.owner.run_once() for _ in range(BATCHES)]
        assert [len(turn.timers) for turn in turns] == [LIMIT] * BATCHES
        assert len(site.kafka.fired) == BATCHES * LIMIT
        assert not projecting.done()
        assert site.record.told == []
        site.record.away = False
        await site.owner.flush()
    finally:
        await ended(projecting)
    assert {(each.activity_id, each.status) for each in site.record.told} == {
        (fired.timer.activity_id, Status.DISPATCHED) for fired in site.kafka.fired
    }
    assert await site.record.watermark(STATUSES, SHARD) == await site.kafka.open().status_end() - 1
