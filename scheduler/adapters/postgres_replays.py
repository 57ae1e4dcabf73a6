"""Which dead letters were replayed: the table `dead_letter_replays`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Self, TypeAlias

import asyncpg
from msgspec import Struct

from scheduler.adapters.postgres_errors import GONE, translated
from scheduler.adapters.postgres_pool import COMMAND_TIMEOUT_S, close_pool, open_pool
from scheduler.sql import query

# "replays" in ASCII: one number for all who replay into a database.
LOCK = int.from_bytes(b"replays", "big")

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"


class Replay(Struct, frozen=True):
    """A dead letter was sent again: `replays` times, the last time at `at_ms` (milliseconds UTC),
    and then it became `topic`/`partition`/`offset`."""

    at_ms: int
    topic: str
    partition: int
    offset: int
    replays: int


class Sent(Struct, frozen=True):
    """The dead letter `id` has become the record `topic`/`partition`/`offset`."""

    id: str
    topic: str
    partition: int
    offset: int


class PostgresReplays:
    """Reads and marks. Each call ends within the time limits, whatever the server does, and may
    raise `StoreUnavailableError`."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """Use `connect`."""
        self._pool = pool

    @classmethod
    async def connect(cls, dsn: str) -> Self:
        """Connects on first use. Raises `SettingsError` for an address that makes no sense."""
        return cls(await open_pool(dsn, most=2))

    async def close(self) -> None:
        """Close all connections, within a bounded time."""
        await close_pool(self._pool)

    async def of(self, ids: Sequence[str]) -> Mapping[str, Replay]:
        """The replays of these dead letters; one that was never replayed has no entry."""
        with translated():
            async with self._pool.acquire(timeout=COMMAND_TIMEOUT_S) as connection:
                return await _of(connection, ids)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator["Replaying"]:
        """Nobody else marks meanwhile. What was marked holds once the context is left without an
        error; otherwise none of it does."""
        with translated():
            connection = await self._pool.acquire(timeout=COMMAND_TIMEOUT_S)
        try:
            with translated():
                transaction = connection.transaction()
                await transaction.start()
            try:
                with translated():
                    await connection.fetchval(query("lock_replays"), LOCK)
                yield Replaying(connection)
            except BaseException:
                with suppress(*GONE):
                    await transaction.rollback()
                raise
            with translated():
                await transaction.commit()
        finally:
            with suppress(*GONE):
                await self._pool.release(connection)


class Replaying:
    """The transaction of one who replays."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def of(self, ids: Sequence[str]) -> Mapping[str, Replay]:
        """See `PostgresReplays.of`; and it stays so until the end."""
        with translated():
            return await _of(self._connection, ids)

    async def mark(
        self, sent: Sequence[Sent], actor: str | None = None, reason: str | None = None
    ) -> None:
        """Mark these, and count up those that were marked before; `actor` and `reason` are for the
        audit. No id may come twice."""
        with translated():
            await self._connection.execute(
                query("mark_replays"),
                [each.id for each in sent],
                [each.topic for each in sent],
                [each.partition for each in sent],
                [each.offset for each in sent],
                actor,
                reason,
            )


async def _of(connection: Connection, ids: Sequence[str]) -> Mapping[str, Replay]:
    # PostgreSQL's text has no NUL; such an id is never marked.
    rows = await connection.fetch(query("replays"), [each for each in ids if "\x00" not in each])
    return {row["dead_letter_id"]: Replay(*row[1:]) for row in rows}
