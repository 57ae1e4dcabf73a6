"""That members were forgotten; drains as commands."""

from scheduler.migrations.script import run

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """See 0006_erasures.up.sql."""
    run("0006_erasures")
