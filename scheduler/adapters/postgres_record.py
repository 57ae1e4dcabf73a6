"""The record in PostgreSQL (14 or newer): one statement a call, in scheduler/sql."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal, Self

import asyncpg
import orjson

from scheduler.activity import (
    ActivityRow,
    Announcement,
    PlannedActivity,
    PostPlan,
    RowChange,
    Status,
    StatusChange,
)
from scheduler.adapters.postgres_errors import GONE, translated
from scheduler.adapters.postgres_pool import (
    COMMAND_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    close_pool,
    open_pool,
)
from scheduler.adapters.postgres_rows import activity_row, is_uuid
from scheduler.adapters.postgres_snapshot import PostgresSnapshot
from scheduler.controls import NO_VERDICT, Orders, Subject, Verdict
from scheduler.errors import DataRefusedError
from scheduler.ledger import told
from scheduler.ports import NO_PLANS
from scheduler.progress import BEFORE_DISPATCHED, latest_dispatched
from scheduler.quiet_hours import QuietHours
from scheduler.sql import query
from scheduler.stats import ActivityCounts
from scheduler.timer import Timer
from schemas.ids import activity_id

MAX_CONNECTIONS = 10
"""Statements of one process at once. A rebuild holds one connection for as long as it reads."""

# Between the texts of a column; no id may contain it (schemas.events.Id).
_SEPARATOR = "\x1f"


class PostgresRecord:
    """The `Record` port over one PostgreSQL database. Safe to share between tasks of one loop.

    Each call takes a connection of a pool and ends within the time limits, whatever the server
    does: then with `StoreUnavailableError`. A call that failed so may yet have been applied: the
    watermark tells.
    """

    def __init__(
        self, pool: "asyncpg.Pool[asyncpg.Record]", timeout_s: float, snapshots: int = 1
    ) -> None:
        """Use `connect`."""
        self._pool = pool
        self._timeout_s = timeout_s
        # Whoever reads a snapshot may write meanwhile, through another connection: were all of them
        # taken by snapshots, each would wait for the others.
        self._snapshots = asyncio.Semaphore(snapshots)

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        max_connections: int = MAX_CONNECTIONS,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
    ) -> Self:
        """The record at `dsn` (`postgresql://...`). Connects on first use: the server may be away.

        Raises `SettingsError` for an address that makes no sense.
        """
        pool = await open_pool(
            dsn,
            most=max_connections,
            connect_timeout_s=connect_timeout_s,
            command_timeout_s=command_timeout_s,
        )
        # Also what a call may wait for a free connection.
        return cls(pool, command_timeout_s, max(1, max_connections // 2))

    async def close(self) -> None:
        """Close all connections, within a bounded time."""
        await close_pool(self._pool)

    async def ping(self) -> None:
        """One real request. Raises `StoreUnavailableError`."""
        await self._one("ping")

    async def watermark(self, topic: str, shard: int) -> int:
        """See `Record.watermark`."""
        row = await self._one("watermark", topic, shard)
        return -1 if row is None else int(row["last_offset"])

    async def plans(self, post_ids: Sequence[str]) -> Mapping[str, PostPlan]:
        """See `Record.plans`.

        A row that an upstream system inserted counts twice in `activity_ids`: under its own id and
        under the one that the planner would give it. What retention has removed counts on.
        """
        found: dict[str, PostPlan] = {}
        for row in await self._all("plans", post_ids):
            found[row["post_id"]] = _post_plan(row, found.get(row["post_id"]))
        return found

    async def apply_plan(
        self,
        topic: str,
        shard: int,
        expected: int,
        upto: int,
        activities: Sequence[PlannedActivity],
        *,
        decided_by: int | None = None,
        plans: Mapping[str, int] = NO_PLANS,
    ) -> frozenset[str] | None:
        """See `Record.apply_plan`."""
        skipped = any(each.skipped for each in activities)
        arguments = (
            *(topic, shard, expected, upto),
            _SEPARATOR.join([each.activity_id for each in activities]),
            _SEPARATOR.join([each.pod_id for each in activities]),
            _SEPARATOR.join([each.post_id for each in activities]),
            _SEPARATOR.join([each.member_id for each in activities]),
            _SEPARATOR.join([each.engagement_type for each in activities]),
            [each.scheduled_for_ms for each in activities],
            [each.source_offset for each in activities],
            [each.skipped for each in activities] if skipped else None,
            decided_by,
            list(plans) or None,
            list(plans.values()) or None,
        )
        try:
            row = await self._one("apply_plan", *arguments)
        except DataRefusedError as error:
            if not isinstance(error.__cause__, asyncpg.UniqueViolationError):
                raise
            row = await self._one("apply_plan_around", *arguments)
            return frozenset(row["there"]) if row and row["moved"] else None
        return frozenset() if row and row["moved"] else None

    async def shards_of_posts(self, post_ids: Sequence[str]) -> Mapping[str, int]:
        """See `Record.shards_of_posts`."""
        rows = await self._all("shards_of_posts", post_ids)
        return {row["post_id"]: row["shard"] for row in rows}

    async def reach_between(self, shard: int, after: int, upto: int, limit: int) -> int:
        """See `Record.reach_between`."""
        row = await self._one("reach_between", shard, after, upto, limit)
        return upto if row is None else int(row["upto"])

    async def unfired_between(self, shard: int, after: int, upto: int) -> Sequence[Timer]:
        """See `Record.unfired_between`. In the order of their offsets."""
        rows = await self._all("unfired_between", shard, after, upto, Status.SCHEDULED)
        return [Timer(*row) for row in rows]

    async def skipped_between(self, shard: int, after: int, upto: int) -> Sequence[Announcement]:
        """See `Record.skipped_between`."""
        rows = await self._all("skipped_between", shard, after, upto)
        return [told(activity_row(row), row["last_error"]) for row in rows]

    async def orders(
        self, topic: str, shard: int, member_ids: Collection[str], pod_ids: Collection[str] = ()
    ) -> Orders:
        """See `Record.orders`."""
        row = await self._one("orders", topic, shard, list(member_ids), list(pod_ids))
        if row is None:
            return Orders()
        found = orjson.loads(row["controls"] or "[]")
        return Orders.of(
            row["version"],
            ((kind, Subject(scope, name), value) for kind, scope, name, value in found),
            orjson.loads(row["plans"] or "{}"),
        )

    async def member_times(
        self, member_ids: Collection[str], from_ms: int
    ) -> Mapping[str, tuple[int, ...]]:
        """See `Record.member_times`."""
        found: dict[str, list[int]] = {name: [] for name in member_ids}
        for row in await self._all("member_times", list(member_ids), from_ms):
            found[row["member_id"]].append(row["due_ms"])
        return {name: tuple(sorted(times)) for name, times in found.items()}

    async def rows(self, activity_ids: Sequence[str]) -> Mapping[str, ActivityRow]:
        """See `Record.rows`. What is no UUID is nobody's id."""
        known = {each for each in activity_ids if is_uuid(each)}
        if not known:
            return {}
        return {row["id"]: activity_row(row) for row in await self._all("rows", ",".join(known))}

    async def change(
        self,
        topic: str,
        shard: int,
        expected: int,
        upto: int,
        changes: Sequence[RowChange],
        *,
        by: Literal["result", "command"],
        decided_by: int | None = None,
        plans: Mapping[str, int] = NO_PLANS,
        verdict: Verdict = NO_VERDICT,
        wheel_gen: str | None = None,
    ) -> Mapping[str, int] | None:
        """See `Record.change`."""
        row = await self._one(
            "change",
            *(topic, shard, expected, upto),
            ",".join([each.row.activity_id for each in changes]),
            [each.row.version for each in changes],
            [each.status for each in changes],
            [each.attempt for each in changes],
            [each.scheduled_for_ms for each in changes],
            [each.cause for each in changes],
            [each.executed_at_ms for each in changes],
            [each.last_error for each in changes],
            [each.failures for each in changes],
            [each.counts for each in changes],
            by == "result",
            decided_by,
            _controls(verdict),
            _applied(verdict),
            list(verdict.binding) or None,
            max((each.command_offset for each in verdict.controls), default=None),
            wheel_gen,
            list(plans) or None,
            list(plans.values()) or None,
        )
        if row is None or not row["moved"]:
            return None
        return dict(zip(row["topics"], row["offsets"], strict=True))

    async def project(
        self, topic: str, shard: int, expected: int, upto: int, changes: Sequence[StatusChange]
    ) -> bool:
        """See `Record.project`. Ids that nobody has heard of are passed over."""
        latest = [each for each in latest_dispatched(changes) if is_uuid(each.activity_id)]
        row = await self._one(
            "project_dispatched",
            *(topic, shard, expected, upto),
            ",".join([each.activity_id for each in latest]),
            [each.attempt for each in latest],
            [each.at_ms for each in latest],
            BEFORE_DISPATCHED,
        )
        return bool(row and row["moved"])

    async def begin_wheel(
        self, topic: str, shard: int, gen: str, *, instead_of: str | None = None
    ) -> None:
        """See `Record.begin_wheel`."""
        await self._all("begin_wheel", topic, shard, gen, instead_of)

    async def quiet_before(
        self, shard: int, subject: Subject, command_offset: int
    ) -> QuietHours | None:
        """See `Record.quiet_before`."""
        row = await self._one("quiet_before", shard, subject.scope, subject.name, command_offset)
        value = None if row is None else row["value"]
        return None if value is None else QuietHours.of(orjson.loads(value))

    async def count_commanded(self, shard: int, command_offset: int) -> int:
        """See `Record.count_commanded`."""
        row = await self._one("count_commanded", shard, command_offset)
        return 0 if row is None else int(row["activities"])

    async def were_due(
        self, shard: int, command_offset: int, activity_ids: Collection[str]
    ) -> Mapping[str, int]:
        """See `Record.were_due`."""
        rows = await self._all("were_due", shard, command_offset, ",".join(activity_ids))
        return {row["id"]: row["due_ms"] for row in rows}

    async def wheel_gen(self, topic: str, shard: int) -> str | None:
        """See `Record.wheel_gen`."""
        row = await self._one("wheel_gen", topic, shard)
        return None if row is None else row["wheel_gen"]

    @asynccontextmanager
    async def snapshot(self, shard: int) -> AsyncIterator[PostgresSnapshot]:
        """See `Record.snapshot`. Holds a connection, and vacuum back, until it is left.

        Half of the connections may be held so; who comes later waits for as long as it takes.
        """
        async with self._snapshots, self._snapshot(shard) as snapshot:
            yield snapshot

    @asynccontextmanager
    async def _snapshot(self, shard: int) -> AsyncIterator[PostgresSnapshot]:
        with translated():
            connection = await self._pool.acquire(timeout=self._timeout_s)
        snapshot = PostgresSnapshot(connection, shard)
        try:
            await snapshot.begin()
            yield snapshot
        finally:
            try:
                await snapshot.end()
            finally:
                # Where it has died, nothing is left to be given back.
                with suppress(*GONE):
                    await self._pool.release(connection)

    async def drained(self, instance_id: str) -> bool:
        """Whether the dispatcher with this instance id is to have no shards."""
        row = await self._one("drained", instance_id)
        return bool(row and row["drained"])

    async def pod_stats(self, pod_id: str) -> ActivityCounts:
        """The activities of one pod."""
        rows = await self._all("pod_stats", pod_id)
        return ActivityCounts.of((row["status"], row["activities"]) for row in rows)

    async def overview(self) -> ActivityCounts:
        """All activities. Reads the whole table: for people and dashboards, not for loops."""
        rows = await self._all("overview")
        return ActivityCounts.of((row["status"], row["activities"]) for row in rows)

    async def _one(self, name: str, *arguments: Any) -> "asyncpg.Record | None":
        with translated():
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                return await connection.fetchrow(query(name), *arguments)

    async def _all(self, name: str, *arguments: Any) -> "list[asyncpg.Record]":
        with translated():
            async with self._pool.acquire(timeout=self._timeout_s) as connection:
                return await connection.fetch(query(name), *arguments)


