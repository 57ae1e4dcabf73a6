"""One shard of the record in PostgreSQL, as of one moment."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias

import asyncpg

from scheduler.activity import STANDING, UNFIRED, ActivityRow, Standing, Status
from scheduler.adapters.postgres_errors import GONE, translated
from scheduler.adapters.postgres_rows import activity_row, is_uuid, standing
from scheduler.controls import Selection, Subject
from scheduler.sql import query
from scheduler.timer import Timer

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


CHUNK_S = 600.0
"""How long one chunk may take. The first one reads past all of a shard's rows that are done with,
which on a large table, cold and with all shards at it, is minutes; a rebuild that was cut off there
would begin anew, and never end. A server that is gone shows by its connection, which is kept alive
(postgres_pool)."""


class PostgresSnapshot:
    """The `Snapshot` port, between `begin` and `end`: one repeatable-read transaction."""

    watermarks: Mapping[str, int]
    paused: Collection[Subject]
    opted_out: Collection[str]

    def __init__(self, connection: Connection, shard: int) -> None:
        """`connection` must be left alone until `end`."""
        self._connection = connection
        self._shard = shard
        self._transaction = connection.transaction(isolation="repeatable_read", readonly=True)

    async def begin(self) -> None:
        """Begin the transaction; its first query, for the watermarks, fixes the moment."""
        with translated():
            await self._transaction.start()
            rows = await self._connection.fetch(query("watermarks"), self._shard)
            controls = await self._connection.fetch(query("controls"), self._shard)
        self.watermarks = {row["topic"]: row["last_offset"] for row in rows}
        self.paused = [
            Subject(row["scope"], row["subject"]) for row in controls if row["kind"] == "paused"
        ]
        self.opted_out = {row["subject"] for row in controls if row["kind"] == "opted_out"}

    async def unfired(self, chunk: int) -> AsyncIterator[Sequence[Timer]]:
        """See `Snapshot.unfired`."""
        async for rows in self._chunks(chunk, "unfired", UNFIRED):
            yield [Timer(*row) for row in rows]

    async def awaited(self, chunk: int) -> AsyncIterator[Sequence[Timer]]:
        """See `Snapshot.awaited`."""
        async for rows in self._chunks(chunk, "awaited", Status.DISPATCHED):
            yield [Timer(*row) for row in rows]

    async def commanded(
        self, command_offset: int, chunk: int
    ) -> AsyncIterator[Sequence[ActivityRow]]:
        """See `Snapshot.commanded`."""
        async for rows in self._chunks(chunk, "commanded", command_offset):
            yield [activity_row(row) for row in rows]

    async def matching(
        self, selection: Selection, statuses: Collection[Status], chunk: int
    ) -> AsyncIterator[Sequence[str]]:
        """See `Snapshot.matching`."""
        names = [] if selection.scope == "all" else [selection.name]
        async for rows in self._chunks(
            chunk, f"matching_{selection.scope}", list(statuses), *names
        ):
            yield [row["id"] for row in rows]

    async def standing(self, chunk: int) -> AsyncIterator[Sequence[Standing]]:
        """See `Snapshot.standing`."""
        async for rows in self._chunks(chunk, "standing", STANDING):
            yield [standing(row) for row in rows]

    async def standings(self, activity_ids: Sequence[str]) -> Mapping[str, Standing]:
        """See `Snapshot.standings`. What is no UUID is nobody's id."""
        known = ",".join({each for each in activity_ids if is_uuid(each)})
        if not known:
            return {}
        with translated():
            rows = await self._connection.fetch(query("standings"), known)
        return {row["id"]: standing(row) for row in rows}

    async def _chunks(
        self, chunk: int, name: str, *arguments: object
    ) -> "AsyncIterator[Sequence[asyncpg.Record]]":
        """What the query `name` finds of the shard; one chunk in memory, here and on the server."""
        with translated():
            cursor = await self._connection.cursor(query(name), self._shard, *arguments)
        while True:
            with translated():
                rows = await cursor.fetch(chunk, timeout=CHUNK_S)
            if rows:
                yield rows
            if len(rows) < chunk:
                return

    async def end(self) -> None:
        """End the transaction. Never fails: nothing was written, and what was read is of use."""
        try:
            await self._transaction.rollback()
        except GONE:
            # A connection that has died is no longer ours to end.
            with suppress(*GONE):
                self._connection.terminate()
