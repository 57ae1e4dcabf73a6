"""What operators ask for, and what came of it."""

from scheduler.migrations.script import run

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """See 0003_controls.up.sql."""
    run("0003_controls")
