"""What the record in PostgreSQL promises when the server is away, slow, or shared."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import TypeAlias

import asyncpg
import pytest
from asyncpg import exceptions

from scheduler.adapters.postgres_errors import translated
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.errors import (
    DataRefusedError,
    EngineError,
    SettingsError,
    StoreUnavailableError,
)
from tests.contract.recording import SHARD, STATUSES, TOPIC, dispatched, first_batch, members
from tests.fixtures.postgres import until

pytestmark = pytest.mark.timeout(60)

Admin: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def record(record_dsn: str) -> AsyncIterator[PostgresRecord]:
    record = await PostgresRecord.connect(record_dsn, command_timeout_s=20)
    yield record
    await record.close()


@pytest.fixture
async def admin(record_dsn: str) -> AsyncIterator[Admin]:
    connection = await asyncpg.connect(record_dsn)
    yield connection
    await connection.close()


@asynccontextmanager
async def held(record: PostgresRecord, admin: Admin) -> AsyncIterator[None]:
    """Whoever wants to move the watermark of the shard, now at 0, has to wait."""
    await first_batch(record, [])
    async with admin.transaction():
        await admin.execute("update ingested_offsets set updated_at = now()")
        yield


async def waiting(admin: Admin) -> None:
    """Returns once a statement of the record waits for a lock."""
    await until(
        admin,
        "select count(*) > 0 from pg_stat_activity where datname = current_database()"
        " and application_name = 'pod-automation' and wait_event_type = 'Lock'",
    )


async def kill(admin: Admin) -> int:
    """Ends the record's sessions, as an operator or a restart does; returns their number."""
    ended = await admin.fetch(
        "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
        " where datname = current_database() and application_name = 'pod-automation'"
    )
    return len(ended)


async def test_killed_in_the_middle_then_works_again(record: PostgresRecord, admin: Admin) -> None:
    activities = members(1, 3)
    async with held(record, admin):
        applying = asyncio.create_task(record.apply_plan(TOPIC, SHARD, 0, 1, activities))
        await waiting(admin)
        await kill(admin)
        with pytest.raises(StoreUnavailableError):
            await applying
    assert await record.watermark(TOPIC, SHARD) == 0
    assert await record.apply_plan(TOPIC, SHARD, 0, 1, activities) == frozenset()


async def test_a_wheel_is_begun_behind_changes_that_are_under_way(
    record: PostgresRecord, admin: Admin
) -> None:
    # Or a change that was permitted before could be committed behind the back of the rebuild.
    async with held(record, admin):
        beginning = asyncio.create_task(record.begin_wheel(TOPIC, SHARD, "new"))
        await waiting(admin)
        await admin.execute("update ingested_offsets set last_offset = 3")
    await beginning
    async with record.snapshot(SHARD) as snapshot:
        assert snapshot.watermarks == {TOPIC: 3}


async def test_a_change_waits_for_the_wheel_that_is_begun(
    record: PostgresRecord, admin: Admin
) -> None:
    async with held(record, admin):
        changing = asyncio.create_task(
            record.change(TOPIC, SHARD, 0, 1, [], by="command", wheel_gen="old")
        )
        await waiting(admin)
        await admin.execute("update ingested_offsets set wheel_gen = 'new'")
    assert await changing is None
    assert await record.watermark(TOPIC, SHARD) == 0


async def test_idle_connections_that_died_are_replaced(
    record: PostgresRecord, admin: Admin
) -> None:
    await asyncio.gather(*(record.ping() for _ in range(5)))
    assert await kill(admin)
    # One that died may be noticed only by using it; then it is not used again.
    failures = 0
    for _ in range(20):
        try:
            await record.ping()
        except StoreUnavailableError:
            failures += 1
    assert failures <= 5
    await asyncio.gather(*(record.ping() for _ in range(5)))


async def test_a_server_that_does_not_answer_is_given_up(record_dsn: str, admin: Admin) -> None:
    record = await PostgresRecord.connect(record_dsn, command_timeout_s=2)
    activities = members(1, 3)
    async with held(record, admin):
        with pytest.raises(StoreUnavailableError, match="TimeoutError"):
            await record.apply_plan(TOPIC, SHARD, 0, 1, activities)
        with pytest.raises(StoreUnavailableError):
            await record.project(TOPIC, SHARD, 0, 1, [])
        await record.ping()
    assert await record.apply_plan(TOPIC, SHARD, 0, 1, activities) == frozenset()
    await record.close()


async def test_a_full_pool_is_given_up(record_dsn: str) -> None:
    record = await PostgresRecord.connect(record_dsn, max_connections=1, command_timeout_s=2)
    async with record.snapshot(SHARD):
        with pytest.raises(StoreUnavailableError, match="TimeoutError"):
            await record.ping()
    await record.ping()
    await record.close()


async def test_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    record = await PostgresRecord.connect(f"postgresql://u@127.0.0.1:{unused_tcp_port}/d")
    with pytest.raises(StoreUnavailableError):
        await record.ping()
    await record.close()


async def test_a_server_that_accepts_and_says_nothing() -> None:
    gone = asyncio.Event()

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    record = await PostgresRecord.connect(
        f"postgresql://u@127.0.0.1:{port}/d?sslmode=disable", connect_timeout_s=0.2
    )
    with pytest.raises(StoreUnavailableError):
        await record.ping()
    await record.close()
    gone.set()
    server.close()
    await server.wait_closed()


async def test_cancelled_in_the_middle_then_works_again(
    record: PostgresRecord, admin: Admin
) -> None:
    async with held(record, admin):
        applying = asyncio.create_task(record.apply_plan(TOPIC, SHARD, 0, 1, members(1, 3)))
        await waiting(admin)
        applying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await applying
    assert await record.apply_plan(TOPIC, SHARD, 0, 1, members(1, 3)) == frozenset()


