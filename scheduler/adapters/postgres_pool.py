"""Connections to PostgreSQL, opened and closed in the same way by all adapters."""

import asyncio

import asyncpg

from scheduler.adapters.postgres_errors import GONE, translated

CONNECT_TIMEOUT_S = 5.0
"""A server that does not let us in within this time counts as away."""

COMMAND_TIMEOUT_S = 30.0
"""Likewise one that does not answer; a statement of ours takes milliseconds, but may wait for a
rival's lock and for a checkpoint."""


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
    with translated():
        return await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=most,
            timeout=connect_timeout_s,
            command_timeout=command_timeout_s,
            # We leave nothing behind on a connection; the default would ask the server once more
            # after every statement.
            reset=_nothing_to_reset,
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


async def close_pool(pool: "asyncpg.Pool[asyncpg.Record]") -> None:
    """Close all connections, within a bounded time."""
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await pool.close()
    except GONE:
        pool.terminate()


async def _nothing_to_reset(_: object) -> None:
    pass
