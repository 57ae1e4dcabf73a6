"""What clients ask of the record, beside what the engine itself asks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import orjson
from msgspec import Struct

from scheduler.activity import FINAL, UNFIRED, Status
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.adapters.postgres_rows import is_uuid
from scheduler.controls import Kind, Scope
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


class ActiveControl(Struct, frozen=True, kw_only=True):
    """What holds, in so many `shards`: all of them, once every shard has applied it."""

    kind: Kind
    scope: Scope
    subject: str
    actor: str | None
    reason: str | None
    issued_at: datetime
    shards: int
    value: Mapping[str, str | float] | None


class Change(Struct, frozen=True, kw_only=True):
    """What one command has changed of an activity; the command is None where it is no longer
    known."""

    partition: int
    command_offset: int
    was: str
    became: str
    was_scheduled_for: datetime | None
    scheduled_for: datetime | None
    changed_at: datetime
    command: str | None
    actor: str | None
    reason: str | None
    event_id: str | None


class Life(Struct, frozen=True, kw_only=True):
    """A row of `pod_activities`, and what commands have changed of it, in order."""

    id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: Status
    attempt: int
    scheduled_for: datetime | None
    dispatched_at: datetime | None
    executed_at: datetime | None
    last_error: str | None
    source_partition: int | None
    source_offset: int | None
    result_offset: int | None
    failures: str
    created_at: datetime
    updated_at: datetime
    changes: tuple[Change, ...] = ()


class Entry(Struct, frozen=True, kw_only=True):
    """An activity in a list."""

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: Status
    attempt: int
    scheduled_for: datetime | None
    dispatched_at: datetime | None
    executed_at: datetime | None
    last_error: str | None


class Audited(Struct, frozen=True, kw_only=True):
    """A command as it was asked for, and what came of it in the shards that have applied it.

    `offsets` tell where it stands, by partition.
    """

    command_id: str
    command: str
    actor: str | None
    reason: str | None
    scope: str
    subject: str
    issued_at: datetime
    applied_at: datetime
    shards: int
    value: Mapping[str, str | float] | None
    outcome: Mapping[str, int]
    offsets: Mapping[int, int]


def summed(outcomes: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    """Numbers by name, over all of `outcomes`."""
    total: Counter[str] = Counter()
    for each in outcomes:
        total.update(each)
    return dict(total)


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

    async def outcomes(self, places: Sequence[tuple[int, int]]) -> Sequence[Mapping[str, int]]:
        """What came of the commands at `places` (partition, offset), of those that were applied."""
        rows = await self._all("outcomes", *_columns(places))
        return [orjson.loads(row["outcome"]) for row in rows]

    async def changed_by(
        self, places: Sequence[tuple[int, int]], activity_ids: Sequence[str]
    ) -> Mapping[str, Status]:
        """Which of these activities the commands at `places` have changed, and into what."""
        known = ",".join(each for each in activity_ids if is_uuid(each))
        rows = await self._all("changed_by", *_columns(places), known or None)
        return {row["id"]: Status(row["became"]) for row in rows}

    async def controls(
        self,
        kind: Kind | None = None,
        scope: Scope | None = None,
        subject: str | None = None,
        limit: int | None = None,
    ) -> Sequence[ActiveControl]:
        """What holds, the oldest first; of a kind, a scope, a subject where they are given."""
        return [
            ActiveControl(**{**row, "value": orjson.loads(row["value"] or "null")})
            for row in await self._all("active_controls", kind, scope, subject, limit)
        ]

    async def lives(self, activity_ids: Sequence[str]) -> Sequence[Life]:
        """All that the record has of these activities' lives, in the order asked for; none of one
        that nobody has heard of."""
        known = ",".join(each for each in activity_ids if is_uuid(each))
        if not known:
            return []
        rows = {row["id"]: row for row in await self._all("lives", known)}
        changes: dict[str, list[Change]] = {name: [] for name in rows}
        for change in await self._all("changes_of", known):
            values = dict(change)
            if (name := values.pop("activity_id")) in changes:
                changes[name].append(Change(**values))
        return [
            Life(**{**rows[name], "status": Status(rows[name]["status"])}, changes=tuple(found))
            for each in activity_ids
            if (found := changes.get(name := each.lower())) is not None
        ]

    async def activities(
        self, scope: str, name: str, limit: int, after: tuple[int | None, str] | None
    ) -> Sequence[Entry]:
        """Activities of a pod, post or member, those that are due last first, behind `after` (due
        in ms, id)."""
        due_us, last = after or (None, None)
        rows = await self._all(
            f"activities_of_{scope}", name, limit, due_us, None if last is None else UUID(last)
        )
        return [Entry(**{**row, "status": Status(row["status"])}) for row in rows]

    async def pods(self, limit: int, after: str | None) -> Sequence[str]:
        """Ids of pods in order, behind `after`."""
        return [row["pod_id"] for row in await self._all("pods", after, limit)]

    async def forget_member(
        self,
        member_id: str,
        name: str,
        *,
        opt_out_too: bool,
        actor: str | None,
        reason: str | None,
    ) -> tuple[int, int]:
        """Put `name` in the place of `member_id` in all of the record, remove what was written
        about its activities, and note who asked for it and why. Returns how many of these have not
        come to their end, and then nothing has changed; and how many were renamed."""
        row = await self._one("forget_member", member_id, name, FINAL, opt_out_too, actor, reason)
        return (0, 0) if row is None else (row["unfinished"], row["activities"])

    async def audit(
        self, limit: int, *, since: datetime | None = None, reports: bool = False
    ) -> Sequence[Audited]:
        """The last commands, the newest first; without the dispatchers' own, unless `reports`."""
        return [
            Audited(
                command_id=row["command_id"],
                command=row["command"],
                actor=row["actor"],
                reason=row["reason"],
                scope=row["scope"],
                subject=row["subject"],
                issued_at=row["issued_at"],
                applied_at=row["applied_at"],
                shards=row["shards"],
                value=orjson.loads(row["value"] or "null"),
                outcome=summed(orjson.loads(row["outcomes"])),
                offsets=dict(zip(row["partitions"], row["offsets"], strict=True)),
            )
            for row in await self._all("audit", since, reports, limit)
        ]

    async def queue_of_shards(self, shards: Sequence[int]) -> QueueCounts:
        """What belongs into the wheels of `shards`."""
        row = await self._one("queue_of_shards", shards, UNFIRED)
        return QueueCounts(0, 0, 0) if row is None else QueueCounts(**dict(row))

    async def pod_retries(self, pod_id: str) -> int:
        """How many attempts of the pod's activities were not the first."""
        row = await self._one("pod_retries", pod_id)
        return 0 if row is None else int(row["retries"])


def _columns(places: Sequence[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [partition for partition, _ in places], [offset for _, offset in places]
