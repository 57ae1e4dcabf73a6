"""Connections to PostgreSQL, opened and closed in the same way by all adapters."""

import asyncio
import socket
from typing import Any

import asyncpg

from scheduler.adapters.postgres_errors import GONE, check_address, translated

CONNECT_TIMEOUT_S = 5.0
"""A server that does not let us in within this time counts as away."""

COMMAND_TIMEOUT_S = 30.0
"""Likewise one that does not answer; a statement of ours takes milliseconds, but may wait for a
rival's lock and for a checkpoint."""

KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""Seconds, seconds and times: a host that says nothing any more is noticed within 45 s."""


async def open_pool(
    dsn: str,
    *,
    most: int,
    name: str = "pod-automation",
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    command_timeout_s: float = COMMAND_TIMEOUT_S,
) -> "asyncpg.Pool[asyncpg.Record]":
    """A pool of at most `most` connections, known to the server as `name`; each is made on first
    use: the server may be away. Raises `SettingsError` for an address that makes no sense."""

    async def given_back(connection: Any) -> None:
        # We leave nothing behind on a connection but what was cut off; by default the server would
        # be asked once more after every statement.
        if connection.cut_off:
            connection.cut_off = False
            await connection.execute("select")  # of the empty one asyncpg expects an answer
        if connection.demoted:
            await pool.expire_connections()

    await check_address(dsn)
    with translated():
        pool: asyncpg.Pool[asyncpg.Record] = await asyncpg.create_pool(
            dsn,
            connection_class=_Connection,
            init=_kept_alive,
            min_size=0,
            max_size=most,
            timeout=connect_timeout_s,
            command_timeout=command_timeout_s,
            reset=given_back,
            server_settings={
                "application_name": name,
                # Compiling pays for analytical queries; here it is all cost.
                "jit": "off",
                # Thousands of ids against a table of a few hundred thousand rows: the planner would
                # read all of the table for each statement.
                "enable_hashjoin": "off",
                "enable_mergejoin": "off",
            },
        )
    return pool


async def close_pool(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Close all connections, within a bounded time."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await pool.close()
    except GONE:
        pool.terminate()


class _Connection(asyncpg.Connection):
    """Notes what must not come to its next user."""

    __slots__ = ("cut_off", "demoted")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.cut_off = False
        """A statement was cut off, maybe between its parsing and its execution: then asyncpg asks
        for no end of the transaction that the server has begun for it, which would stay open, with
        its locks and its `now()`, for whoever is next."""
        self.demoted = False
        """The server may not be written to any more. Its address may lead to another one now."""

    async def _execute(self, *arguments: Any, **options: Any) -> Any:
        try:
            return await super()._execute(*arguments, **options)  # type: ignore[misc]
        except (asyncio.CancelledError, TimeoutError):
            self.cut_off = True
            raise
        except asyncpg.ReadOnlySQLTransactionError:
            self.demoted = True
            raise


async def _kept_alive(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Have the kernel notice a host that is gone without a word, also where we only wait."""
    ours = connection._transport.get_extra_info("socket")  # type: ignore[attr-defined]
    if ours is None or ours.family not in (socket.AF_INET, socket.AF_INET6):
        return
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            ours.setsockopt(socket.IPPROTO_TCP, option, value)
