"""One shard in memory, whose every step may be its owner's last: what the property tests share."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any

from scheduler.adapters.memory_log import MemoryPartition, MemoryShardLog
from scheduler.adapters.memory_record import MemoryRecord
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.dispatch import ShardDispatcher
from scheduler.policy import OverduePolicy
from scheduler.project import Projection
from scheduler.rebuild import Rebuild
from scheduler.timer import Timer
from schemas.events import PodCommand, WheelCursor

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


class UncommittedReports(MemoryShardLog):
    """A log whose owner sometimes dies between writing its reports and committing them."""

    def __init__(self, world: "ShardWorld") -> None:
        super().__init__(world.kafka)
        self._world = world

    async def commit(
        self,
        timers: Sequence[Timer],
        at_ms: int,
        cursor: WheelCursor,
        timeouts: Sequence[Timer] = (),
        reports: Sequence[PodCommand] = (),
    ) -> int:
        world = self._world
        if reports and not self.fenced:
            world.reports += reports
            if not world.calm and world.fate.random() < 0.3:
                world.deaths += 1
                raise Died
        return await super().commit(timers, at_ms, cursor, timeouts, reports)


class Lingering(Projection):
    """Gathers commits for some turns of the loop, and not by the clock."""

    def __init__(self, world: "ShardWorld", *args: Any) -> None:
        super().__init__(*args)
        self._world = world

    async def _gather(self) -> None:
        for _ in range(self._world.patience.choice((0, 5, 50, 200))):
            await asyncio.sleep(0)


class ShardWorld:
    """The stores, a clock, and chance, by which `death` is the share of awaits that kill."""

    wheel: MemoryWheel

    def __init__(
        self,
        seed: int,
        *,
        inputs: Sequence[str],
        await_ms: int,
        death: float,
        policies: Sequence[OverduePolicy | None] = (None,),
        lingers: bool = False,
    ) -> None:
        """`wheel` is the heir's to make. Of `policies` each process has one, by chance. With
        `lingers` a projection gathers commits before it writes them."""
        self.rng = random.Random(seed)
        self.now_ms = 1_000_000
        self.record = MemoryRecord()
        self.kafka = MemoryPartition(SHARD)
        self.deaths = 0
        self.calm = False
        self._inputs = inputs
        self._await_ms = await_ms
        self._policies = policies
        # Apart from `rng`, so that a seed means the same with every policy.
        self.fate = random.Random(seed)
        # Apart from both, likewise.
        self.patience = random.Random(seed)
        self._lingers = lingers
        self.reports: list[PodCommand] = []
        """As workers read them: also those of transactions that were never committed."""
        self._death = death
        self._tokens = count()

    def token(self) -> str:
        return f"token-{next(self._tokens)}"

    @property
    def policy(self) -> OverduePolicy | None:
        """What the process that is starting thinks of overdue timers."""
        return self.fate.choice(self._policies)

    @property
    def pushes(self) -> bool:
        """Whether any timer may be found overdue, so that it is worth while to be late."""
        return any(self._policies)

    @property
    def agreed(self) -> bool:
        """Whether all processes think alike. Else one may fire what another has reported."""
        return len(self._policies) == 1

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
        # Its clock is read before a step that may be the last one anyway.
        wheel: Any = Shaky(self.wheel, self.pause, without={"now_ms"})
        shard_log: Any = Shaky(UncommittedReports(self), self.pause)
        record: Any = Shaky(self.record, self.pause, without={"snapshot"})
        parts = (SHARD, STATUSES, record, self.kafka)
        projection = Lingering(self, *parts) if self._lingers else Projection(*parts)
        rebuild = Rebuild(
            wheel,
            record,
            input_topics=self._inputs,
            commands="pod-commands",
            token=self.token,
            await_ms=self._await_ms,
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
            overdue=self.policy,
        )
