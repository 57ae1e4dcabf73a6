"""The pumps of all partitions that are ours at present."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Generic, TypeVar

import structlog

from scheduler.ports import SourceRecord
from streams.pump import Pump

CANCEL_S = 2.0
"""How long a revoked partition's pump may take to stop. One that takes longer does no harm, since
it loses every swap of a watermark, but a rebalance must not wait for it."""

TokenT = TypeVar("TokenT")

log = structlog.get_logger(__name__)


class Intake(Generic[TokenT]):
    """One pump for each assigned partition, from assignment to revocation.

    A record belongs to the generation of the consumer group in which it was fetched. One that is
    left over from before a rebalance is dropped unacked: it will come again, and taken now it
    would move the watermark over those before it.
    """

    def __init__(
        self,
        open_pump: Callable[[int], Pump[TokenT]],
        on_death: Callable[[BaseException], None],
    ) -> None:
        """`on_death` gets whatever ends a pump: nothing may be acked any more."""
        self._open_pump = open_pump
        self._on_death = on_death
        self._pumps: dict[int, Pump[TokenT]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._generation: int | None = None
        self._ended: int | None = None

    @property
    def pumps(self) -> Mapping[int, Pump[TokenT]]:
        """By partition."""
        return self._pumps

    async def begin(self, partitions: Iterable[int], generation: int) -> None:
        """Take `partitions`, and none but these, as of `generation`."""
        await self.end(generation - 1)
        self._ended = None
        self._generation = generation
        for partition in partitions:
            self._start(partition)

    async def end(self, generation: int | None = None) -> None:
        """Stop all pumps at once, unacked; nothing of `generation` is taken any more."""
        self._ended = generation
        for pump in self._pumps.values():
            pump.close()
        tasks = list(self._tasks.values())
        self._pumps.clear()
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=CANCEL_S)
            if late:
                log.warning("pumps are slow to stop", count=len(late))

    async def finish(self) -> None:
        """Let each pump apply and ack the batch in hand, and take nothing more."""
        pumps = list(self._pumps.values())
        for pump in pumps:
            pump.close()
        for pump in pumps:
            await pump.settled()
        await self.end(self._generation)

    async def put(
        self, partition: int, generation: int, record: SourceRecord, token: TokenT
    ) -> bool:
        """Take a record fetched in `generation`; False when it was left over, and is dropped."""
        if generation == self._ended or generation != self._generation:
            return False
        pump = self._pumps.get(partition)
        return pump is not None and await pump.put(record, token)

    def _start(self, partition: int) -> None:
        pump = self._pumps[partition] = self._open_pump(partition)
        task = asyncio.create_task(pump.run(), name=f"pump-{partition}")
        self._tasks[partition] = task
        task.add_done_callback(partial(self._ended_by_itself, partition))

    def _ended_by_itself(self, partition: int, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if self._tasks.get(partition) == task:
                # Not by us: some library has let a cancellation out that was meant for its own.
                self._on_death(RuntimeError(f"{task.get_name()} was cancelled from within"))
        elif (error := task.exception()) is not None:
            self._on_death(error)
