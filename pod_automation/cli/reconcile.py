"""`pod-automation reconcile`: whether the stores agree, and what to do where they do not."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pod_automation.cli.options import AsJson

if TYPE_CHECKING:
    from scheduler.findings import ShardReport
    from scheduler.settings import Settings


def reconcile(
    shard: Annotated[
        list[int] | None, typer.Option(min=0, help="A shard's number; repeat it for more.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Have wheels rebuilt where that heals.")
    ] = False,
    first: Annotated[
        int, typer.Option(min=0, metavar="N", help="Differences of a shard shown one by one.")
    ] = 20,
    timeout_s: Annotated[
        float,
        typer.Option(
            "--timeout", min=0, metavar="SECONDS", help="How long a store may take to come up."
        ),
    ] = 30.0,
    json_output: AsJson = False,
) -> None:
    """Compare PostgreSQL, Redis and Kafka, shard by shard, while all goes on.

    Every row that waits or awaits its result is held against the wheel, and every timer against its
    row; the cursor, the watermarks and the acked offsets against each other. What does not agree
    counts only if it still does not at a second look, when each store has what the other had: work
    under way is no difference. Without --repair nothing is written.

    --repair has the wheels of shards that differ rebuilt, for which a dispatcher must run, and
    compares them again. It leaves alone a shard in which a rebuild would send or lose something.

    Ends with 0 if the stores agree, 5 if they differ, 1 if something could not be told in time.

    \b
    Examples:
      pod-automation reconcile
      pod-automation reconcile --shard 3 --repair
      pod-automation reconcile --json | jq '.shards[] | select(.agrees | not)'
    """
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import json_result, quiet_logs
    from scheduler.settings import load_settings

    settings = load_settings()
    quiet_logs()
    shards = sorted(set(shard or range(settings.partitions)))
    if shards[-1] >= settings.partitions:
        raise typer.BadParameter(
            f"there is no shard {shards[-1]}: they are 0 to {settings.partitions - 1}"
        )
    reports, repaired = run(_reconcile(settings, shards, repair, first, timeout_s))
    if json_output:
        json_result({"shards": [_as_json(each, each.shard in repaired) for each in reports]})
    else:
        _print(reports, repaired, repair)
    if not all(each.agrees for each in reports):
        raise typer.Exit(ExitCode.DIFFERENT)
    if any(each.undecided for each in reports):
        raise typer.Exit(ExitCode.NO)


async def _reconcile(
    settings: "Settings", shards: Sequence[int], repair: bool, first: int, timeout_s: float
) -> tuple[list["ShardReport"], list[int]]:
    """The reports in the end, and the shards that were rebuilt."""
    from pod_automation.cli.loop import answer
    from pod_automation.cli.rebuild import rebuilt_shards
    from pod_automation.cli.terminal import note
    from pod_automation.reconciling import reconciler
    from scheduler.adapters.kafka_topics import check_topics
    from scheduler.migrations import check_schema
    from scheduler.tasks import end_if_cancelled

    await answer("Kafka", check_topics(settings))
    await answer("PostgreSQL", check_schema(settings.postgres_dsn))
    reports: dict[int, ShardReport] = {}
    repaired: list[int] = []
    async with reconciler(settings, timeout_s=timeout_s, first=first) as looking:
        for shard in shards:
            reports[shard] = await looking.run_once(shard)
            end_if_cancelled()
        if repair:
            broken = [each.shard for each in reports.values() if each.heals and not each.blocked]
            if broken:
                repaired = sorted(await rebuilt_shards(settings, broken, timeout_s, note))
            for shard in repaired:
                reports[shard] = await looking.run_once(shard)
                end_if_cancelled()
    return list(reports.values()), repaired


def _as_json(report: "ShardReport", repaired: bool) -> dict[str, Any]:
    return {
        "shard": report.shard,
        "agrees": report.agrees,
        "repaired": repaired,
        "blocked": report.blocked,
        "rows": report.rows,
        "timers": report.timers,
        "awaited": report.awaited,
        "differences": dict(report.counts),
        "undecided": report.undecided,
        "first": [
            {
                "kind": each.kind,
                "activity_id": each.activity_id or None,
                "cause": each.cause,
                "todo": each.meaning.todo,
                "rebuild_heals": each.meaning.heals,
                "postgresql": each.record,
                "redis": each.wheel,
                "kafka": each.kafka,
            }
            for each in report.first
        ],
        "offsets": report.offsets,
    }


def _print(reports: Sequence["ShardReport"], repaired: Sequence[int], repair: bool) -> None:
    from rich.table import Table

    from pod_automation.cli.terminal import result, table
    from scheduler.difference import MEANINGS

    made = Table(box=None, header_style="bold")
    for heading in ("shard", "rows", "timers", "awaited"):
        made.add_column(heading, justify="right")
    made.add_column("differences")
    for each in reports:
        found = [f"{count:,} {kind}" for kind, count in each.counts.items()]
        found += [f"{sum(each.undecided.values()):,} undecided"] if each.undecided else []
        said = ", ".join(found) or "none"
        made.add_row(
            *(str(number) for number in (each.shard, each.rows, each.timers, each.awaited)),
            said + (" (rebuilt)" if each.shard in repaired else ""),
        )
    table(made)
    for each in reports:
        for kind, count in each.counts.items():
            meaning = MEANINGS[kind]
            some = [one for one in each.first if one.kind is kind]
            cause = some[0].cause if some and not some[0].activity_id else meaning.cause
            result(f"shard {each.shard}: {count:,} {kind}: {cause}.\n  To do: {meaning.todo}.")
            for one in some:
                if one.activity_id:
                    result(f"  {one.activity_id}{_said(one.record, one.wheel)}")
        for reason, count in each.undecided.items():
            result(f"shard {each.shard}: {count:,} undecided: {reason}")
        if repair and each.blocked and each.heals:
            result(f"shard {each.shard}: not rebuilt, since that would do harm; see above")


def _said(record: Any, wheel: Any) -> str:
    """What the two stores say of an activity, in a line."""
    parts = []
    if record:
        at = record["dispatched_at" if record["status"] == "dispatched" else "scheduled_for"]
        parts.append(f"PostgreSQL: {record['status']}, attempt {record['attempt']}, {at}")
    else:
        parts.append("PostgreSQL: no row")
    timer = wheel and wheel.get("timer")
    if timer:
        when = f"due {timer['due']}" if "due" in timer else f"awaited until {timer['deadline']}"
        parts.append(f"Redis: attempt {timer['attempt']}, {when}")
    elif wheel:
        until = f" until {wheel['deadline']}" if "deadline" in wheel else ""
        parts.append(f"Redis: {wheel['own_timer']}{until}")
    else:
        parts.append("Redis: nothing")
    return " · " + "; ".join(parts)
