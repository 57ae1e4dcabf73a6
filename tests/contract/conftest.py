"""The records that pass one suite, and the servers behind the wheels that pass another."""

from collections.abc import AsyncIterator

import pytest

from scheduler.adapters.postgres_record import PostgresRecord
from tests.contract.recording import FullRecord, MemoryStore, PostgresStore, Store


@pytest.fixture(params=["memory", "valkey", "redis-6.2"])
def server(request: pytest.FixtureRequest) -> str | None:
    """The address of the server that stands behind the wheel; None for the one in memory."""
    if request.param == "memory":
        return None
    name = "new_redis_url" if request.param == "valkey" else "old_redis_url"
    return str(request.getfixturevalue(name))


@pytest.fixture(params=["memory", "postgres"])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """The database behind the record; None for the record in memory."""
    return str(request.getfixturevalue("record_dsn")) if request.param == "postgres" else None


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[Store]:
    """Each record, empty."""
    if dsn is None:
        yield MemoryStore()
        return
    record = await PostgresRecord.connect(dsn)
    yield PostgresStore(record, dsn)
    await record.close()


@pytest.fixture
def record(store: Store) -> FullRecord:
    """The same, where its rows do not matter."""
    return store.record
