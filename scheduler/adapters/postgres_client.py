"""What clients ask of the record, beside what the engine itself asks."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from msgspec import Struct

from scheduler.activity import UNFIRED, Status
from scheduler.adapters.postgres_record import PostgresRecord
from schemas.events import EngagementType


class PendingActivity(Struct, frozen=True, kw_only=True):
    """A row that an upstream system inserted and that nobody has planned yet.

    `scheduled_for` is from when on it may be planned; None: at once.
    """

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    scheduled_for: datetime | None = None


class PendingPage(Struct, frozen=True):
    """Pending rows in order, and `as_of`, the time by which they are due: it goes into the request
    for the next page. None where there are no rows."""

    activities: Sequence[PendingActivity]
    as_of: datetime | None = None


class QueueCounts(NamedTuple):
    """Due, due later, and awaited, as the record has it."""

    waiting: int
    delayed: int
    active: int


class PostgresClient(PostgresRecord):
    """The record as clients use it. Errors and time limits as of `PostgresRecord`."""

    async def pending(
        self,
        limit: int,
        *,
        pod_id: str | None = None,
        engagement_type: EngagementType | None = None,
        after: PendingActivity | None = None,
        as_of: datetime | None = None,
    ) -> PendingPage:
        """Rows that are pending and due, `limit` at most, ordered by `scheduled_for` (none first)
        and id; of all pods, where none is named.

        `after` and `as_of` are the last row and the time of the page before: so rows are read once,
        also those that stay pending, and the reading ends though others are inserted meanwhile.
        """
        arguments = (
            engagement_type,
            as_of,
            after and after.scheduled_for,
            after and UUID(after.activity_id),
            limit,
        )
        rows = (
            await self._all("pending_of_all", *arguments)
            if pod_id is None
            else await self._all("pending_of_pod", *arguments, pod_id)
        )
        return PendingPage(
            [
                PendingActivity(
                    activity_id=row["id"],
                    pod_id=row["pod_id"],
                    post_id=row["post_id"],
                    member_id=row["member_id"],
                    engagement_type=row["engagement_type"],
                    scheduled_for=row["scheduled_for"],
                )
                for row in rows
            ],
            rows[0]["as_of"] if rows else None,
        )

    async def shards_of_posts(self, post_ids: Sequence[str]) -> Mapping[str, int]:
        """The shards of those posts that have one."""
        rows = await self._all("shards_of_posts", post_ids)
        return {row["post_id"]: row["shard"] for row in rows}

    async def count_in_status(self, activity_ids: Sequence[str], statuses: Sequence[Status]) -> int:
        """How many of these activities, given by canonical UUIDs, are in one of `statuses`."""
        row = await self._one("count_in_status", ",".join(activity_ids), statuses)
        return 0 if row is None else int(row["activities"])

    async def applied_upto(self, topic: str) -> Mapping[int, int]:
        """The watermarks of `topic` by partition; one that was never applied has no entry."""
        rows = await self._all("applied_upto", topic)
        return {row["partition"]: row["last_offset"] for row in rows}

    async def add_engagements(self, member_id: str, count: int) -> int:
        """Add `count` to the member's engagements; returns the new number. Not to be repeated
        after an error: it may have been applied."""
        row = await self._one("add_engagements", member_id, count)
        return 0 if row is None else int(row["engagements"])

    async def cancelled_by(self, offsets: Mapping[int, int]) -> int:
        """How many activities the commands at `offsets` (by partition) have cancelled."""
        row = await self._one("cancelled_by", list(offsets), list(offsets.values()))
        return 0 if row is None else int(row["activities"])

    async def queue_of_shards(self, shards: Sequence[int]) -> QueueCounts:
        """What belongs into the wheels of `shards`."""
        row = await self._one("queue_of_shards", shards, UNFIRED)
        return QueueCounts(0, 0, 0) if row is None else QueueCounts(**dict(row))

    async def pod_retries(self, pod_id: str) -> int:
        """How many attempts of the pod's activities were not the first."""
        row = await self._one("pod_retries", pod_id)
        return 0 if row is None else int(row["retries"])
