"""The timer wheel in memory: the twin of the Redis one, for tests and for trying things out.

It keeps every promise of the port but durability, and passes the same contract tests.
"""

import asyncio
import time
from bisect import bisect_right, insort
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from scheduler.errors import FencedError, WheelLostError
from scheduler.ports import Claim, WheelSize, WheelState
from scheduler.timer import Timer, pack


@dataclass(slots=True)
class _Shard:
    epoch: str | None = None
    gen: str | None = None
    seq: int = -1
    nonce: str = ""
    watermarks: dict[str, int] = field(default_factory=dict)
    pending: dict[tuple[int, bytes], Timer] = field(default_factory=dict)
    order: list[tuple[int, bytes]] = field(default_factory=list)
    in_flight: list[Timer] | None = None
    head_ms: float = 0


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class MemoryWheel:
    """The `Wheel` port without a server; `now_ms` stands for the server's clock."""

    def __init__(self, now_ms: Callable[[], int] = _now_ms) -> None:
        self._now_ms = now_ms
        self._shards: dict[int, _Shard] = {}
        self._listeners: list[asyncio.Queue[int]] = []

    async def watermark(self, shard: int, topic: str) -> int:
        """See `Wheel.watermark`."""
        return self._alive(shard).watermarks.get(topic, -1)

    async def add(
        self, shard: int, topic: str, expected: int, upto: int, timers: Sequence[Timer]
    ) -> int:
        """See `Wheel.add`."""
        if upto < expected:
            raise ValueError(f"a watermark never goes back: {expected} to {upto}")
        state = self._alive(shard)
        at = state.watermarks.get(topic, -1)
        if at != expected:
            return at
        self._put(state, timers)
        state.watermarks[topic] = upto
        earliest = min((timer.due_ms for timer in timers), default=None)
        if earliest is not None and earliest < state.head_ms:
            state.head_ms = earliest
            self._wake(shard)
        return upto

    async def take(self, shard: int, epoch: str) -> WheelState:
        """See `Wheel.take`."""
        state = self._of(shard)
        state.epoch = epoch
        if state.gen is None:
            return WheelState(gen=None, seq=-1, nonce="")
        return WheelState(gen=state.gen, seq=state.seq, nonce=state.nonce)

    async def claim(
        self, shard: int, epoch: str, gen: str, done: tuple[int, str], nonce: str, limit: int
    ) -> Claim:
        """See `Wheel.claim`."""
        state = self._owned(shard, epoch)
        if state.gen is None or state.gen != gen:
            raise WheelLostError(shard, f"generation {state.gen or 'missing'}")
        now_ms = self._now_ms()
        if state.seq == done[0] + 1:
            if state.in_flight is None:
                raise WheelLostError(shard, "no in-flight batch")
            return Claim(state.seq, state.nonce, state.in_flight, _next(state), now_ms)
        if (state.seq, state.nonce) != done:
            raise WheelLostError(
                shard, f"back in time: at batch {state.seq}, committed is {done[0]}"
            )
        state.in_flight = None
        due = min(limit, bisect_right(state.order, now_ms, key=lambda entry: entry[0]))
        if due:
            state.in_flight = [state.pending.pop(entry) for entry in state.order[:due]]
            del state.order[:due]
            state.seq, state.nonce, state.head_ms = state.seq + 1, nonce, 0
        else:
            state.head_ms = state.order[0][0] if state.order else float("inf")
        return Claim(state.seq, state.nonce, state.in_flight or [], _next(state), now_ms)

    async def wipe(self, shard: int, epoch: str) -> None:
        """See `Wheel.wipe`."""
        self._owned(shard, epoch)
        self._shards[shard] = _Shard(epoch=epoch)

    async def load(self, shard: int, epoch: str, timers: Sequence[Timer]) -> None:
        """See `Wheel.load`."""
        state = self._owned(shard, epoch)
        if state.gen is not None:
            raise WheelLostError(shard, "it is open, nothing may be loaded")
        self._put(state, timers)

    async def open(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        watermarks: Mapping[str, int],
    ) -> None:
        """See `Wheel.open`."""
        state = self._owned(shard, epoch)
        state.seq, state.nonce = done
        state.watermarks.update(watermarks)
        state.gen = gen

    async def size(self, shard: int) -> WheelSize:
        """See `Wheel.size`."""
        state = self._of(shard)
        return WheelSize(
            gen=state.gen,
            pending=len(state.pending),
            in_flight=len(state.in_flight or ()),
            next_due_ms=_next(state),
            watermarks=dict(state.watermarks),
        )

    async def forget(self, shard: int) -> None:
        """See `Wheel.forget`."""
        self._of(shard).gen = None
        self._wake(shard)

    def lose(self) -> None:
        """What FLUSHALL does to Redis: everything is gone, the epochs too."""
        self._shards.clear()

    @asynccontextmanager
    async def wakes(self, shards: Sequence[int]) -> AsyncIterator[AsyncIterator[int]]:
        """See `Wheel.wakes`."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        self._listeners.append(queue)

        async def heard() -> AsyncIterator[int]:
            while True:
                shard = await queue.get()
                if shard in shards:
                    yield shard

        try:
            yield heard()
        finally:
            self._listeners.remove(queue)

    def _of(self, shard: int) -> _Shard:
        return self._shards.setdefault(shard, _Shard())

    def _alive(self, shard: int) -> _Shard:
        state = self._of(shard)
        if state.gen is None:
            raise WheelLostError(shard)
        return state

    def _owned(self, shard: int, epoch: str) -> _Shard:
        state = self._of(shard)
        if state.epoch is None:
            raise WheelLostError(shard, "no epoch")
        if state.epoch != epoch:
            raise FencedError(shard, f"epoch {state.epoch}")
        return state

    def _wake(self, shard: int) -> None:
        for queue in self._listeners:
            queue.put_nowait(shard)

    def _put(self, state: _Shard, timers: Sequence[Timer]) -> None:
        for timer in timers:
            entry = (timer.due_ms, pack(timer))
            if entry not in state.pending:
                state.pending[entry] = timer
                insort(state.order, entry)


def _next(state: _Shard) -> int | None:
    return state.order[0][0] if state.order else None
