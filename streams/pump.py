"""One partition's buffer, and the task that applies it batch by batch and acks strictly in order.

There is no Faust here: whatever delivers the records gives a token with each, and gets it back when
the record has been applied.

What one stream for all partitions means: whoever waits to put a record for one partition holds up
all the others. So `put` does not wait when a partition is slow. At `high` the buffer asks, by
`pressure`, for its partition alone to be fetched no more, and takes what is on its way already.
Only at `hard`, which is out of reach as long as the pressure is heeded, does the stream wait.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol, TypeVar

import structlog

from scheduler.errors import TransientError
from scheduler.ports import SourceRecord
from scheduler.tasks import end_if_cancelled

BATCH_BYTES = 4 * 1024 * 1024
"""Bytes of one batch, where a record is not larger by itself: decoding it blocks the loop."""

HIGH_EVENTS = 1000
HIGH_BYTES = 16 * 1024 * 1024
"""What a buffer holds when fetching pauses: enough to keep the pump busy meanwhile."""

HARD_EXTRA_EVENTS = 4000
HARD_FACTOR_BYTES = 4
"""Room above that for what is on its way by then: one poll, and the stream's own buffer."""

OVERHEAD_BYTES = 200
"""What a record costs in memory beside its value, so that empty ones are not for nothing."""

CATCH_UP_S = 5.0
"""How often an idle partition compares its stores."""

log = structlog.get_logger(__name__)
TokenT = TypeVar("TokenT")


class Applier(Protocol):
    """What a pump drives; `scheduler.apply.PostDetectedApplier` is one."""

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        """Apply records of one partition, offsets ascending; anything raised is a bug."""

    async def catch_up(self) -> None:
        """Look whether a store has lost something. May raise `TransientError`."""


@dataclass(frozen=True, slots=True)
class PumpLimits:
    """Records of a batch at most, and how long (seconds) the first one waits for others."""

    batch_events: int
    linger_s: float
    batch_bytes: int = BATCH_BYTES
    high_events: int = HIGH_EVENTS
    high_bytes: int = HIGH_BYTES
    hard_extra_events: int = HARD_EXTRA_EVENTS
    catch_up_s: float = CATCH_UP_S


class _Entry(NamedTuple, Generic[TokenT]):
    record: SourceRecord
    token: TokenT
    size: int
    arrived_s: float


class Pump(Generic[TokenT]):
    """Feeds one applier from one bounded buffer. `run` it in a task of its own.

    Cancelling that task leaves what is in the buffer, and a batch in hand, unacked.
    """

    def __init__(
        self,
        applier: Applier,
        ack: Callable[[TokenT], Awaitable[object]],
        limits: PumpLimits,
        pressure: Callable[[bool], None] = lambda _: None,
    ) -> None:
        """`pressure(True)` asks to fetch no more of this partition for now, False to go on."""
        self._applier = applier
        self._ack = ack
        self._limits = limits
        self._pressure = pressure
        # Less than two batches would have the pump wait for the fetcher.
        self._high_events = max(limits.high_events, 2 * limits.batch_events)
        self._buffer: deque[_Entry[TokenT]] = deque()
        self._bytes = 0
        self._pressed = False
        self._closed = False
        self._last_look_s: float | None = None
        self._arrived = asyncio.Event()
        self._enough = asyncio.Event()
        self._room = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self.taken = -1
        """Offset of the last record put, -1 before the first."""

    @property
    def busy(self) -> bool:
        """Whether it has anything to do, or to wait for."""
        return bool(self._buffer) or not self._settled.is_set()

    @property
    def buffered(self) -> int:
        """Records in the buffer, without the batch in hand."""
        return len(self._buffer)

    async def put(self, record: SourceRecord, token: TokenT) -> bool:
        """Take a record; False when the pump was closed, and the record is nobody's."""
        while not self._closed and self._is_full():
            self._room.clear()
            await self._room.wait()
        if self._closed:
            return False
        size = OVERHEAD_BYTES + len(record.value or b"") + len(record.key or b"")
        now_s = asyncio.get_running_loop().time()
        self._buffer.append(_Entry(record, token, size, now_s))
        self._bytes += size
        self.taken = record.offset
        self._arrived.set()
        if self._is_enough():
            self._enough.set()
        if self._is_above(1):
            # Said again each time: whoever delivers may have resumed for reasons of its own.
            self._pressed = True
            self._pressure(True)
        return True

    def close(self) -> None:
        """Take no more, and drop the buffer unacked. A `put` that waits returns False."""
        self._closed = True
        self._buffer.clear()
        self._bytes = 0
        self._room.set()

    async def settled(self) -> None:
        """Wait until no batch is in hand."""
        await self._settled.wait()

    async def run(self) -> None:
        """Turn after turn, until cancelled. Raises what the applier raises: then nothing more may
        be acked, and the process should end.
        """
        while True:
            await self.run_once()
            end_if_cancelled()

    async def run_once(self) -> int:
        """Apply and ack one batch; returns its size. 0: there was none, and the stores were
        compared instead.
        """
        loop = asyncio.get_running_loop()
        if self._last_look_s is None or not await self._filled(
            self._last_look_s + self._limits.catch_up_s - loop.time()
        ):
            self._last_look_s = loop.time()
            await self._look()
            return 0
        batch = self._take()
        if not batch:
            return 0  # closed meanwhile
        self._settled.clear()
        try:
            await self._applier.apply([entry.record for entry in batch])
            for entry in batch:
                await self._ack(entry.token)
        finally:
            self._settled.set()
        self._last_look_s = loop.time()
        return len(batch)

    async def _look(self) -> None:
        try:
            await self._applier.catch_up()
        except TransientError as error:
            log.debug("comparing the stores must wait", reason=str(error))

    async def _filled(self, within_s: float) -> bool:
        """Wait for a batch: False when not one record has come in time."""
        if not self._buffer:
            self._arrived.clear()
            if not await _in_time(self._arrived, within_s):
                return False
        loop = asyncio.get_running_loop()
        if not self._buffer:
            return True  # closed meanwhile
        linger_s = self._buffer[0].arrived_s + self._limits.linger_s - loop.time()
        if linger_s > 0 and not self._is_enough():
            self._enough.clear()
            await _in_time(self._enough, linger_s)
        return True

    def _take(self) -> list[_Entry[TokenT]]:
        batch: list[_Entry[TokenT]] = []
        size = 0
        while self._buffer and len(batch) < self._limits.batch_events:
            entry = self._buffer[0]
            if batch and (
                size + entry.size > self._limits.batch_bytes
                # A redelivery: an applier is promised ascending offsets.
                or entry.record.offset <= batch[-1].record.offset
            ):
                break
            batch.append(self._buffer.popleft())
            size += entry.size
        self._bytes -= size
        self._room.set()
        if self._pressed and not self._is_above(0.5):
            self._pressed = False
            self._pressure(False)
        return batch

    def _is_enough(self) -> bool:
        limits = self._limits
        return len(self._buffer) >= limits.batch_events or self._bytes >= limits.batch_bytes

    def _is_full(self) -> bool:
        return (
            len(self._buffer) >= self._high_events + self._limits.hard_extra_events
            or self._bytes >= HARD_FACTOR_BYTES * self._limits.high_bytes
        )

    def _is_above(self, share: float) -> bool:
        return (
            len(self._buffer) >= share * self._high_events
            or self._bytes >= share * self._limits.high_bytes
        )


async def _in_time(event: asyncio.Event, within_s: float) -> bool:
    with suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await event.wait()
    return event.is_set()
