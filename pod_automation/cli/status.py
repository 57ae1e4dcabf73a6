"""`pod-automation status`: the whole engine at a glance."""

from typing import TYPE_CHECKING, Any

import typer

from pod_automation.cli.options import AsJson

if TYPE_CHECKING:
    from pod_automation.cli.overview import Overview
    from scheduler.settings import Settings


def status(json_output: AsJson = False) -> None:
    """The stores, the processes, every shard, the queue, and all activities by status.

    A shard's lag is how many records of its partitions of the three input topics are not applied
    yet; the columns before it are about post-detected alone, where Redis may be behind PostgreSQL
    for a moment. Held are timers that are overdue and wait for a worker to lay them out anew, or to
    give them up; they count among pending. Awaited are attempts that were sent and have no result
    yet. A wheel without a generation is about to be rebuilt, for which a dispatcher must run. Ends
    with 3 when a store is not reachable; the rest is shown.

    \b
    Examples:
      pod-automation status
      pod-automation status --json | jq '.shards[].lag'
    """
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.loop import run
    from pod_automation.cli.overview import look
    from pod_automation.cli.terminal import json_result, quiet_logs
    from scheduler.errors import StoreUnavailableError
    from scheduler.settings import load_settings

    settings = load_settings()
    quiet_logs()
    seen = run(look(settings))
    shards = _shards(settings, seen)
    if json_output:
        json_result(_as_json(seen, shards))
    else:
        _print(seen, shards)
    errors = [each.error for each in seen.stores.values() if each.error is not None]
    if any(isinstance(each, StoreUnavailableError) for each in errors):
        raise typer.Exit(ExitCode.STORE_AWAY)
    if errors:
        raise typer.Exit(ExitCode.NOT_READY)


def _shards(settings: "Settings", seen: "Overview") -> list[dict[str, Any]]:
    """Each shard's numbers, None where the store that has them is away."""
    from schemas.times import rfc3339

    topic = settings.topics.post_detected
    kafka, record = seen.kafka.value, seen.postgresql.value
    rows = []
    for shard in range(settings.partitions):
        wheel = seen.redis.value[shard] if seen.redis.value else None
        due_ms = wheel.next_due_ms if wheel else None
        lags = _lags(settings, seen, shard)
        rows.append(
            {
                "shard": shard,
                "generation": wheel.gen if wheel else None,
                "pending": wheel.pending if wheel else None,
                "due": wheel.due if wheel else None,
                "held": wheel.held if wheel else None,
                "in_flight": wheel.in_flight if wheel else None,
                "awaited": wheel.awaited if wheel else None,
                "next_due": None if due_ms is None else rfc3339(due_ms),
                "watermark_postgresql": record.watermarks[topic][shard] if record else None,
                "watermark_redis": wheel.watermarks.get(topic, -1) if wheel else None,
                "kafka_end": kafka.ends[topic][shard] if kafka else None,
                "lag": None if lags is None else sum(lags.values()),
                "lags": lags,
            }
        )
    return rows


def _lags(settings: "Settings", seen: "Overview", shard: int) -> dict[str, int] | None:
    """Records that are not applied yet, by input topic."""
    from pod_automation.cli.overview import inputs

    kafka, record = seen.kafka.value, seen.postgresql.value
    if kafka is None or record is None:
        return None
    return {
        topic: max(0, kafka.ends[topic][shard] - 1 - record.watermarks[topic][shard])
        for topic in inputs(settings)
    }


def _queue(seen: "Overview") -> dict[str, int] | None:
    """What is in the wheels; None where one is being rebuilt, as its part is not known."""
    wheels = seen.redis.value
    if not wheels or any(each.gen is None for each in wheels):
        return None
    waiting = sum(each.due for each in wheels)
    delayed = sum(each.pending for each in wheels) - waiting
    active = sum(each.in_flight + each.awaited for each in wheels)
    return {
        "waiting": waiting,
        "active": active,
        "delayed": delayed,
        "total": waiting + active + delayed,
    }


def _as_json(seen: "Overview", shards: list[dict[str, Any]]) -> dict[str, Any]:
    kafka, record = seen.kafka.value, seen.postgresql.value
    counts = record.activities if record else None
    return {
        "stores": {
            name: {"ok": each.error is None, "error": str(each.error) if each.error else None}
            for name, each in seen.stores.items()
        },
        "workers": kafka.workers if kafka else None,
        "dispatchers": kafka.dispatchers if kafka else None,
        "shards": shards,
        "queue": _queue(seen),
        "activities": counts and {name: getattr(counts, name) for name in counts.__struct_fields__},
    }


def _print(seen: "Overview", shards: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from pod_automation.cli.terminal import result, table

    for name, each in seen.stores.items():
        result(f"{name + ':':<12} {'ok' if each.error is None else f'ERROR {each.error}'}")
    kafka, record = seen.kafka.value, seen.postgresql.value
    if kafka:
        result(
            f"{'Processes:':<12} {_count(kafka.workers, 'worker')}, "
            f"{_count(kafka.dispatchers, 'dispatcher')}"
        )
    if record:
        counts = record.activities
        by_status = ", ".join(
            f"{getattr(counts, name):,} {name}"
            for name in counts.__struct_fields__
            if name != "total" and getattr(counts, name)
        )
        result(f"{'Activities:':<12} {counts.total:,}{': ' if by_status else ''}{by_status}")
    if queue := _queue(seen):
        in_queue = ", ".join(f"{number:,} {name}" for name, number in queue.items())
        result(f"{'Queue:':<12} {in_queue}")
    elif seen.redis.value:
        result(f"{'Queue:':<12} not known: wheels are to be rebuilt")
    if all(each.error for each in seen.stores.values()):
        return
    made = Table(box=None, header_style="bold")
    headings = ("shard", "pending", "due", "held", "in flight", "awaited", "next due", "generation")
    for heading in headings:
        made.add_column(heading, justify="left" if heading == "generation" else "right")
    for heading in ("at: PostgreSQL", "Redis", "Kafka", "lag"):
        made.add_column(heading, justify="right")
    redis = seen.redis.value is not None
    for row in shards:
        lost = "none: being built" if row["pending"] or row["awaited"] else "none: to be rebuilt"
        generation = (row["generation"] or lost)[:19] if redis else None
        made.add_row(
            str(row["shard"]),
            *(_text(row[name]) for name in ("pending", "due", "held", "in_flight", "awaited")),
            _text(row["next_due"]),
            _text(generation),
            *(_text(row[name]) for name in ("watermark_postgresql", "watermark_redis")),
            _text(None if row["kafka_end"] is None else row["kafka_end"] - 1),
            _text(row["lag"]),
        )
    table(made)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
