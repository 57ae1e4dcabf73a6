"""One partition of Kafka in memory: the twin of a shard's log, for tests.

It keeps every promise of the ports but durability: fencing, transactions that are whole or not
there at all, and offsets with a control record behind each transaction.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct

from scheduler.errors import FencedError
from scheduler.ports import StatusPage, StatusReader
from scheduler.timer import Timer
from schemas import codec
from schemas.events import PodCommand, WheelCursor


class Fired(Struct, frozen=True):
    """A committed `execute-engagement`, or the report that no result has come (the deadline as
    `due_ms`): the timer, and the clock's time in the event."""

    timer: Timer
    at_ms: int


class MemoryPartition:
    """What Kafka holds of one shard. Shared by all its owners, as a broker would be."""

    def __init__(self, shard: int) -> None:
        self.shard = shard
        self.fired: list[Fired] = []
        self.timeouts: list[Fired] = []
        self.reports: list[PodCommand] = []
        self.cursors: list[WheelCursor] = []
        self._statuses: list[bytes | None] = []  # None: a control record, never delivered
        self._producer_epoch = 0

    def open(self) -> "MemoryShardLog":
        """A log for one owner."""
        return MemoryShardLog(self)

    @asynccontextmanager
    async def reader(self, shard: int, offset: int) -> AsyncIterator[StatusReader]:
        """See `StatusLog.reader`."""
        yield _Reader(self, offset)


class MemoryShardLog:
    """The `ShardLog` port."""

    def __init__(self, partition: MemoryPartition) -> None:
        self._partition = partition
        self._epoch = 0

    @property
    def fenced(self) -> bool:
        """Whether a newer producer has shut this one out."""
        return self._partition._producer_epoch != self._epoch

    async def fence(self) -> None:
        """See `ShardLog.fence`."""
        self._partition._producer_epoch += 1
        self._epoch = self._partition._producer_epoch

    async def cursor(self) -> WheelCursor | None:
        """See `ShardLog.cursor`."""
        return self._partition.cursors[-1] if self._partition.cursors else None

    async def status_end(self) -> int:
        """See `ShardLog.status_end`."""
        return len(self._partition._statuses)

    async def commit(
        self,
        timers: Sequence[Timer],
        at_ms: int,
        cursor: WheelCursor,
        timeouts: Sequence[Timer] = (),
        reports: Sequence[PodCommand] = (),
    ) -> int:
        """See `ShardLog.commit`."""
        partition = self._partition
        if self.fenced:
            raise FencedError(partition.shard, "a newer producer")
        partition.fired += [Fired(timer, at_ms) for timer in timers]
        partition.timeouts += [Fired(timer, at_ms) for timer in timeouts]
        partition.reports += reports
        partition._statuses += [
            codec.engagement_status(
                timer.activity_id,
                timer.pod_id,
                timer.post_id,
                timer.member_id,
                timer.engagement_type,
                "dispatched",
                timer.attempt,
                at_ms,
            )
            for timer in timers
        ]
        upto = len(partition._statuses) - 1 if timers else -1
        if timers:
            partition._statuses.append(None)
        partition.cursors.append(cursor)
        return upto

    async def close(self) -> None:
        """See `ShardLog.close`."""


class _Reader:
    def __init__(self, partition: MemoryPartition, offset: int) -> None:
        self._partition = partition
        self._offset = offset

    def seek(self, offset: int) -> None:
        self._offset = offset

    async def page(self, wait_ms: int) -> StatusPage | None:
        values = self._partition._statuses[self._offset :]
        if not values:
            return None
        self._offset += len(values)
        delivered = [value for value in values if value is not None]
        return StatusPage(self._partition.shard, self._offset - 1, delivered)

    async def position(self) -> int:
        return self._offset
