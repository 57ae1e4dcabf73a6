"""The whole story of one activity, from all three stores, in the order in which it happened."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tests.torture.evidence import Evidence, Record
from tests.torture.verdict import Violation


def history(found: Evidence, activity: str) -> list[str]:
    """Its lines, oldest first; then the row, and the state of its shard."""
    row = next((row for row in found.rows if row["id"] == activity), None)
    lines = sorted(_of_kafka(found, activity, row))
    told = [f"  {_clock(at)} {what}" for at, what in lines]
    if row is None:
        return [*told, "  PostgreSQL: no row"]
    fields = (
        "status", "attempt", "scheduled_for", "dispatched_at", "executed_at", "created_at",
        "updated_at", "source_partition", "source_offset", "result_offset", "command_offset",
        "last_error",
    )  # fmt: skip
    told.append("  PostgreSQL: " + ", ".join(f"{name}={_short(row[name])}" for name in fields))
    shard = found.shards.get(row["source_partition"])
    if shard is not None:
        told.append(f"  Redis, shard {row['source_partition']}: {shard.meta}, left {shard.left}")
    return told


def tell(found: Evidence, violations: list[Violation], most: int = 5) -> list[str]:
    """The first few violations, each with its story."""
    lines: list[str] = []
    for violation in violations[:most]:
        lines.append(str(violation))
        if violation.activity is not None:
            lines += history(found, violation.activity)
    if len(violations) > most:
        lines.append(f"... and {len(violations) - most} more:")
        lines += [str(each) for each in violations[most : most + 30]]
    return lines


def _of_kafka(found: Evidence, activity: str, row: Any) -> Iterator[tuple[int, str]]:
    if row is not None:
        for record in found.posts:
            event = record.value or {}
            if event.get("post_id") == row["post_id"] and event.get("pod_id") == row["pod_id"]:
                yield (
                    record.timestamp_ms,
                    f"{_at(record)} {event['event_id']} {event['member_ids']}",
                )
    for record in found.executes:
        if (event := record.value or {}).get("activity_id") == activity:
            due, at = event["scheduled_for"], event["dispatched_at"]
            what = f"attempt {event['attempt']}, due {due}, claimed {at}"
            yield record.timestamp_ms, f"{_at(record)} {what}"
    for record in found.statuses:
        if (event := record.value or {}).get("activity_id") == activity:
            due = event.get("scheduled_for")
            what = f"{event['status']}, attempt {event['attempt']}" + (
                f", due {due}" if due else ""
            )
            yield record.timestamp_ms, f"{_at(record)} {what}"
    for record in found.results:
        if (event := record.value or {}).get("activity_id") == activity:
            what = f"{event['event_id'].removeprefix(activity)} {event.get('error', '')}"
            yield record.timestamp_ms, f"{_at(record)} {what}"
    for record in found.letters:
        if (record.value or {}).get("activity_id") == activity:
            yield record.timestamp_ms, f"{_at(record)} {record.headers.get('reason', b'')!r}"
    for record in found.cursors:
        if row is not None and record.partition == row["source_partition"] and record.value:
            near = record.value
            if _is_near(found, activity, record.timestamp_ms):
                yield record.timestamp_ms, f"{_at(record)} batch {near['seq']} of {near['gen'][:8]}"


def _is_near(found: Evidence, activity: str, at_ms: int) -> bool:
    times = [
        record.timestamp_ms
        for record in found.executes
        if (record.value or {}).get("activity_id") == activity
    ]
    return any(abs(at_ms - each) < 200 for each in times)


def _at(record: Record) -> str:
    return f"{record.topic}/{record.partition}/{record.offset}"


def _clock(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000).strftime("%H:%M:%S.%f")[:-3]  # noqa: DTZ006


def _short(value: Any) -> str:
    return value.strftime("%H:%M:%S.%f")[:-3] if isinstance(value, datetime) else str(value)
