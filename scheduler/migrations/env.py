"""What alembic runs around the migrations; the connection comes from `migrate`."""

from collections.abc import Collection, Mapping
from typing import Any

from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo

from scheduler.migrations import VERSION_TABLE

applied: list[str] = context.config.attributes["applied"]


def note(
    ctx: MigrationContext, step: MigrationInfo, heads: Collection[Any], run_args: Mapping[str, Any]
) -> None:
    """Called by alembic after each migration, with these names."""
    applied.append(str(step.up_revision_id))


context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    on_version_apply=note,
)
with context.begin_transaction():
    context.run_migrations()
