"""Rows of `pod_activities` as values."""

import re

import asyncpg

from scheduler.activity import ActivityRow, Standing, Status

# Fast, as the dispatcher asks it for each timer that has fired. PostgreSQL would read more forms
# than this one, but only this one is ever written.
is_uuid = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}").fullmatch


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


def standing(row: "asyncpg.Record") -> Standing:
    """A row of a query that selects sql/standing_columns.sql."""
    return Standing(
        activity_id=row["id"],
        pod_id=row["pod_id"],
        post_id=row["post_id"],
        member_id=row["member_id"],
        engagement_type=row["engagement_type"],
        status=Status(row["status"]),
        attempt=row["attempt"],
        scheduled_for_ms=row["scheduled_for_ms"],
        dispatched_at_ms=row["dispatched_at_ms"],
        shard=row["source_partition"],
        command_offset=row["command_offset"],
        created_at_ms=row["created_at_ms"],
        version=row["version"],
    )
