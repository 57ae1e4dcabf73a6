"""`pod-automation plan`: when each member would engage, with nothing stored."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pod_automation.cli.options import AsJson, opened

if TYPE_CHECKING:
    from pod_automation.client.preview import PlanPreview

COLUMNS = 60
"""Of the timeline, where there is room."""
LEAST_COLUMNS = 20
MEMBERS = 40
"""Members that the timeline has a line for."""

MARKS = {"like": "L", "comment": "C"}
BOTH = "*"


def plan(
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="One event as JSON; - is standard input."),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no store: take the post for a new one."),
    ] = False,
    json_output: AsJson = False,
) -> None:
    """Show when each member would engage with a post, storing and sending nothing.

    Takes a post-detected event as `publish` does and plans it by the pacing that is set, as a
    worker would. What PostgreSQL has of the post counts: members that are planned are not planned
    again, and their likes count for the cap; with --offline the post is taken for a new one.

    Without --file, the event is read from standard input.

    \b
    Examples:
      pod-automation plan --file event.json
      pod-automation plan --file event.json --offline --json
    """
    from pod_automation.cli.asking import ask
    from pod_automation.cli.terminal import json_result

    value = _read(file)
    found = ask(lambda pods: pods.preview_plan(value, offline=offline))
    if json_output:
        json_result(found.as_dict())
    else:
        _show(found)


def _read(file: Path | None) -> bytes:
    from pod_automation.cli.event_lines import BOM, MAX_LINE_BYTES

    if file is None and sys.stdin.isatty():
        raise typer.BadParameter("give an event by --file, or pipe it in")
    with opened(file) as source:
        value = source.read(MAX_LINE_BYTES + 1)
    if len(value) > MAX_LINE_BYTES:
        raise typer.BadParameter(
            f"longer than {MAX_LINE_BYTES:,} bytes, which Kafka would not take"
        )
    return value.removeprefix(BOM)


def _show(found: "PlanPreview") -> None:
    from rich.markup import escape
    from rich.table import Table

    from pod_automation.cli.terminal import console, note, result, table
    from schemas.printable import printable
    from schemas.times import millis, rfc3339

    title = f"Post {printable(found.post_id)} of pod {printable(found.pod_id)}"
    if not found.engagements:
        had = f", all {found.already_planned:,} are planned" if found.already_planned else ""
        result(f"{title}: nothing to plan{had}")
        return
    result(f"{title}, detected {rfc3339(millis(found.detected_at))}")
    made, narrow = Table(box=None, pad_edge=False), Table(box=None, pad_edge=False)
    made.add_column("after", justify="right")
    for each in (made, narrow):
        for name in ("due", "what", "member"):
            each.add_column(name)
    for planned in found.engagements:
        row = (
            rfc3339(millis(planned.scheduled_for)),
            planned.engagement_type,
            escape(printable(planned.member_id)),
        )
        made.add_row(duration(planned.delay_ms), *row)
        narrow.add_row(*row)
    table(made, narrow)
    result("")
    for line in timeline(found, console().width):
        result(line)
    if found.already_planned:
        note(f"{found.already_planned:,} more are planned already, and stay as they are")


def timeline(found: "PlanPreview", width: int) -> list[str]:
    """A line for each member, from the detection of the post on: L is a like, C a comment. Of
    `width` columns, if it must."""
    from schemas.printable import printable

    members = dict.fromkeys(each.member_id for each in found.engagements)
    names = {member: printable(member)[:36] for member in list(members)[:MEMBERS]}
    before = max(map(len, names.values())) + 2
    columns = max(LEAST_COLUMNS, min(COLUMNS, width - before))
    lines: dict[str, list[str]] = {}
    until_ms = max(1, *(each.delay_ms for each in found.engagements))
    for each in found.engagements:
        marks = lines.setdefault(each.member_id, ["."] * columns)
        at = max(0, min(columns - 1, each.delay_ms * columns // until_ms))
        marks[at] = MARKS[each.engagement_type] if marks[at] == "." else BOTH
    end = duration(until_ms)
    drawn = [f"{'':{before}}0{end:>{columns - 1}}"]
    drawn += [f"{name:{before}}{''.join(lines[member])}" for member, name in names.items()]
    if len(lines) > len(names):
        drawn.append(f"and {len(lines) - len(names):,} members more")
    return drawn


def duration(ms: int) -> str:
    """As people say it: `5 min 30 s`, `2 h 05 min`."""
    sign, seconds = "-" if ms < 0 else "", abs(ms) // 1000
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{sign}{hours} h {minutes:02d} min"
    return f"{sign}{minutes} min {seconds:02d} s" if minutes else f"{sign}{seconds} s"
