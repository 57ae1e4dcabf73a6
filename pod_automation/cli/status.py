"""`pod-automation status`: the whole engine at a glance."""

from typing import TYPE_CHECKING, Any

import typer

from pod_automation.cli.options import AsJson

if TYPE_CHECKING:
    from pod_automation.cli.overview import Overview
    from scheduler.settings import Settings


def status(json_output: AsJson = False) -> None:
    """The stores, the processes, every shard, and all activities by status.

    A shard's lag is how many post-detected records of its partition are not applied yet; Redis may
    be behind PostgreSQL for a moment. A wheel without a generation is about to be rebuilt, for
    which a dispatcher must run. Ends with 3 when a store is not reachable; the rest is shown.

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
    rows = []
    for shard in range(settings.partitions):
        wheel = seen.redis.value[shard] if seen.redis.value else None
        end = seen.kafka.value.ends[shard] if seen.kafka.value else None
        record_at = seen.postgresql.value.watermarks[shard] if seen.postgresql.value else None
        due_ms = wheel.next_due_ms if wheel else None
        rows.append(
            {
                "shard": shard,
                "generation": wheel.gen if wheel else None,
                "pending": wheel.pending if wheel else None,
                "in_flight": wheel.in_flight if wheel else None,
                "next_due": None if due_ms is None else rfc3339(due_ms),
                "watermark_postgresql": record_at,
                "watermark_redis": wheel.watermarks.get(topic, -1) if wheel else None,
                "kafka_end": end,
                "lag": None if end is None or record_at is None else max(0, end - 1 - record_at),
            }
        )
    return rows


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
    if all(each.error for each in seen.stores.values()):
        return
    made = Table(box=None, header_style="bold")
    for heading in ("shard", "pending", "in flight", "next due", "generation"):
        made.add_column(heading, justify="left" if heading == "generation" else "right")
    for heading in ("at: PostgreSQL", "Redis", "Kafka", "lag"):
        made.add_column(heading, justify="right")
    redis = seen.redis.value is not None
    for row in shards:
        generation = (row["generation"] or "none: to be rebuilt")[:19] if redis else None
        made.add_row(
            str(row["shard"]),
            *(_text(row[name]) for name in ("pending", "in_flight", "next_due")),
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
