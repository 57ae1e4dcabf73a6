"""The wheel in memory as an onlooker sees it: the twin of the Redis one."""

from collections.abc import AsyncIterator, Sequence

from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.ports import Placed, Sight, Sighting, WheelCount, WheelMeta
from scheduler.timer import Timer, pack

PAGE = 1_000
"""Timers of one page."""


class MemoryWheelView(MemoryWheel):
    """The `WheelView` port, and the wheel itself."""

    async def meta(self, shard: int) -> WheelMeta:
        """See `WheelView.meta`."""
        state = self._of(shard)
        return WheelMeta(
            state.gen, state.seq, state.nonce, state.epoch is not None, dict(state.watermarks)
        )

    async def find(self, shard: int, timers: Sequence[Timer]) -> Sighting:
        """See `WheelView.find`."""
        state = self._of(shard)
        batch = state.in_flight
        claimed = {pack(each) for each in (*batch.timers, *batch.timeouts)} if batch else set()
        sights = []
        for timer in timers:
            packed = pack(timer)
            entry = (timer.due_ms, packed)
            waits = entry in state.pending or entry in state.parked or packed in state.held
            waits = waits or packed in state.aside
            awaited = state.awaited.get(packed)
            sights.append(
                Sight(
                    waits=waits,
                    in_flight=not waits and awaited is None and packed in claimed,
                    deadline_ms=awaited.due_ms if awaited else None,
                )
            )
        return Sighting(await self.meta(shard), self._now_ms(), sights)

    async def timers(self, shard: int) -> AsyncIterator[Sequence[Placed]]:
        """See `WheelView.timers`. Each page is of one moment."""
        at = (-1, b"")
        while entries := [entry for entry in self._of(shard).order if entry > at][:PAGE]:
            at = entries[-1]
            pending = self._of(shard).pending
            yield [Placed(pending[entry], fired=False) for entry in entries]
        state = self._of(shard)
        aside = [*state.held.values(), *state.parked.values(), *state.aside.values()]
        for start in range(0, len(aside), PAGE):
            yield [Placed(timer, fired=False) for timer in aside[start : start + PAGE]]
        at = (-1, b"")
        while fired := self._awaited(shard, at)[:PAGE]:
            at = (fired[-1].due_ms, pack(fired[-1]))
            yield [Placed(timer, fired=True) for timer in fired]

    def _awaited(self, shard: int, after: tuple[int, bytes]) -> list[Timer]:
        awaited = self._of(shard).awaited
        keys = sorted((timer.due_ms, packed) for packed, timer in awaited.items())
        return [awaited[packed] for due_ms, packed in keys if (due_ms, packed) > after]

    async def count(self, shard: int) -> WheelCount:
        """See `WheelView.count`."""
        size = await self.size(shard)
        return WheelCount(size.pending, size.in_flight, size.awaited)