def _controls(verdict: Verdict) -> str | None:
    """As change_controls.sql reads it."""
    if not verdict.controls:
        return None
    return orjson.dumps(
        [
            {
                "kind": each.kind,
                "scope": each.subject.scope,
                "subject": each.subject.name,
                "active": each.active,
                "command_offset": each.command_offset,
                "actor": each.actor,
                "reason": each.reason,
                "value": each.value,
                "issued_ms": each.issued_at_ms,
            }
            for each in verdict.controls
        ]
    ).decode()


def _applied(verdict: Verdict) -> str | None:
    """Likewise."""
    if not verdict.applied:
        return None
    return orjson.dumps(
        [
            {
                "command_offset": each.command_offset,
                "event_id": each.event_id,
                "command": each.command,
                "actor": each.actor,
                "reason": each.reason,
                "scope": each.scope,
                "subject": each.name,
                "value": each.value,
                "issued_ms": each.issued_at_ms,
                "outcome": dict(each.outcome),
            }
            for each in verdict.applied
        ]
    ).decode()


def _post_plan(row: "asyncpg.Record", other: PostPlan | None) -> PostPlan:
    ids: list[str] = row["ids"]
    likes: list[int] = row["like_times_ms"] or []
    if row["own_pods"]:
        own = zip(row["own_pods"], row["own_members"], row["own_types"], strict=True)
        ids += [activity_id(pod, row["post_id"], member, kind) for pod, member, kind in own]
    if other is not None:
        ids += other.activity_ids
        likes += other.like_times_ms
    return PostPlan(frozenset(ids), tuple(sorted(likes)))
