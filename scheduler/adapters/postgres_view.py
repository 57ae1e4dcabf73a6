"""What the reconciler asks of the record, beside what the engine itself asks."""

from collections.abc import Mapping

from scheduler.activity import UNFIRED
from scheduler.adapters.postgres_errors import translated
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.ports import RecordCounts
from scheduler.sql import query


class PostgresView(PostgresRecord):
    """The `RecordView` port."""

    async def counts(self) -> RecordCounts:
        """See `RecordView.counts`."""
        with translated():
            async with (
                self._pool.acquire(timeout=self._timeout_s) as connection,
                # Two queries, one moment.
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                found = await connection.fetch(query("all_watermarks"))
                rows = await connection.fetch(query("standing_counts"), UNFIRED)
        watermarks: dict[int, dict[str, int]] = {}
        for row in found:
            watermarks.setdefault(row["partition"], {})[row["topic"]] = row["last_offset"]
        marks: Mapping[int, Mapping[str, int]] = watermarks
        return RecordCounts(
            {row["shard"]: row["waiting"] for row in rows},
            {row["shard"]: row["dispatched"] for row in rows},
            marks,
        )
