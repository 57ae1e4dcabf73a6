"""One shard in memory, whose every step may be its owner's last: what the property tests share."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

from scheduler.adapters.memory_log import MemoryPartition
from scheduler.adapters.memory_record import MemoryRecord
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.dispatch import ShardDispatcher
from scheduler.project import Projection
from scheduler.rebuild import Rebuild

SHARD, STATUSES = 0, "engagement-status"


class Died(BaseException):
    """A kill -9, at an await of the owner."""


class Shaky:
    """An adapter whose every call may take its time, and may be the last thing its owner does:
    before it has happened, or just after."""

    def __init__(
        self,
        behind: object,
        pause: Callable[[], Awaitable[None]],
        without: set[str] | frozenset[str] = frozenset(),
    ) -> None:
        self._behind = behind
        self._pause = pause
        self._without = without

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._behind, name)
        if name in self._without:
            return call

        async def shaky(*args: Any, **kwargs: Any) -> Any:
            await self._pause()
            result = await call(*args, **kwargs)
            await self._pause()
            return result

        return shaky


class ShardWorld:
    """The stores, a clock, and chance, by which `death` is the share of awaits that kill."""

    wheel: MemoryWheel

    def __init__(self, seed: int, *, inputs: Sequence[str], await_ms: int, death: float) -> None:
        """`wheel` is the heir's to make."""
        self.rng = random.Random(seed)
        self.now_ms = 1_000_000
        self.record = MemoryRecord()
        self.kafka = MemoryPartition(SHARD)
        self.deaths = 0
        self.calm = False
        self._inputs = inputs
        self._await_ms = await_ms
        self._death = death
        self._tokens = count()

    def token(self) -> str:
        return f"token-{next(self._tokens)}"

    async def pause(self) -> None:
        """Others may run here, for a while; and who waits may die here."""
        if self.calm:
            return
        for _ in range(self.rng.choice((0, 0, 1, 1, 2, 20))):
            await asyncio.sleep(0)
        if self.rng.random() < self._death:
            self.deaths += 1
            raise Died

    def owner(self) -> ShardDispatcher:
        wheel: Any = Shaky(self.wheel, self.pause)
        shard_log: Any = Shaky(self.kafka.open(), self.pause)
        record: Any = Shaky(self.record, self.pause, without={"snapshot"})
        projection = Projection(SHARD, STATUSES, record, self.kafka)
        rebuild = Rebuild(
            wheel, record, input_topics=self._inputs, token=self.token, await_ms=self._await_ms
        )
        return ShardDispatcher(
            SHARD,
            wheel,
            shard_log,
            projection,
            rebuild,
            token=self.token,
            limit=7,
            await_ms=self._await_ms,
        )
