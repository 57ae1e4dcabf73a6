"""One input topic of a worker: the pumps of its partitions, and the topic as the broker sees it."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Generic, TypeVar

from scheduler.ports import Record, SourceRecord
from streams.guard import GuardedApplier
from streams.intake import Intake
from streams.pump import Applier, Pump, PumpLimits
from streams.source_log import SourceLog
from streams.stall import Progress

TokenT = TypeVar("TokenT")


class Lane(Generic[TokenT]):
    """Everything about one topic that is kept by partition.

    Partition 3 of one topic is none of the business of partition 3 of another: they may be assigned
    to different processes, and one may wait while the other goes on.
    """

    def __init__(
        self,
        topic: str,
        open_applier: Callable[[int], Applier],
        *,
        record: Record,
        source: SourceLog,
        ack: Callable[[TokenT], Awaitable[object]],
        limits: PumpLimits,
        press: Callable[[str, int, bool], None],
        on_death: Callable[[BaseException], None],
    ) -> None:
        """`open_applier` makes what applies a partition, each time it is assigned. `press(topic,
        partition, True)` asks to fetch no more of a partition for now, False to go on. `on_death`
        gets whatever ends a pump: nothing may be acked any more.
        """
        self._topic = topic
        self._open_applier = open_applier
        self._record = record
        self._source = source
        self._ack = ack
        self._limits = limits
        self._press = press
        self._intake: Intake[TokenT] = Intake(self._open_pump, on_death)
        self._next_of_group: dict[int, int] = {}
        self._empty_upto: dict[int, int] = {}

    @property
    def topic(self) -> str:
        """Its full name on the cluster."""
        return self._topic

    async def begin(self, partitions: Iterable[int], generation: int) -> None:
        """See `Intake.begin`."""
        self._next_of_group = {}
        self._empty_upto = {}
        await self._intake.begin(partitions, generation)

    async def end(self, generation: int | None = None) -> None:
        """See `Intake.end`."""
        await self._intake.end(generation)

    async def finish(self) -> None:
        """See `Intake.finish`."""
        await self._intake.finish()

    async def put(self, record: SourceRecord, generation: int, token: TokenT) -> bool:
        """See `Intake.put`."""
        return await self._intake.put(record.partition, generation, record, token)

    async def progress(self) -> Mapping[int, Progress]:
        """How far each partition that is ours has come. Raises `StoreUnavailableError`."""
        pumps = dict(self._intake.pumps)
        if not pumps:
            return {}
        ends = await self._source.ends(pumps)
        # Kept for one assignment: what comes late for the last one must not be taken for this.
        group = self._next_of_group
        if new := [each for each, pump in pumps.items() if pump.taken < 0 and each not in group]:
            group.update(await self._source.next_of_group(new))
        found: dict[int, Progress] = {}
        for partition, pump in pumps.items():
            next_offset = pump.taken + 1 if pump.taken >= 0 else group[partition]
            next_offset = max(next_offset, self._empty_upto.get(partition, 0))
            found[partition] = Progress(ends[partition], next_offset, pump.busy)
        return found

    async def has_waiting(self, partition: int, seen: Progress) -> bool:
        """Whether there is a record in what `seen` shows as lag: markers of transactions take
        offsets too. Where there is none it counts as lag no more. Raises `StoreUnavailableError`.
        """
        empty_upto = self._empty_upto
        if await self._source.has_record(partition, seen.next_offset, seen.end):
            return True
        empty_upto[partition] = seen.end
        return False

    def _open_pump(self, partition: int) -> Pump[TokenT]:
        return Pump(
            GuardedApplier(
                self._open_applier(partition), partition, self._topic, self._record, self._source
            ),
            self._ack,
            self._limits,
            lambda on: self._press(self._topic, partition, on),
        )
