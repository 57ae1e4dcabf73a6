"""`pod-automation status`: the whole engine at a glance."""

from typing import TYPE_CHECKING, Any

import typer

from pod_automation.cli.options import AsJson

if TYPE_CHECKING:
    from pod_automation.overview import Overview


def status(json_output: AsJson = False) -> None:
    """The stores, the processes, who is paused, every shard, the queue, and activities by status.

    Behind each dispatcher stand the shards that it has.

    A shard's lag is how many records of its partitions of the three input topics are not applied
    yet; the columns before it are about post-detected alone, where Redis may be behind PostgreSQL
    for a moment. Parked are timers that have fallen due since their pod or member was paused. Held
    are timers that are overdue and wait for a worker to lay them out anew, or to give them up; both
    count among pending. Awaited are attempts that were sent and have no result yet. A wheel without
    a generation is about to be rebuilt, for which a dispatcher must run. Ends with 3 when a store
    is not reachable; the rest is shown.

    \b
    Examples:
      pod-automation status
      pod-automation status --json | jq '.shards[].lag'
    """
    from pod_automation.cli.exit_codes import ExitCode
    from pod_automation.cli.loop import run
    from pod_automation.cli.terminal import json_result, quiet_logs
    from pod_automation.overview import look, shards, summary
    from scheduler.errors import SettingsError, StoreUnavailableError
    from scheduler.settings import load_settings

    settings = load_settings()
    quiet_logs()
    seen = run(look(settings))
    if json_output:
        json_result(summary(settings, seen))
    else:
        _print(seen, shards(settings, seen))
    errors = [each.error for each in seen.stores.values() if each.error is not None]
    if any(isinstance(each, StoreUnavailableError) for each in errors):
        raise typer.Exit(ExitCode.STORE_AWAY)
    if errors:
        wrong = all(isinstance(each, SettingsError) for each in errors)
        raise typer.Exit(ExitCode.USAGE if wrong else ExitCode.NOT_READY)


_PAUSED_SHOWN = 5
_NUMBERS = ("pending", "due", "parked", "held", "in_flight", "awaited")


def _print(seen: "Overview", shards: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from pod_automation.cli.terminal import result, table
    from pod_automation.overview import queue as queue_of
    from schemas.printable import printable

    for name, store in seen.stores.items():
        result(f"{name + ':':<12} {'ok' if store.error is None else f'ERROR {store.error}'}")
    kafka, record = seen.kafka.value, seen.postgresql.value
    if kafka:
        result(
            f"{'Processes:':<12} {_count(kafka.workers, 'worker')}, "
            f"{_count(kafka.dispatchers, 'dispatcher')}"
        )
        owned: dict[str, list[str]] = {}
        for shard, who in sorted(kafka.dispatcher_of.items()):
            owned.setdefault(who, []).append(str(shard))
        for who, numbers in owned.items():
            result(f"{'Dispatches:':<12} {printable(who)}: {' '.join(numbers)}")
    if record:
        for scope, subject in record.paused[:_PAUSED_SHOWN]:
            result(
                f"{'Paused:':<12} {printable(f'{scope} {subject}') if subject else 'everything'}"
            )
        if (more := len(record.paused) - _PAUSED_SHOWN) > 0:
            result(f"{'Paused:':<12} and {more} more: see `pod-automation controls`")
        counts = record.activities
        by_status = ", ".join(
            f"{getattr(counts, name):,} {name}"
            for name in counts.__struct_fields__
            if name != "total" and getattr(counts, name)
        )
        result(f"{'Activities:':<12} {counts.total:,}{': ' if by_status else ''}{by_status}")
    if queue := queue_of(seen):
        in_queue = ", ".join(f"{number:,} {name}" for name, number in queue.items())
        result(f"{'Queue:':<12} {in_queue}")
    elif seen.redis.value:
        result(f"{'Queue:':<12} not known: wheels are to be rebuilt")
    if all(each.error for each in seen.stores.values()):
        return
    # Beside each other, or below each other where the terminal is narrow.
    whole, timers, inputs = (Table(box=None, header_style="bold", pad_edge=False) for _ in range(3))
    for heading in ("shard", *(name.replace("_", " ") for name in _NUMBERS), "next due"):
        for each in (whole, timers):
            each.add_column(heading, justify="right")
    inputs.add_column("shard", justify="right")
    for each in (whole, inputs):
        each.add_column("generation")
        for heading in ("at: PostgreSQL", "Redis", "Kafka", "lag"):
            each.add_column(heading, justify="right")
    redis = seen.redis.value is not None
    for row in shards:
        lost = "none: being built" if row["pending"] or row["awaited"] else "none: to be rebuilt"
        waiting = [_text(row[name]) for name in ("shard", *_NUMBERS, "next_due")]
        applied = [
            _text((row["generation"] or lost)[:19] if redis else None),
            *(_text(row[name]) for name in ("watermark_postgresql", "watermark_redis")),
            _text(None if row["kafka_end"] is None else row["kafka_end"] - 1),
            _text(row["lag"]),
        ]
        whole.add_row(*waiting, *applied)
        timers.add_row(*waiting)
        inputs.add_row(waiting[0], *applied)
    table(whole, timers, inputs)


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"
