"""The schema: how it comes about, and what an upstream system finds in it."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeAlias

import asyncpg
import pytest

from scheduler import migrations
from scheduler.errors import StoreUnavailableError
from scheduler.migrations import SchemaError, check_schema, latest, migrate, schema_version
from tests.fixtures.postgres import until

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def connection(record_dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(record_dsn)
    yield connection
    await connection.close()


async def test_migrating_twice_does_nothing_more(empty_dsn: str) -> None:
    assert await schema_version(empty_dsn) is None
    with pytest.raises(SchemaError, match="run pod-automation init"):
        await check_schema(empty_dsn)
    applied = await migrate(empty_dsn)
    assert applied[0] == "0001"
    assert applied[-1] == latest()
    assert await schema_version(empty_dsn) == latest()
    await check_schema(empty_dsn)
    assert await migrate(empty_dsn) == []


async def test_several_at_once_take_turns(empty_dsn: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_dsn) for _ in range(4)))
    assert sorted(map(bool, applied)) == [False, False, False, True]
    await check_schema(empty_dsn)


async def test_a_newer_database_is_left_alone(record_dsn: str, connection: Connection) -> None:
    await connection.execute(f"update {migrations.VERSION_TABLE} set version_num = '9999'")  # noqa: S608
    with pytest.raises(SchemaError, match="at schema 9999, this program"):
        await check_schema(record_dsn)
    with pytest.raises(SchemaError, match="at schema 9999, this program"):
        await migrate(record_dsn)


async def test_a_migration_that_fails_leaves_nothing(empty_dsn: str) -> None:
    connection = await asyncpg.connect(empty_dsn)
    # The last of the tables: everything before it has been made by then.
    await connection.execute("create table ingested_offsets ()")
    with pytest.raises(asyncpg.DuplicateTableError):
        await migrate(empty_dsn)
    assert await schema_version(empty_dsn) is None
    await connection.execute("drop table ingested_offsets")
    await connection.close()
    assert await migrate(empty_dsn)


async def test_no_server(unused_tcp_port: int) -> None:
    dsn = f"postgresql://u@127.0.0.1:{unused_tcp_port}/d"
    with pytest.raises(StoreUnavailableError, match="PostgreSQL"):
        await migrate(dsn)
    with pytest.raises(StoreUnavailableError, match="PostgreSQL"):
        await check_schema(dsn)


async def test_killed_while_waiting_its_turn(empty_dsn: str) -> None:
    connection = await asyncpg.connect(empty_dsn)
    await connection.execute("select pg_advisory_lock($1)", migrations.LOCK)
    migrating = asyncio.create_task(migrate(empty_dsn))
    rival = "from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
    await until(connection, f"select count(*) > 0 {rival}")
    await connection.execute(f"select pg_terminate_backend(pid) {rival}")
    with pytest.raises(StoreUnavailableError):
        await migrating
    await connection.close()


async def test_an_upstream_system_needs_four_columns(connection: Connection) -> None:
    row = await connection.fetchrow(
        "insert into pod_activities (pod_id, post_id, member_id, engagement_type)"
        " values ('pod', 'post', 'member', 'like') returning *"
    )
    assert row is not None
    assert row["status"] == "pending"
    assert row["attempt"] == 1
    assert row["id"] is not None
    assert row["created_at"] == row["updated_at"]
    assert row["source_partition"] is row["source_offset"] is row["scheduled_for"] is None


@pytest.mark.parametrize(
    ("column", "value"),
    [("status", "done"), ("engagement_type", "share"), ("attempt", 0), ("source_offset", 1)],
)
async def test_nonsense_is_refused(connection: Connection, column: str, value: object) -> None:
    row = {"pod_id": "p", "post_id": "q", "member_id": "m", "engagement_type": "like"}
    values = {**row, column: value}
    places = ", ".join(f"${at}" for at in range(1, len(values) + 1))
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(
            f"insert into pod_activities ({', '.join(values)}) values ({places})",  # noqa: S608
            *values.values(),
        )


async def test_counting_a_members_engagements(connection: Connection) -> None:
    count = "select increment_member_engagement('m')"
    assert await connection.fetchval(count) == 1
    assert await connection.fetchval(count) == 2
    by_name = "select increment_member_engagement(member_id => 'm', count => 5)"
    assert await connection.fetchval(by_name) == 7
    assert await connection.fetchval("select increment_member_engagement('n', 0)") == 0
    rows = await connection.fetch("select member_id, engagement_count from member_engagement")
    assert sorted(tuple(row) for row in rows) == [("m", 7), ("n", 0)]


async def test_counting_at_once_loses_nothing(record_dsn: str) -> None:
    async with asyncpg.create_pool(record_dsn, min_size=5, max_size=5) as pool:
        count = "select increment_member_engagement('m')"
        await asyncio.gather(*(pool.fetchval(count) for _ in range(100)))
        assert await pool.fetchval("select engagement_count from member_engagement") == 100


async def test_everything_is_explained(connection: Connection) -> None:
    silent = await connection.fetch(
        """
        select relname, attname
        from pg_class
        join pg_attribute on attrelid = pg_class.oid and attnum >= 0 and not attisdropped
        where relnamespace = 'public'::regnamespace and relkind = 'r' and relname <> $1
            and col_description(pg_class.oid, attnum) is null
            and obj_description(pg_class.oid) is null
        """,
        migrations.VERSION_TABLE,
    )
    assert silent == []
