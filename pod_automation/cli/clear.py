"""`pod-automation clear`: cancel what waits."""

from typing import Annotated

import typer

from pod_automation.cli.options import Actor, AsJson, Reason


def clear(
    pod: Annotated[
        str | None, typer.Option(metavar="ID", help="Only this pod. Default: everything.")
    ] = None,
    reason: Reason = None,
    actor: Actor = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait.")
    ] = 60.0,
    json_output: AsJson = False,
) -> None:
    """Cancel all likes and comments that wait in the queue, of all pods or of one.

    They become cancelled in PostgreSQL and are announced as such: nothing disappears. They are not
    planned again, also if their post is published again. What is being sent at that moment is sent;
    rows that are still pending are left alone. Asks first, and needs --yes where nobody can answer.
    Ends with 1 when not every shard's worker has done it in time; it is done once one runs.

    \b
    Examples:
      pod-automation clear
      pod-automation clear --pod p1 --yes --json
    """
    from pod_automation.cli.asking import ask, confirm
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.terminal import error, json_result, result
    from pod_automation.client import NotAppliedError

    of = "all pods" if pod is None else f"pod {pod}"
    confirm(f"Cancel all that waits of {of}?", yes)
    try:
        count = ask(
            lambda pods: pods.clear_automation_jobs(pod_id=pod, reason=reason, wait_s=timeout_s),
            actor=actor,
        )
    except NotAppliedError as late:
        error(f"{late}: is a worker running?")
        raise typer.Exit(ExitCode.NO) from None
    if json_output:
        json_result({"cancelled": count, "pod_id": pod})
    else:
        result(f"cancelled {count:,} {'activity' if count == 1 else 'activities'} of {of}")
