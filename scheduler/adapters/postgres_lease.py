"""Leadership by an advisory lock, held by a connection of its own for as long as that lives.

It needs a session: a pooler that shares connections between transactions (PgBouncer's transaction
mode) cannot carry it.
"""

import asyncio
from hashlib import sha256

import asyncpg

from scheduler.adapters.postgres_errors import GONE, translated
from scheduler.errors import StoreUnavailableError
from scheduler.sql import query
from scheduler.tasks import end_if_cancelled

TIMEOUT_S = 5.0
"""A server that does not answer within this time counts as away."""

BEAT_S = 2.0
"""How often the server is asked whether it is there: a dead network says nothing by itself."""


def lock_number(name: str) -> int:
    """The number of the lock called `name`: eight bytes of a hash, as a signed integer."""
    return int.from_bytes(sha256(f"pod-automation\x1f{name}".encode()).digest()[:8], signed=True)


class PostgresLease:
    """The `Lease` port; locks are the database's, so engines in different ones do not meet."""

    def __init__(
        self, dsn: str, name: str, *, beat_s: float = BEAT_S, timeout_s: float = TIMEOUT_S
    ) -> None:
        """`name` is that of what is led, prefix included. Connects with `acquire` alone."""
        self._dsn = dsn
        self._number = lock_number(name)
        self._beat_s = beat_s
        self._timeout_s = timeout_s
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._ended = asyncio.Event()

    async def acquire(self) -> bool:
        """See `Lease.acquire`. Between tries the connection is kept."""
        try:
            with translated():
                connection = await self._connected()
                return bool(await connection.fetchval(query("lead"), self._number))
        except BaseException:
            # A lock whose answer was lost would be held by nobody who knows.
            self._drop()
            raise

    async def lost(self) -> None:
        """See `Lease.lost`. At once when the connection breaks, else within a beat and a time-out.

        Also after `release`, and when it was never acquired.
        """
        while (connection := self._connection) is not None and not connection.is_closed():
            try:
                async with asyncio.timeout(self._beat_s):
                    await self._ended.wait()
            except TimeoutError:
                try:
                    with translated():
                        await connection.fetchval(query("ping"))
                except StoreUnavailableError:
                    break
            end_if_cancelled()
        self._drop()

    async def release(self) -> None:
        """See `Lease.release`."""
        connection, self._connection = self._connection, None
        if connection is None or connection.is_closed():
            return
        try:
            await connection.close(timeout=self._timeout_s)
        except GONE:
            connection.terminate()

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is not None and not self._connection.is_closed():
            return self._connection
        ended = self._ended = asyncio.Event()
        connection = await asyncpg.connect(
            self._dsn,
            timeout=self._timeout_s,
            command_timeout=self._timeout_s,
            server_settings={
                "application_name": "pod-automation-leader",
                # The lock of a host that has died without a word is free after half a minute.
                "tcp_keepalives_idle": "10",
                "tcp_keepalives_interval": "5",
                "tcp_keepalives_count": "4",
            },
        )
        connection.add_termination_listener(lambda _: ended.set())
        self._connection = connection
        return connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None and not connection.is_closed():
            connection.terminate()
