"""What the record's tests share: activities, and a look at the rows behind each record."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Protocol
from uuid import uuid4

import asyncpg

from scheduler.activity import PlannedActivity, Status, StatusChange
from scheduler.adapters.memory_record import MemoryRecord, Row
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.ports import Record
from scheduler.stats import ActivityCounts
from scheduler.timer import Timer
from schemas.events import EngagementType
from schemas.ids import activity_id

TOPIC = "post-detected"
STATUSES = "engagement-status"
SHARD = 3
DUE_MS = 1_900_000_000_123


class FullRecord(Record, Protocol):
    """The port, and what the command line needs."""

    async def pod_stats(self, pod_id: str) -> ActivityCounts: ...
    async def overview(self) -> ActivityCounts: ...
    async def ping(self) -> None: ...
    async def close(self) -> None: ...


class Store(Protocol):
    """A record, and the door that an upstream system uses."""

    record: FullRecord

    async def insert(self, *rows: Row) -> None:
        """Insert rows past the record."""

    async def rows(self) -> Mapping[str, Row]:
        """All rows by id."""

    async def engagements(self, member: str) -> int:
        """How often that member was counted."""


class MemoryStore:
    def __init__(self) -> None:
        self._memory = MemoryRecord()
        self.record: FullRecord = self._memory

    async def insert(self, *rows: Row) -> None:
        for row in rows:
            assert self._memory.insert(row)

    async def rows(self) -> Mapping[str, Row]:
        return dict(self._memory.table)

    async def engagements(self, member: str) -> int:
        return self._memory.engagements.get(member, 0)


class PostgresStore:
    def __init__(self, record: PostgresRecord, dsn: str) -> None:
        self.record: FullRecord = record
        self._dsn = dsn

    async def insert(self, *rows: Row) -> None:
        columns = [each.name for each in fields(Row) if each.name != "version"]
        names = [name.removesuffix("_ms") for name in columns]
        values = [
            f"coalesce(timestamptz 'epoch' + ${at} * interval '1 millisecond', now())"
            if name == "updated_at_ms"
            else f"timestamptz 'epoch' + ${at} * interval '1 millisecond'"
            if name.endswith("_ms")
            else f"nullif(${at}, '')::jsonb"
            if name == "failures"
            else f"${at}"
            for at, name in enumerate(columns, 1)
        ]
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.executemany(
                f"insert into pod_activities ({', '.join(names)}) values ({', '.join(values)})",  # noqa: S608
                [[getattr(row, name) for name in columns] for row in rows],
            )
        finally:
            await connection.close()

    async def rows(self) -> Mapping[str, Row]:
        connection = await asyncpg.connect(self._dsn)
        try:
            found = await connection.fetch(
                """
                select id, pod_id, post_id, member_id, engagement_type, status, attempt,
                    (extract(epoch from scheduled_for) * 1000)::bigint as scheduled_for_ms,
                    (extract(epoch from dispatched_at) * 1000)::bigint as dispatched_at_ms,
                    (extract(epoch from executed_at) * 1000)::bigint as executed_at_ms,
                    source_partition, source_offset, last_error,
                    coalesce(failures::text, '') as failures, result_offset, command_offset
                from pod_activities
                """
            )
        finally:
            await connection.close()
        rows = (
            Row(**{**row, "id": str(row["id"]), "status": Status(row["status"])}) for row in found
        )
        return {row.id: row for row in rows}

    async def engagements(self, member: str) -> int:
        connection = await asyncpg.connect(self._dsn)
        try:
            found = await connection.fetchval(
                "select engagement_count from member_engagement where member_id = $1", member
            )
        finally:
            await connection.close()
        return int(found or 0)


def planned(
    offset: int,
    *,
    pod: str = "pod",
    post: str = "post",
    member: str = "member",
    kind: EngagementType = "like",
    due_ms: int = DUE_MS,
    own_id: str | None = None,
) -> PlannedActivity:
    """An activity under its derived id, or under `own_id`."""
    activity = own_id or activity_id(pod, post, member, kind)
    return PlannedActivity(activity, pod, post, member, kind, due_ms, offset)


def row_of(each: PlannedActivity) -> Row:
    """The row that `each` becomes."""
    return Row(
        id=each.activity_id,
        pod_id=each.pod_id,
        post_id=each.post_id,
        member_id=each.member_id,
        engagement_type=each.engagement_type,
        status=Status.SCHEDULED,
        scheduled_for_ms=each.scheduled_for_ms,
        source_partition=SHARD,
        source_offset=each.source_offset,
    )


def timer_of(each: PlannedActivity) -> Timer:
    """The timer that `each` becomes."""
    timer = row_of(each).timer
    assert timer
    return timer


def upstream_row(member: str, **changes: Any) -> Row:
    """A pending like of that member, as an upstream system inserts it, but for `changes`."""
    row = Row(
        id=str(uuid4()), pod_id="pod", post_id="post", member_id=member, engagement_type="like"
    )
    return replace(row, **changes)


async def first_batch(record: Record, activities: Sequence[PlannedActivity], upto: int = 0) -> None:
    """Apply the first batch of the shard; none of it may be there."""
    assert await record.apply_plan(TOPIC, SHARD, -1, upto, activities) == frozenset()


def members(offset: int, count: int, *, post: str = "post") -> list[PlannedActivity]:
    """Likes of one post by members that no other offset has."""
    return [
        planned(offset, post=post, member=f"member-{offset}-{n}", due_ms=DUE_MS + n)
        for n in range(count)
    ]


def dispatched(
    activities: Sequence[PlannedActivity], attempt: int = 1, at_ms: int = DUE_MS
) -> list[StatusChange]:
    """What the dispatcher publishes for each."""
    return [
        StatusChange(each.activity_id, Status.DISPATCHED, attempt, at_ms) for each in activities
    ]
