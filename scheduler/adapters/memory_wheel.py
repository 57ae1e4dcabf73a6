"""The timer wheel in memory: the twin of the Redis one, for tests and for trying things out.

It keeps every promise of the port but durability, and passes the same contract tests.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from msgspec import Struct
from msgspec.structs import replace

from scheduler.controls import EVERYBODY, Subject
from scheduler.errors import FencedError, WheelBehindError, WheelLostError
from scheduler.policy import OverduePolicy
from scheduler.ports import NOBODY, NOTHING_BEFORE, Aside, Claim, WheelSize, WheelState
from scheduler.timer import Timer, pack

FEW = 8
"""So few timers of one pod crowd nobody, however small a batch is."""


class _Batch(Struct, frozen=True):
    timers: Sequence[Timer]
    timeouts: Sequence[Timer]
    overdue: Sequence[Timer] = ()
    shift_ms: int | None = None


@dataclass(slots=True)
class _Shard:
    epoch: str | None = None
    gen: str | None = None
    seq: int = -1
    nonce: str = ""
    watermarks: dict[str, int] = field(default_factory=dict)
    pending: dict[tuple[int, bytes], Timer] = field(default_factory=dict)
    order: list[tuple[int, bytes]] = field(default_factory=list)
    in_flight: _Batch | None = None
    awaited: dict[bytes, Timer] = field(default_factory=dict)  # due: their deadline
    answered: set[bytes] = field(default_factory=set)
    held: dict[bytes, Timer] = field(default_factory=dict)
    aside: dict[bytes, Timer] = field(default_factory=dict)
    aside_for: str = ""
    aside_step: int = 0
    paused: set[Subject] = field(default_factory=set)
    parked: dict[tuple[int, bytes], Timer] = field(default_factory=dict)
    head_ms: float = 0
    last_ms: int = 0
    wiped: bool = False
    shift_ms: int | None = None


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

    async def now_ms(self) -> int:
        """See `Wheel.now_ms`."""
        return self._now_ms()

    async def add(
        self,
        shard: int,
        topic: str,
        expected: int,
        upto: int,
        timers: Sequence[Timer],
        *,
        remove: Sequence[Timer] = (),
        after: Mapping[str, int] = NOTHING_BEFORE,
        planned: bool = False,
        pauses: Mapping[Subject, bool] = NOBODY,
        seen: Aside | None = None,
    ) -> int:
        """See `Wheel.add`."""
        if upto < expected:
            raise ValueError(f"a watermark never goes back: {expected} to {upto}")
        state = await self._of_now(shard, seen)
        at = state.watermarks.get(topic, -1)
        if at != expected:
            return at
        for other, least in after.items():
            if state.watermarks.get(other, -1) < least:
                raise WheelBehindError(shard, other)
        coming = {pack(timer): timer for timer in timers}
        for timer in remove:
            packed = pack(timer)
            if packed in coming:
                # Moved; but only from where it waits.
                if not self._drop(state, timer) and not _released(state, packed):
                    del coming[packed]
            elif (
                not state.awaited.pop(packed, None)
                and not self._drop(state, timer)
                and not _released(state, packed)
                and state.in_flight
            ):
                state.answered.add(packed)
        self._put(state, list(coming.values()))
        for subject, paused in pauses.items():
            self._pause(shard, state, subject, paused)
        if seen is not None:
            state.aside_step += 1
        if upto > expected:
            state.watermarks[topic] = upto
            self._put_back(shard, state, topic)
        earliest = min((timer.due_ms for timer in timers), default=None)
        if earliest is not None and earliest < state.head_ms:
            state.head_ms = earliest
            self._wake(shard)
        return upto

    async def set_aside(
        self,
        shard: int,
        topic: str,
        expected: int,
        timers: Sequence[Timer],
        *,
        after: Mapping[str, int] = NOTHING_BEFORE,
        seen: Aside | None = None,
    ) -> Aside | None:
        """See `Wheel.set_aside`."""
        state = await self._of_now(shard, seen)
        if state.watermarks.get(topic, -1) != expected:
            return None
        for other, least in after.items():
            if state.watermarks.get(other, -1) < least:
                raise WheelBehindError(shard, other)
        for timer in timers:
            packed = pack(timer)
            if self._drop(state, timer) or packed in state.held:
                state.held.pop(packed, None)
                state.aside[packed] = timer
                state.aside_for = topic
        state.aside_step += 1
        held = [pack(timer) in state.aside for timer in timers]
        return Aside(state.gen or "", state.aside_step, held)

    async def aside(self, shard: int, topic: str) -> Sequence[Timer]:
        """See `Wheel.aside`."""
        state = self._alive(shard)
        return list(state.aside.values()) if state.aside_for == topic else []

    async def take(self, shard: int, epoch: str) -> WheelState:
        """See `Wheel.take`."""
        state = self._of(shard)
        state.epoch = epoch
        if state.gen is None:
            return WheelState(gen=None, seq=-1, nonce="")
        return WheelState(gen=state.gen, seq=state.seq, nonce=state.nonce)

    async def claim(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        nonce: str,
        limit: int,
        await_ms: int,
        overdue: OverduePolicy | None = None,
    ) -> Claim:
        """See `Wheel.claim`."""
        state = self._owned(shard, epoch)
        if state.gen is None or state.gen != gen:
            raise WheelLostError(shard, f"generation {state.gen or 'missing'}")
        now_ms = self._now_ms()
        if state.seq == done[0] + 1:
            if state.in_flight is None:
                raise WheelLostError(shard, "no in-flight batch")
            return self._claimed(state, now_ms)
        if (state.seq, state.nonce) != done:
            raise WheelLostError(
                shard, f"back in time: at batch {state.seq}, committed is {done[0]}"
            )
        self._settle(state, now_ms + await_ms)
        self._park(state, now_ms)
        deadlines = sorted(
            (timer.due_ms, packed)
            for packed, timer in state.awaited.items()
            if timer.due_ms <= now_ms
        )
        room = limit - min(len(deadlines), -(-limit // 8), limit - 1)
        claimed = [] if EVERYBODY in state.paused else _fairly(state, now_ms, room)
        timers = [state.pending.pop(entry) for entry in claimed]
        if claimed == state.order[: len(claimed)]:
            del state.order[: len(claimed)]
        else:
            state.order = [entry for entry in state.order if entry in state.pending]
        due = len(timers)
        late, shift_ms = self._hold(state, timers, now_ms, overdue)
        timers = timers[len(late) :]
        timeouts = [state.awaited.pop(packed) for _, packed in deadlines[: limit - due]]
        if timers or timeouts or late:
            state.in_flight = _Batch(timers, timeouts, late, shift_ms)
            state.seq, state.nonce, state.head_ms = state.seq + 1, nonce, 0
            state.last_ms = now_ms
        else:
            state.head_ms = float("inf") if (at := _next(state)) is None else at
        return self._claimed(state, now_ms)

    async def wipe(self, shard: int, epoch: str) -> None:
        """See `Wheel.wipe`."""
        self._owned(shard, epoch)
        self._shards[shard] = _Shard(epoch=epoch, wiped=True)

    async def load(self, shard: int, epoch: str, timers: Sequence[Timer]) -> None:
        """See `Wheel.load`."""
        self._put(self._emptied(shard, epoch), timers)

    async def load_awaited(self, shard: int, epoch: str, timers: Sequence[Timer]) -> None:
        """See `Wheel.load_awaited`."""
        state = self._emptied(shard, epoch)
        state.awaited.update((pack(timer), timer) for timer in timers)

    async def open(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        watermarks: Mapping[str, int],
        *,
        holding: tuple[int, int] | None = None,
        paused: Collection[Subject] = (),
        last_ms: int = 0,
    ) -> None:
        """See `Wheel.open`."""
        state = self._owned(shard, epoch)
        if holding is not None:
            self._emptied(shard, epoch)
            if (len(state.pending), len(state.awaited)) != holding:
                raise WheelLostError(shard, "it does not hold what was loaded")
        state.wiped = False
        state.last_ms = min(last_ms, self._now_ms())
        state.seq, state.nonce = done
        state.watermarks.update(watermarks)
        state.paused = set(paused)
        state.gen = gen

    async def size(self, shard: int) -> WheelSize:
        """See `Wheel.size`."""
        state = self._of(shard)
        batch = state.in_flight
        return WheelSize(
            gen=state.gen,
            pending=len(state.pending) + len(state.held) + len(state.parked) + len(state.aside),
            in_flight=len(batch.timers) + len(batch.timeouts) if batch else 0,
            next_due_ms=_next(state),
            watermarks=dict(state.watermarks),
            due=0
            if EVERYBODY in state.paused
            else bisect_right(state.order, self._now_ms(), key=lambda entry: entry[0]),
            awaited=len(state.awaited),
            held=len(state.held),
            parked=len(state.parked),
        )

    async def forget(self, shard: int) -> None:
        """See `Wheel.forget`."""
        state = self._of(shard)
        state.gen = state.epoch = None
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
            self._wake(shard)
            raise WheelLostError(shard)
        return state

    async def _of_now(self, shard: int, seen: Aside | None) -> _Shard:
        state = self._alive(shard)
        if seen is not None and state.gen == seen.gen and state.aside_step < seen.step:
            await self.forget(shard)
            raise WheelLostError(shard, "it has gone back in time")
        return state

    def _owned(self, shard: int, epoch: str) -> _Shard:
        state = self._of(shard)
        if state.epoch is None:
            raise WheelLostError(shard, "no epoch")
        if state.epoch != epoch:
            raise FencedError(shard, f"epoch {state.epoch}")
        return state

    def _emptied(self, shard: int, epoch: str) -> _Shard:
        state = self._owned(shard, epoch)
        if state.gen is not None:
            raise WheelLostError(shard, "it is open, nothing may be loaded")
        if not state.wiped:
            raise WheelLostError(shard, "it is not wiped")
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

    def _drop(self, state: _Shard, timer: Timer) -> bool:
        """Whether it was there; it is no longer."""
        entry = (timer.due_ms, pack(timer))
        if state.parked.pop(entry, None):
            return True
        if state.pending.pop(entry, None) is None:
            return False
        del state.order[bisect_left(state.order, entry)]
        return True

    def _put_back(self, shard: int, state: _Shard, topic: str) -> None:
        if state.aside and state.aside_for == topic:
            self._put(state, list(state.aside.values()))
            state.aside.clear()
            self._wake(shard)

    def _pause(self, shard: int, state: _Shard, subject: Subject, paused: bool) -> None:
        if paused:
            state.paused.add(subject)
        elif subject in state.paused:
            state.paused.remove(subject)
            free = [each for each in state.parked.values() if not _is_paused(state, each)]
            for timer in free:
                del state.parked[timer.due_ms, pack(timer)]
            self._put(state, free)
            self._wake(shard)

    def _park(self, state: _Shard, now_ms: int) -> None:
        """Those who are paused have nothing in the way of the others; all wait if all are
        paused."""
        if not state.paused or EVERYBODY in state.paused:
            return
        for entry in state.order[: bisect_right(state.order, now_ms, key=lambda each: each[0])]:
            if _is_paused(state, timer := state.pending[entry]):
                self._drop(state, timer)
                state.parked[entry] = timer

    def _hold(
        self, state: _Shard, due: Sequence[Timer], now_ms: int, policy: OverduePolicy | None
    ) -> tuple[Sequence[Timer], int | None]:
        """Those of `due` that are overdue, held back, and the shift of their backlog."""
        late = [t for t in due if policy is not None and now_ms - t.due_ms > policy.after_ms]
        state.held.update((pack(timer), timer) for timer in late)
        if not late:
            state.shift_ms = None
        elif state.shift_ms is None:
            state.shift_ms = now_ms - max(late[0].due_ms, state.last_ms)
        elif policy is not None and 0 < state.last_ms < now_ms - policy.after_ms:
            state.shift_ms += now_ms - state.last_ms
        return late, state.shift_ms if policy and policy.verdict == "postpone" else None

    def _settle(self, state: _Shard, deadline_ms: int) -> None:
        batch, state.in_flight = state.in_flight, None
        for timer in batch.timers if batch else ():
            packed = pack(timer)
            if packed not in state.answered:
                state.awaited[packed] = replace(timer, due_ms=deadline_ms)
        state.answered.clear()

    def _claimed(self, state: _Shard, now_ms: int) -> Claim:
        batch = state.in_flight or _Batch((), ())
        return Claim(
            state.seq,
            state.nonce,
            batch.timers,
            _next(state),
            now_ms,
            timeouts=batch.timeouts,
            overdue=batch.overdue,
            shift_ms=batch.shift_ms,
        )


def _fairly(state: _Shard, now_ms: int, limit: int) -> list[tuple[int, bytes]]:
    """What is due, up to `limit`, in its order. In a backlog, pods that have more than a quarter
    of a batch get a quarter of it together, and what the others leave."""
    due = state.order[: bisect_right(state.order, now_ms, key=lambda entry: entry[0])]
    if len(due) <= limit:
        return due
    pods = [state.pending[entry].pod_id for entry in due]
    crowding: set[str] = set()
    while True:
        others = [entry for entry, pod in zip(due, pods, strict=True) if pod not in crowding]
        room = limit - limit // 4 if crowding else limit
        counts = Counter(state.pending[entry].pod_id for entry in others[:room])
        more = {pod for pod, count in counts.items() if count > max(limit // 4, FEW)}
        if len(others) <= room or not more:
            break
        crowding |= more
    claimed = others[:room]
    left = [entry for entry, pod in zip(due, pods, strict=True) if pod in crowding]
    return sorted([*claimed, *left[: limit - len(claimed)]])


def _released(state: _Shard, packed: bytes) -> Timer | None:
    return state.held.pop(packed, None) or state.aside.pop(packed, None)


def _is_paused(state: _Shard, timer: Timer) -> bool:
    who = (
        Subject("pod", timer.pod_id),
        Subject("member", timer.member_id),
        Subject("opted_out", timer.member_id),
    )
    return not state.paused.isdisjoint(who)


def _next(state: _Shard) -> int | None:
    deadlines = [timer.due_ms for timer in state.awaited.values()]
    waiting = [] if EVERYBODY in state.paused else state.order[:1]
    return min([*deadlines, *(at for at, _ in waiting)], default=None)
