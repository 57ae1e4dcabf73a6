"""Who has sent dead letters again."""

from scheduler.migrations.script import run

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """See 0004_replays.up.sql."""
    run("0004_replays")
