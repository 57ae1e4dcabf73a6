"""Refuses a partition whose topic has been recreated under a record that was kept."""

from collections.abc import Sequence

from scheduler.errors import PermanentError
from scheduler.patience import Patience
from scheduler.ports import Record, SourceRecord
from streams.pump import Applier
from streams.source_log import SourceLog


class GuardedApplier:
    """Compares topic and record once, before the first record is applied.

    A new topic begins at offset 0 again. With the watermark of the old one above it, every new
    event would count as applied already, and be dropped without a word.
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
        self._checked = False

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        """See `Applier.apply`. Raises `PermanentError` for a recreated topic."""
        await self._patience.until_done(self._check)
        await self._applier.apply(records)

    async def catch_up(self) -> None:
        """See `Applier.catch_up`. Raises `PermanentError` for a recreated topic."""
        await self._check()
        await self._applier.catch_up()

    async def _check(self) -> None:
        if self._checked:
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
        self._checked = True
