"""`pod-automation schedule`: pending rows of a pod into the queue."""

from enum import StrEnum
from typing import Annotated

import typer

from pod_automation.cli.options import AsJson


class Kind(StrEnum):
    """Which rows."""

    LIKES = "likes"
    COMMENTS = "comments"


def schedule(
    kind: Annotated[Kind, typer.Argument(metavar="likes|comments", help="Which rows.")],
    pod: Annotated[str, typer.Option(metavar="ID", help="The pod's id.")],
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until a worker has planned them.")
    ] = True,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0.001, metavar="SECONDS", help="How long to wait.")
    ] = 10.0,
    json_output: AsJson = False,
) -> None:
    """Schedule what an upstream system has inserted for a pod: rows that are pending and due.

    They go to their shards in batches (of 20 likes, of 10 comments), where a worker plans them as
    it plans a new post; the cap on likes counts what is planned for the post already. To do it
    again does no harm: a row is planned once. Ends with 1 when no worker has planned them in time;
    the rows are sent then, and are planned once one runs.

    \b
    Examples:
      pod-automation schedule likes --pod p1
      pod-automation schedule comments --pod p1 --no-wait --json
    """
    from pod_automation.cli.asking import ask
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.terminal import error, json_result, result

    wait_s = timeout_s if wait else 0
    done = ask(
        lambda pods: (
            pods.schedule_like_jobs(pod, wait_s=wait_s)
            if kind is Kind.LIKES
            else pods.schedule_comment_jobs(pod, wait_s=wait_s)
        )
    )
    in_time = done.applied or not wait
    if json_output:
        json_result(done.as_dict())
    elif in_time:
        result(done.message)
    if not in_time:
        error(done.message)
        raise typer.Exit(ExitCode.NO)
