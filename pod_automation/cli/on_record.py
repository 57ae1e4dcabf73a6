"""`pod-automation controls`, `history`, `audit`: what holds, what happened, and who asked."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from pod_automation.cli.options import AsJson, Member, Pod, Post, a_time

if TYPE_CHECKING:
    from pod_automation.client import ActivityHistory, PodAutomation

AT_ONCE = 500
"""Activities whose histories are read at once."""


def controls(json_output: AsJson = False) -> None:
    """List who is paused, who has opted out, quiet hours, policies of pods and daily caps: since
    when, by whom, and why.

    \b
    Example:
      pod-automation controls
    """
    from rich.markup import escape
    from rich.table import Table

    from pod_automation.cli.asking import ask
    from pod_automation.cli.terminal import json_result, result, table
    from schemas.printable import printable
    from schemas.times import millis, rfc3339

    found = ask(lambda pods: pods.get_controls())
    if json_output:
        json_result({"controls": [each.as_dict() for each in found]})
        return
    if not found:
        result("nobody is paused, nobody has opted out, and no pod has rules of its own")
        return
    made = Table(box=None)
    for name in ("what", "who", "how", "since", "by", "why"):
        made.add_column(name)
    for each in found:
        who = "everything" if each.scope == "all" else f"{each.scope} {printable(each.subject)}"
        made.add_row(
            each.kind.replace("_", " "),
            escape(who),
            escape(_value(each.value)),
            rfc3339(millis(each.issued_at)),
            escape(printable(each.actor or "")),
            escape(printable(each.reason or "")),
        )
    table(made)


def history(
    activity: Annotated[
        str | None, typer.Argument(metavar="ACTIVITY", help="The activity's id.")
    ] = None,
    post: Post = None,
    member: Member = None,
    pod: Pod = None,
    everything: Annotated[bool, typer.Option("--all", help="All that there is.")] = False,
    ndjson: Annotated[
        bool, typer.Option("--ndjson", help="Print each thing that happened as a line of JSON.")
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Tell all that happened to an activity, or to those of a post, a member or a pod.

    By which event it was planned, who moved or cancelled it and why, when it was sent, what came of
    each attempt; each with the place in Kafka where the input stands that caused it.

    \b
    Examples:
      pod-automation history 3f0e6f0a-6d3a-5f7e-9d54-1f6a1e0e5b0a
      pod-automation history --pod p1 --ndjson > history.ndjson
    """
    from pod_automation.cli.asking import ask
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.terminal import error, json_result, result
    from pod_automation.client import NotFoundError

    chosen = {
        f"{name}_id": value
        for name, value in (("post", post), ("member", member), ("pod", pod))
        if value is not None
    }
    if len(chosen) + everything + (activity is not None) != 1:
        raise typer.BadParameter("give an ACTIVITY, or one of --post, --member, --pod, --all")
    if json_output and (ndjson or activity is None):
        raise typer.BadParameter("--json is for one ACTIVITY; for several there is --ndjson")

    told_of = 0

    def tell(found: "ActivityHistory") -> None:
        nonlocal told_of
        told_of += 1
        if ndjson:
            about = found.as_dict()
            steps = about.pop("steps")
            for name in ("status", "attempt", "scheduled_for"):
                del about[name]
            for step in steps:
                json_result(about | step)
        elif json_output:
            json_result(found.as_dict())
        else:
            if told_of > 1:
                result("")
            _table(found)

    async def told(pods: "PodAutomation") -> None:
        if activity is not None:
            tell(await pods.get_activity_history(activity))
            return
        async for each in _histories(pods, chosen):
            tell(each)

    try:
        ask(told)
    except NotFoundError as missing:
        error(str(missing))
        raise typer.Exit(ExitCode.NO) from None


