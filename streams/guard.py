"""Sees to it that a partition is applied without gaps, and that it fits the record at all."""

from collections.abc import Sequence
from functools import partial

import structlog

from scheduler.errors import PermanentError
from scheduler.patience import Patience
from scheduler.ports import Record, SourceRecord
from streams.pump import Applier
from streams.source_log import SourceLog

FILLED_AT_ONCE = 500

log = structlog.get_logger(__name__)


class GuardedApplier:
    """Applies what the record says is next, whatever offsets the stream begins or goes on at.

    A topic that was recreated begins at offset 0 again. With the watermark of the old one above
    it, every new event would count as applied already, and be dropped without a word: refused.

    Where the stream goes on behind records that nobody has applied, the first event to be applied
    would move the watermark over them. These are read from the topic and applied first. It happens:
    when PostgreSQL was restored from a backup; when somebody has moved the group; and Faust has
    been seen to skip what it had polled for an earlier assignment (streams/app.py).
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
        self._next: int | None = None

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        """See `Applier.apply`. Raises `PermanentError` for a recreated topic."""
        if self._next is None:
            await self._patience.until_done(self._check_end)
            # Read after the first record has come: a former owner commits only what it has
            # applied, so what it did until now is in there.
            self._next = await self._patience.until_done(self._beginning)
        upto, gap = self._next, None
        for record in records:
            if record.offset > upto:
                # From the first of these records' gaps to behind the last.
                gap = (gap[0] if gap else upto, record.offset)
            upto = max(upto, record.offset + 1)
        if gap:
            await self._apply_with_skipped(records, *gap)
        else:
            await self._applier.apply(records)
        self._next = upto

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

    async def _beginning(self) -> int:
        """Where to go on: behind what has been acked, or applied, whichever is less. What has been
        applied and not acked may not have been told; it comes again, unless the stream skips it."""
        applied = await self._record.watermark(self._topic, self._shard)
        acked = await self._source.next_of_group([self._shard])
        return min(applied + 1, acked[self._shard])

    async def _apply_with_skipped(
        self, records: Sequence[SourceRecord], start: int, end: int
    ) -> None:
        """Apply `records`, and what else there is in [start, end).

        There mostly is nothing: transaction markers, and records that have expired, leave gaps
        too. So all gaps of a batch are looked up at once.
        """
        given = {record.offset for record in records}
        told = False
        while start < end:
            # The one at `end` is asked for as well, and shows that there is nothing before it.
            found = await self._patience.until_done(
                partial(self._source.read, self._shard, start, end + 1, FILLED_AT_ONCE)
            )
            if not found:
                break
            start = found[-1].offset + 1
            skipped = [record for record in found if record.offset not in given]
            if not skipped:
                continue
            if not told:
                log.warning(
                    "the stream has skipped records: reading them from the topic",
                    topic=self._topic,
                    shard=self._shard,
                    start=skipped[0].offset,
                    end=end,
                )
                told = True
            before = [record for record in records if record.offset < start]
            records = records[len(before) :]
            await self._applier.apply(sorted([*before, *skipped], key=lambda each: each.offset))
        if records:
            await self._applier.apply(records)
