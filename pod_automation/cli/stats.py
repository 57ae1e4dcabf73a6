"""`pod-automation stats`: one pod's activities."""

from typing import TYPE_CHECKING, Annotated

import typer

from pod_automation.cli.options import AsJson

if TYPE_CHECKING:
    from scheduler.stats import ActivityCounts


def stats(
    pod: Annotated[str, typer.Option(metavar="ID", help="The pod's id.")],
    json_output: AsJson = False,
) -> None:
    """How many activities of a pod are planned, fired, done.

    The numbers come from PostgreSQL. A pod that nobody has heard of has none of everything.

    \b
    Example:
      pod-automation stats --pod p1
    """
    from rich.table import Table

    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import json_result, quiet_logs, table
    from scheduler.settings import load_settings

    settings = load_settings()
    quiet_logs()
    counts = run(_counts(settings.postgres_dsn, pod))
    fields = {name: getattr(counts, name) for name in counts.__struct_fields__}
    if json_output:
        json_result({"pod_id": pod, **fields})
        return
    made = Table(title=f"Pod {pod}", box=None, title_justify="left", show_header=False)
    for name, count in fields.items():
        made.add_row(name, f"{count:,}")
    table(made)


async def _counts(dsn: str, pod: str) -> "ActivityCounts":
    from scheduler.adapters.postgres_record import PostgresRecord
    from scheduler.migrations import check_schema

    await check_schema(dsn)
    record = await PostgresRecord.connect(dsn)
    try:
        return await record.pod_stats(pod)
    finally:
        await record.close()
