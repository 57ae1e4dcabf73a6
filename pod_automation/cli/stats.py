"""`pod-automation stats`: one pod's activities."""

from typing import Annotated

import typer

from pod_automation.cli.options import AsJson


def stats(
    pod: Annotated[str, typer.Option(metavar="ID", help="The pod's id.")],
    json_output: AsJson = False,
) -> None:
    """How many activities of a pod are planned, fired, done, and how often any was tried again.

    The numbers come from PostgreSQL. A pod that nobody has heard of has none of everything.

    \b
    Example:
      pod-automation stats --pod p1
    """
    from rich.markup import escape
    from rich.table import Table

    from pod_automation.cli.asking import ask
    from pod_automation.cli.terminal import json_result, table
    from schemas.printable import printable

    fields = ask(lambda pods: pods.get_pod_engagement_stats(pod)).as_dict()
    if json_output:
        json_result({"pod_id": pod, **fields})
        return
    made = Table(
        title=escape(f"Pod {printable(pod)}"), box=None, title_justify="left", show_header=False
    )
    made.add_column()
    made.add_column(justify="right")
    for name, count in fields.items():
        made.add_row(name, f"{count:,}")
    table(made)