async def _histories(
    pods: "PodAutomation", chosen: Mapping[str, str]
) -> AsyncIterator["ActivityHistory"]:
    """Of what is chosen; of all pods, where nothing is."""
    if chosen:
        page = await pods.get_histories(**chosen, limit=AT_ONCE)
        while True:
            for each in page.histories:
                yield each
            if page.next is None:
                return
            page = await pods.get_histories(**chosen, limit=AT_ONCE, after=page.next)
    some = await pods.get_pods(limit=AT_ONCE)
    while True:
        for pod in some.pods:
            async for each in _histories(pods, {"pod_id": pod}):
                yield each
        if some.next is None:
            return
        some = await pods.get_pods(limit=AT_ONCE, after=some.next)


def _table(found: "ActivityHistory") -> None:
    from rich.markup import escape
    from rich.table import Table

    from pod_automation.cli.terminal import table
    from schemas.printable import printable
    from schemas.times import millis, rfc3339

    title = (
        f"{found.engagement_type} of member {printable(found.member_id)} on post"
        f" {printable(found.post_id)}, pod {printable(found.pod_id)}: {found.status}"
    )
    made = Table(title=escape(title), box=None, title_justify="left")
    for name in ("at", "what", "attempt", "due", "by", "why", "source"):
        made.add_column(name)
    for step in found.steps:
        due = step.scheduled_for
        made.add_row(
            rfc3339(millis(step.at)),
            step.what,
            str(step.attempt),
            "" if due is None else rfc3339(millis(due)),
            escape(printable(step.by or "")),
            escape(printable(step.reason or "")),
            step.source or "",
        )
    table(made)


def audit(
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=10_000, help="How many, at most.")
    ] = 100,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only what was applied since: RFC 3339."),
    ] = None,
    reports: Annotated[
        bool, typer.Option("--reports", help="Also what dispatchers ask for, about overdue timers.")
    ] = False,
    ndjson: Annotated[bool, typer.Option("--ndjson", help="Print one line of JSON each.")] = False,
    json_output: AsJson = False,
) -> None:
    """List the last commands that were applied: who asked for what, when and why, and what came of
    it.

    \b
    Examples:
      pod-automation audit --limit 20
      pod-automation audit --since 2026-11-01T00:00:00Z --ndjson > audit.ndjson
    """
    from rich.markup import escape
    from rich.table import Table

    from pod_automation.cli.asking import ask
    from pod_automation.cli.terminal import json_result, result, table
    from schemas.printable import printable
    from schemas.times import millis, rfc3339

    if json_output and ndjson:
        raise typer.BadParameter("--json prints all in one, --ndjson a line each: give one of them")
    start = None if since is None else a_time(since)
    found = ask(lambda pods: pods.get_audit(limit, since=start, reports=reports))
    if json_output:
        json_result({"commands": [each.as_dict() for each in found]})
        return
    if ndjson:
        for each in found:
            json_result(each.as_dict())
        return
    if not found:
        result("nobody has asked for anything")
        return
    made = Table(box=None)
    for name in ("applied", "command", "about", "by", "why", "came of it"):
        made.add_column(name)
    for each in found:
        about = each.scope if not each.subject else f"{each.scope} {printable(each.subject)}"
        numbers = [f"{n:,} {name.replace('_', ' ')}" for name, n in each.outcome.items() if n]
        came = [_value(each.value)] if each.value else []
        made.add_row(
            rfc3339(millis(each.applied_at)),
            each.command,
            escape(about),
            escape(printable(each.actor or "")),
            escape(printable(each.reason or "")),
            escape(", ".join([*came, *numbers])),
        )
    table(made)


COMMANDS: tuple[Callable[..., None], ...] = (controls, history, audit)


def _value(value: Mapping[str, str | float] | None) -> str:
    """Quiet hours, or what differs of a policy."""
    from schemas.printable import printable

    if not value:
        return ""
    if "zone" in value:
        return printable(f"{value['from']} to {value['until']}, {value['zone']}")
    return ", ".join(f"{name} {n}" for name, n in value.items())
