"""What becomes of an engagement."""

from scheduler.migrations.script import run

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """See 0002_outcome.up.sql."""
    run("0002_outcome")
