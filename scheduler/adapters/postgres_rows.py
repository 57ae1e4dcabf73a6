"""Rows of `pod_activities` as values."""

import asyncpg

from scheduler.activity import ActivityRow, Status


def activity_row(row: "asyncpg.Record") -> ActivityRow:
    """A row of a query that selects sql/row_columns.sql."""
    return ActivityRow(
        activity_id=row["id"],
        pod_id=row["pod_id"],
        post_id=row["post_id"],
        member_id=row["member_id"],
        engagement_type=row["engagement_type"],
        status=Status(row["status"]),
        attempt=row["attempt"],
        scheduled_for_ms=row["scheduled_for_ms"],
        shard=row["source_partition"],
        result_offset=row["result_offset"],
        command_offset=row["command_offset"],
        failures=row["failures"],
        version=row["version"],
    )
