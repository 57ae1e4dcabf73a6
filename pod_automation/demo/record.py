"""The demo's own look at PostgreSQL, apart from the engine's adapter."""

from collections.abc import Sequence
from typing import Self

import asyncpg
from msgspec import Struct

from pod_automation.demo.sql import query
from scheduler.adapters.postgres_errors import translated

COMMAND_S = 10.0


class Progress(Struct, frozen=True):
    """One pod's activities: planned, due by now, and on record as dispatched."""

    planned: int = 0
    due: int = 0
    recorded: int = 0


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
        return {
            row["pod_id"]: Progress(row["planned"], row["due"], row["recorded"]) for row in rows
        }

    async def activities(self, pods: Sequence[str]) -> frozenset[str]:
        """The ids of all activities of `pods`."""
        with translated():
            rows = await self._connection.fetch(query("activities"), pods)
        return frozenset(row["id"] for row in rows)
