"""The schema in PostgreSQL, as numbered SQL files that alembic applies in order.

There are no downgrades: a schema that goes back would have to throw away data of the one store that
must not lose any. To go back, restore a backup.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import as_file, files

import asyncpg

from scheduler.adapters.postgres_errors import check_address, translated
from scheduler.errors import PermanentError

VERSION_TABLE = "pod_automation_schema"
"""Not alembic's own name, as an upstream system may keep its tables in the same database."""

OLDEST_SERVER = (14,)

CONNECT_TIMEOUT_S = 5.0

# "pod automation" in ASCII, cut to eight bytes: one number per program, unlikely to be another's.
LOCK = int.from_bytes(b"pod auto", "big")


TURN_S = 0.05

_at_work: set[int] = set()


@asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    """Alembic keeps the migration at work in its module: one at a time in a process."""
    while _at_work:  # noqa: ASYNC110 - an event would belong to one event loop
        await asyncio.sleep(TURN_S)
    _at_work.add(LOCK)
    try:
        yield
    finally:
        _at_work.clear()


class SchemaError(PermanentError):
    """The database's schema is not the one that this program works with."""


def latest() -> str:
    """The schema that this program works with: the number of its last migration."""
    names = [each.name for each in files(__name__).joinpath("sql").iterdir()]
    return max(name.partition("_")[0] for name in names if name.endswith(".up.sql"))


async def schema_version(dsn: str) -> str | None:
    """The schema that the database is at, None for a database without one.

    Raises `StoreUnavailableError`, and `SettingsError` for an address that makes no sense.
    """
    await check_address(dsn)
    with translated():
        connection = await asyncpg.connect(
            dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=CONNECT_TIMEOUT_S
        )
        try:
            if await connection.fetchval("select to_regclass($1)", VERSION_TABLE) is None:
                return None
            found = await connection.fetchval(f"select max(version_num) from {VERSION_TABLE}")  # noqa: S608 - a constant
            return None if found is None else str(found)
        finally:
            await connection.close(timeout=CONNECT_TIMEOUT_S)


async def check_schema(dsn: str) -> None:
    """Return if the database is at the schema that this program works with.

    To be called at start. Raises `SchemaError`, which says what to do, and
    `StoreUnavailableError`.
    """
    _compare(await schema_version(dsn))


def _compare(found: str | None) -> None:
    wanted = latest()
    if found is None or found < wanted:
        state = "has no schema yet" if found is None else f"is at schema {found}"
        raise SchemaError(f"PostgreSQL {state}, {wanted} is needed: run pod-automation init")
    if found > wanted:
        raise _newer(found)


def _newer(found: str) -> SchemaError:
    return SchemaError(
        f"PostgreSQL is at schema {found}, this program knows {latest()} at most:"
        " install the version of pod-automation that made it, or a newer one"
    )


async def migrate(dsn: str) -> list[str]:
    """Bring the database to the latest schema; returns the numbers of the migrations applied.

    All of them or none: one transaction. Does nothing when there is nothing to do. Several at
    once take turns. Raises `SchemaError` when the database is newer than this program, and
    `StoreUnavailableError`.
    """
    # Here, since alembic and SQLAlchemy take a third of a second to load, and only `init` runs
    # migrations.
    from alembic import command
    from alembic.config import Config
    from alembic.runtime.migration import MigrationContext
    from sqlalchemy import Connection
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine
    from sqlalchemy.pool import NullPool

    applied: list[str] = []

    def upgrade(connection: Connection) -> None:
        server = connection.dialect.server_version_info or ()
        if server < OLDEST_SERVER:
            raise SchemaError(f"PostgreSQL {OLDEST_SERVER[0]} or newer is needed, not {server[0]}")
        connection.exec_driver_sql(f"select pg_advisory_xact_lock({LOCK})")
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        found = context.get_current_revision()
        if found is not None and found > latest():
            raise _newer(found)
        with as_file(files(__name__)) as folder:
            config = Config(attributes={"connection": connection, "applied": applied})
            config.set_main_option("script_location", str(folder).replace("%", "%%"))
            command.upgrade(config, "head")

    await check_address(dsn)
    # asyncpg reads the address itself: what works for the engine's pool works here.
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(dsn, timeout=CONNECT_TIMEOUT_S),
        poolclass=NullPool,
    )
    with translated():
        try:
            async with _turn(), engine.begin() as connection:
                await connection.run_sync(upgrade)
        except DBAPIError as error:
            # SQLAlchemy wraps the driver's error twice.
            raise (error.orig and error.orig.__cause__) or error from None
        finally:
            await engine.dispose()
    return applied
