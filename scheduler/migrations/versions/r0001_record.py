"""The record."""

from scheduler.migrations.script import run

revision = "0001"
down_revision = None


def upgrade() -> None:
    """See 0001_record.up.sql."""
    run("0001_record")
