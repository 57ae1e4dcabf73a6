"""Projecting `engagement-status` on the record: what was dispatched becomes visible in PostgreSQL.

The offset moves in the same statement as the rows, by compare-and-swap, so that any number of
projectors (a zombie, a takeover, a rebuild that drains) may work on one shard at once.
"""

from collections.abc import Mapping, Sequence

import structlog

from scheduler.activity import Status, StatusChange
from scheduler.ports import Record, StatusLog, StatusPage, StatusReader
from schemas.codec import InvalidEvent, decode
from schemas.events import EngagementStatus
from schemas.times import millis

log = structlog.get_logger(__name__)

POLL_MS = 1000


class Projector:
    """Projects the shards it is given; one object serves one set of shards."""

    def __init__(self, topic: str, record: Record) -> None:
        """`topic` is the name of `engagement-status` on the cluster."""
        self._topic = topic
        self._record = record
        self._at: dict[int, int] = {}

    async def begin(self, shards: Sequence[int]) -> Mapping[int, int]:
        """Where to read each shard from. Reads the watermarks anew."""
        self._at = {shard: await self._record.watermark(self._topic, shard) for shard in shards}
        return {shard: at + 1 for shard, at in self._at.items()}

    async def run_once(self, reader: StatusReader, wait_ms: int = POLL_MS) -> int:
        """Project what has come. Returns the number of status changes applied or skipped."""
        seen = 0
        for page in await reader.pages(wait_ms):
            changes = list(_changes(page, self._topic))
            moved = await self._record.project(
                self._topic, page.shard, self._at[page.shard], page.upto, changes
            )
            if moved:
                self._at[page.shard] = page.upto
                seen += len(page.values)
            else:
                # Somebody else has projected part of this page: go on from where that one is.
                at = await self._record.watermark(self._topic, page.shard)
                self._at[page.shard] = at
                reader.seek(page.shard, at + 1)
        return seen

    async def drain(self, statuses: StatusLog, shard: int, end: int) -> None:
        """Return once everything before offset `end` of the shard has been projected."""
        offsets = await self.begin([shard])
        if offsets[shard] >= end:
            return
        async with statuses.reader(offsets) as reader:
            while await reader.position(shard) < end:
                await self.run_once(reader)


def _changes(page: StatusPage, topic: str) -> list[StatusChange]:
    changes = []
    for value in page.values:
        try:
            event = decode(EngagementStatus, value)
        except InvalidEvent as error:
            # Only the engine writes this topic; what else is found there changes nothing.
            log.warning("not a status event", topic=topic, shard=page.shard, reason=error.reason)
            continue
        if event.status != "scheduled":
            changes.append(
                StatusChange(
                    event.activity_id, Status(event.status), event.attempt, millis(event.at)
                )
            )
    return changes
