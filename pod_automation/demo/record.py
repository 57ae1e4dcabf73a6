"""The demo's own look at PostgreSQL, apart from the engine's adapter."""

from collections.abc import Sequence
from typing import Self

import asyncpg
import orjson
from msgspec import Struct

from pod_automation.demo.sql import query
from scheduler.adapters.postgres_errors import translated

COMMAND_S = 10.0


class Progress(Struct, frozen=True):
    """One pod's activities: planned, due by now, on record as executed or as failed, and attempts
    beyond the first."""

    planned: int = 0
    due: int = 0
    executed: int = 0
    failed: int = 0
    retried: int = 0


class Row(Struct, frozen=True):
    """An activity; `failures` are the attempts that failed, each with its error."""

    member_id: str
    status: str
    attempt: int = 1
    dispatched: bool = True
    failures: tuple[tuple[int, str], ...] = ()


class RecordProbe:
    """One connection, for one task."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Use `connect`."""
        self._connection = connection

    @classmethod
    async def connect(cls, dsn: str) -> Self:
        """A probe of the database at `dsn`."""
        with translated():
            return cls(await asyncpg.connect(dsn, timeout=COMMAND_S, command_timeout=COMMAND_S))

    async def close(self) -> None:
        """Close the connection."""
        self._connection.terminate()

    async def progress(self, pods: Sequence[str]) -> dict[str, Progress]:
        """By pod; one without activities has no entry."""
        with translated():
            rows = await self._connection.fetch(query("progress"), pods)
        return {row["pod_id"]: Progress(*row[1:]) for row in rows}

    async def activities(self, pods: Sequence[str]) -> dict[str, Row]:
        """All activities of `pods`, by id."""
        with translated():
            rows = await self._connection.fetch(query("activities"), pods)
        return {
            row["id"]: Row(
                row["member_id"],
                row["status"],
                row["attempt"],
                row["dispatched"],
                tuple((each["attempt"], each["error"]) for each in orjson.loads(row["failures"])),
            )
            for row in rows
        }

    async def members(self, members: Sequence[str]) -> dict[str, int]:
        """How many engagements each of `members` has carried out; one without any has no entry."""
        with translated():
            rows = await self._connection.fetch(query("members"), members)
        return {row["member_id"]: row["engagement_count"] for row in rows}
