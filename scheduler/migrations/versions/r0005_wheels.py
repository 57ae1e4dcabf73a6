"""Which wheel a shard has."""

from scheduler.migrations.script import run

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """See 0005_wheels.up.sql."""
    run("0005_wheels")