async def test_a_snapshot_that_is_killed(record: PostgresRecord, admin: Admin) -> None:
    await first_batch(record, members(0, 30))

    async def read() -> None:
        async with record.snapshot(SHARD) as snapshot:
            async for _ in snapshot.unfired(10):
                await kill(admin)

    with pytest.raises(StoreUnavailableError):
        await read()
    await record.ping()


async def test_snapshots_leave_no_transaction_behind(record: PostgresRecord, admin: Admin) -> None:
    await first_batch(record, members(0, 30))
    async with record.snapshot(SHARD) as snapshot:
        async for _ in snapshot.unfired(10):
            break
    await record.ping()
    await until(
        admin,
        "select count(*) = 0 from pg_stat_activity where datname = current_database()"
        " and application_name = 'pod-automation' and state <> 'idle'",
    )


async def test_two_shards_with_the_same_post(record: PostgresRecord) -> None:
    """A foreign producer with another partitioner: each row goes to one of the two."""
    activities = members(0, 300)
    told: dict[int, frozenset[str] | None] = {}

    async def apply(shard: int) -> None:
        rows = activities if shard else activities[::-1]
        for attempt in count(1):
            try:
                told[shard] = await record.apply_plan(TOPIC, shard, -1, 0, rows)
                return
            except StoreUnavailableError:
                # Deadlock: each waits for a row of the other, and PostgreSQL ends one of them.
                assert attempt < 5

    await asyncio.gather(apply(0), apply(1))
    first, second = told[0], told[1]
    assert first is not None
    assert second is not None
    assert first ^ second == {each.activity_id for each in activities}
    assert (await record.overview()).total == 300


async def test_projectors_of_all_shards_at_once(record: PostgresRecord) -> None:
    """Each with its own rows and watermark: none waits for another, none is lost."""

    async def live(shard: int) -> None:
        activities = members(0, 50, post=f"post-{shard}")
        await record.apply_plan(TOPIC, shard, -1, 0, activities)
        for at in range(0, 50, 5):
            changes = dispatched(activities[at : at + 5])
            assert await record.project(STATUSES, shard, at - 1, at + 4, changes)

    await asyncio.gather(*(live(shard) for shard in range(8)))
    assert (await record.overview()).dispatched == 400


async def test_nothing_that_changes_with_a_status_is_indexed(admin: Admin) -> None:
    """Else every change of status would have to touch all indexes."""
    indexed = await admin.fetch(
        """
        select attribute.attname
        from pg_index as index
        join pg_attribute as attribute
            on attribute.attrelid = index.indrelid and attribute.attnum = any(index.indkey)
        where index.indrelid = 'pod_activities'::regclass
        """
    )
    assert {row["attname"] for row in indexed} == {
        *("id", "pod_id", "post_id", "member_id", "engagement_type"),
        *("source_partition", "source_offset"),
    }
    conditions = await admin.fetch(
        """
        select pg_get_expr(indpred, indrelid) as condition
        from pg_index
        where indpred is not null and indrelid = 'pod_activities'::regclass
        """
    )
    # A column that is in an index anyway, and does not change with a status either.
    assert {row["condition"] for row in conditions} == {"(source_partition IS NULL)"}


@pytest.mark.parametrize(
    ("raised", "meant"),
    [
        (exceptions.TooManyConnectionsError("too many clients"), StoreUnavailableError),
        (exceptions.CannotConnectNowError("starting up"), StoreUnavailableError),
        (exceptions.AdminShutdownError("shut down"), StoreUnavailableError),
        (exceptions.CrashShutdownError("crash"), StoreUnavailableError),
        (exceptions.DiskFullError("disk full"), StoreUnavailableError),
        (exceptions.ReadOnlySQLTransactionError("a standby now"), StoreUnavailableError),
        (exceptions.DeadlockDetectedError("deadlock"), StoreUnavailableError),
        (exceptions.QueryCanceledError("statement_timeout"), StoreUnavailableError),
        (exceptions.ConnectionDoesNotExistError("in the middle"), StoreUnavailableError),
        (exceptions.InterfaceError("connection is closed"), StoreUnavailableError),
        (TimeoutError(), StoreUnavailableError),
        (ConnectionResetError("by peer"), StoreUnavailableError),
        (exceptions.CheckViolationError("check"), DataRefusedError),
        (exceptions.NumericValueOutOfRangeError("range"), DataRefusedError),
        (exceptions.ProgramLimitExceededError("index row size"), DataRefusedError),
        (exceptions.InvalidPasswordError("password"), SettingsError),
        (exceptions.InvalidCatalogNameError("no database"), SettingsError),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value.__name__,
)
def test_what_an_error_means(raised: Exception, meant: type[EngineError]) -> None:
    with pytest.raises(meant), translated():
        raise raised


def test_a_missing_right_is_told_with_where_to_read_on() -> None:
    error = exceptions.InsufficientPrivilegeError("permission denied for table pod_activities")
    said = r"no right .*Least privilege.*pod_activities.*42501"
    with pytest.raises(EngineError, match=said), translated():
        raise error


@pytest.mark.parametrize(
    "bug",
    [
        exceptions.UndefinedColumnError("no column"),
        exceptions.PostgresSyntaxError("syntax"),
        exceptions.InterfaceError("another operation is in progress"),
        KeyError("ours"),
    ],
    ids=lambda bug: type(bug).__name__,
)
def test_bugs_pass_through(bug: Exception) -> None:
    with pytest.raises(type(bug)), translated():
        raise bug
