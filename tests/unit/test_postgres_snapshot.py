"""A snapshot whose connection has died."""

from typing import Any

import asyncpg
import pytest

from scheduler.adapters.postgres_snapshot import PostgresSnapshot


class Connection:
    """One whose transaction cannot be ended."""

    def __init__(self, error: Exception) -> None:
        self._error = error
        self.terminated = False

    def transaction(self, **options: Any) -> "Connection":
        return self

    async def rollback(self) -> None:
        raise self._error

    def terminate(self) -> None:
        self.terminated = True


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        asyncpg.InterfaceError("closed"),
        # What asyncpg says of a connection that was cut off in the midst of something.
        asyncpg.InternalClientError("cannot switch to state 15; another operation is in progress"),
    ],
)
async def test_its_end_never_fails(error: Exception) -> None:
    connection: Any = Connection(error)
    await PostgresSnapshot(connection, 0).end()
    assert connection.terminated
