"""Retention in PostgreSQL: pages of one pod, and a batch a statement, in scheduler/sql."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Self

import asyncpg

from scheduler.activity import FINAL, Status
from scheduler.adapters.postgres_errors import translated
from scheduler.adapters.postgres_pool import COMMAND_TIMEOUT_S, close_pool, open_pool
from scheduler.retention import Ended, Limits
from scheduler.sql import query
from schemas.ids import activity_id

PAGE = 1000
"""Rows read at once: some milliseconds of the event loop that others share."""

MAX_DAYS = 365_000.0
"""Of an age: PostgreSQL's calendar has a beginning."""

# The smallest string behind `s`, byte by byte, is `s` and this.
_NEXT = "\x01"


class PostgresRetention:
    """The `Archive` port over one connection of its own, so that ingest never waits for one."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """Use `connect`."""
        self._pool = pool

    @classmethod
    async def connect(cls, dsn: str) -> Self:
        """Connects on first use: the server may be away. Raises `SettingsError`."""
        return cls(await open_pool(dsn, most=1, name="pod-automation-retention"))

    async def close(self) -> None:
        """Close the connection, within a bounded time."""
        await close_pool(self._pool)

    async def next_pod(self, after: str | None) -> str | None:
        """See `Archive.next_pod`."""
        rows = await self._all("next_pod", _behind(after))
        return str(rows[0]["pod_id"]) if rows else None

    async def ended(self, pod_id: str, limits: Limits) -> AsyncGenerator[Sequence[Ended], None]:
        """See `Archive.ended`. Holds one snapshot for as long as it reads, and no lock on rows."""
        with translated():
            async with (
                self._pool.acquire(timeout=COMMAND_TIMEOUT_S) as connection,
                connection.transaction(readonly=True),
            ):
                cursor = await connection.cursor(
                    query("ended"),
                    pod_id,
                    FINAL,
                    _days(limits.executed_days),
                    _days(limits.failed_days),
                )
                while rows := await cursor.fetch(PAGE):
                    yield [_ended(pod_id, row) for row in rows if row["id"] is not None]

    async def remove(self, activities: Sequence[Ended]) -> Mapping[Status, int]:
        """See `Archive.remove`."""
        rows = await self._all(
            "prune",
            ",".join([each.activity_id for each in activities]),
            [each.version for each in activities],
            ",".join([each.planned_id for each in activities]),
            FINAL,
        )
        return {Status(row["status"]): row["removed"] for row in rows}

    async def forget(self, after: str | None, count: int, days: float) -> str | None:
        """See `Archive.forget`."""
        (row,) = await self._all("forget_pruned", _behind(after), count, _days(days))
        return None if row["last"] is None else str(row["last"])

    async def forget_commands(self, days: float, count: int) -> None:
        """See `Archive.forget_commands`."""
        await self._all("forget_commands", _days(days), count)

    async def _all(self, name: str, *arguments: Any) -> "list[asyncpg.Record]":
        with translated():
            async with self._pool.acquire(timeout=COMMAND_TIMEOUT_S) as connection:
                return await connection.fetch(query(name), *arguments)


def _behind(text: str | None) -> str:
    return "" if text is None else text + _NEXT


def _days(days: float) -> float:
    return min(days, MAX_DAYS)


def _ended(pod_id: str, row: "asyncpg.Record") -> Ended:
    planned_id = ""
    if row["post_id"] is not None:
        planned_id = activity_id(pod_id, row["post_id"], row["member_id"], row["engagement_type"])
    return Ended(
        ended_us=row["ended_us"],
        activity_id=row["id"],
        status=Status(row["status"]),
        aged=row["aged"],
        version=row["version"],
        planned_id="" if planned_id == row["id"] else planned_id,
        shard=row["source_partition"],
        result_offset=row["result_offset"],
        command_offset=row["command_offset"],
    )
