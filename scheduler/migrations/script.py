"""Runs a migration's SQL file inside the migration's transaction."""

from importlib.resources import files

from alembic import op


def run(name: str) -> None:
    """Execute sql/`name`.up.sql, which may hold any number of statements."""
    sql = files("scheduler.migrations").joinpath(f"sql/{name}.up.sql").read_text(encoding="utf-8")
    # Straight to the driver: SQLAlchemy prepares what it runs, and only one statement at a time
    # can be prepared. The transaction has begun, with the lock that migrate() takes.
    driver = op.get_bind().connection.dbapi_connection
    if driver is None:
        raise RuntimeError("migrations need a database, they cannot be printed")
    driver.run_async(lambda connection: connection.execute(sql))
