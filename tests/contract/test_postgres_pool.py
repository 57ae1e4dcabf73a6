"""What a connection must not bring to its next user."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from random import Random
from typing import Any, cast

import asyncpg
import pytest

from scheduler.adapters.postgres_pool import close_pool, open_pool
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.errors import StoreUnavailableError
from tests.contract.recording import SHARD, STATUSES, TOPIC, first_batch, members
from tests.fixtures.postgres import until

pytestmark = pytest.mark.timeout(120)

NAME = "one"
# Within 30 + 3 * 5 seconds.
NOTICED = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
NONE_OPEN = (
    "select count(*) = 0 from pg_stat_activity"
    " where application_name = 'one' and xact_start is not null"
)


@pytest.fixture
async def pool(record_dsn: str) -> AsyncIterator["asyncpg.Pool[asyncpg.Record]"]:
    pool = await open_pool(record_dsn, most=1, name=NAME)
    yield pool
    await close_pool(pool)


async def test_a_statement_that_is_cut_off_leaves_no_transaction_open(
    pool: "asyncpg.Pool[asyncpg.Record]", record_dsn: str
) -> None:
    random = Random(1)
    admin = await asyncpg.connect(record_dsn)

    async def asks(number: int) -> None:
        async with pool.acquire() as connection:
            await connection.fetch(f"select {number}, $1::int", 1)

    cut_off = 0
    for number in range(300):
        asking = asyncio.create_task(asks(number))
        # Between the parsing and the execution, sooner or later.
        await asyncio.sleep(random.random() * 0.003)
        asking.cancel()
        await asyncio.wait([asking])
        cut_off += asking.cancelled()
        # What is asked to be taken back takes a moment; what stays open stays so.
        await until(admin, NONE_OPEN)
    assert cut_off
    await admin.close()


async def test_a_server_that_was_demoted_is_not_kept(record_dsn: str) -> None:
    record = await PostgresRecord.connect(record_dsn, max_connections=1)
    await first_batch(record, [])
    async with record._pool.acquire() as connection:
        await connection.execute("set session characteristics as transaction read only")
    with pytest.raises(StoreUnavailableError):
        await record.apply_plan(TOPIC, SHARD, 0, 1, members(1, 3))
    assert await record.apply_plan(TOPIC, SHARD, 0, 1, members(1, 3)) == frozenset()
    await record.close()


async def test_a_host_that_says_nothing_any_more_is_noticed(
    pool: "asyncpg.Pool[asyncpg.Record]",
) -> None:
    async with pool.acquire() as connection:
        ours = cast(Any, connection)._con._transport.get_extra_info("socket")
        if ours.family not in (socket.AF_INET, socket.AF_INET6):
            pytest.skip("the server that is named is on this host")
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        found = {
            name: ours.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in NOTICED
            if hasattr(socket, name)
        }
        assert found == {name: NOTICED[name] for name in found}
        assert found or sys.platform != "linux"


async def test_a_connection_that_dies_as_a_snapshot_ends_is_nobodys_error(
    record_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = await PostgresRecord.connect(record_dsn)
    release = record._pool.release

    async def released(connection: Any) -> None:
        await release(connection)
        raise asyncpg.InternalClientError("release() called on a free connection holder")

    monkeypatch.setattr(record, "_pool", Released(record._pool, released))
    async with record.snapshot(SHARD) as snapshot:
        assert STATUSES not in snapshot.watermarks
    await record.close()


class Released:
    """A pool with another `release`."""

    def __init__(self, pool: Any, release: Any) -> None:
        self._pool = pool
        self.release = release

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)
