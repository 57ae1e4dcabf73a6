"""The records that pass one suite."""

from collections.abc import AsyncIterator

import pytest

from scheduler.adapters.postgres_record import PostgresRecord
from tests.contract.recording import FullRecord, MemoryStore, PostgresStore, Store


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
