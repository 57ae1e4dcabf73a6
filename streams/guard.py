"""Compares a partition with the record once, before its first record is applied."""

from collections.abc import Sequence
from functools import partial

from scheduler.errors import PermanentError
from scheduler.patience import Patience
from scheduler.ports import Record, SourceRecord
from streams.pump import Applier
from streams.source_log import SourceLog


class GuardedApplier:
    """Refuses a partition whose topic or offsets do not fit the record: events would be lost.

    A topic that was recreated begins at offset 0 again. With the watermark of the old one above
    it, every new event would count as applied already, and be dropped without a word.

    And where the group goes on behind records that nobody has applied (PostgreSQL was restored
    from a backup, or somebody has moved the group), the first event to be applied would move the
    watermark over them, and then not even setting the group back would help.
    """

    def __init__(
        self, applier: Applier, shard: int, topic: str, record: Record, source: SourceLog
    ) -> None:
        self._applier = applier
        self._shard = shard
        self._topic = topic
        self._record = record
        self._source = source
        self._patience = Patience(f"{topic}/{shard}")
        self._fits = False
        self._begun = False

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        """See `Applier.apply`. Raises `PermanentError` for a partition that does not fit."""
        if not self._begun:
            await self._patience.until_done(self._check_end)
            await self._patience.until_done(partial(self._check_begin, records[0].offset))
            self._begun = True
        await self._applier.apply(records)

    async def catch_up(self) -> None:
        """See `Applier.catch_up`. Raises `PermanentError` for a recreated topic."""
        await self._check_end()
        await self._applier.catch_up()

    async def _check_end(self) -> None:
        if self._fits:
            return
        # The watermark first: what has been applied was in the topic before.
        applied = await self._record.watermark(self._topic, self._shard)
        end = (await self._source.ends([self._shard]))[self._shard]
        if end < applied + 1:
            raise PermanentError(
                f"partition {self._shard} of {self._topic} ends at offset {end}, but PostgreSQL has"
                f" applied it up to {applied}: the topic was recreated, or has lost records, while"
                " the record was kept. New events would be dropped as applied already. If it is"
                f" meant to start anew, delete the rows of {self._topic} from ingested_offsets"
            )
        self._fits = True

    async def _check_begin(self, first: int) -> None:
        # Read after the first record has come: a former owner commits only what it has applied,
        # so what it did until now is in there.
        start = await self._record.watermark(self._topic, self._shard) + 1
        if first > start and await self._source.has_record(self._shard, start, first):
            raise PermanentError(
                f"the worker group goes on at offset {first} of partition {self._shard} of"
                f" {self._topic}, but PostgreSQL has applied it only up to {start - 1}: the events"
                f" between would be lost. Set the group's offset back to {start}; or, to skip them,"
                f" set this partition of {self._topic} to {first - 1} in ingested_offsets"
            )
