"""The record in memory: the twin of the one in PostgreSQL, for tests and for trying things out.

It keeps every promise of the port but durability, and passes the same contract tests.
"""

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from scheduler.activity import UNFIRED, PlannedActivity, PostPlan, Status, StatusChange
from scheduler.errors import DataRefusedError
from scheduler.progress import latest_dispatched, may_dispatch
from scheduler.stats import ActivityCounts
from scheduler.timer import Timer
from schemas.events import EngagementType
from schemas.ids import activity_id

# PostgreSQL has no NUL, and its adapter joins ids by the other.
_REFUSED = frozenset("\0\x1f")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of `pod_activities`; times in milliseconds UTC."""

    id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: Status = Status.PENDING
    scheduled_for_ms: int | None = None
    dispatched_at_ms: int | None = None
    attempt: int = 1
    source_partition: int | None = None
    source_offset: int | None = None

    @property
    def natural_key(self) -> tuple[str, str, str, str]:
        """What an activity is, whatever its id."""
        return self.post_id, self.member_id, self.engagement_type, self.pod_id

    @property
    def timer(self) -> Timer | None:
        """Its timer, if it belongs in the wheel."""
        if self.status not in UNFIRED or self.scheduled_for_ms is None:
            return None
        return Timer(
            self.id,
            self.pod_id,
            self.post_id,
            self.member_id,
            self.engagement_type,
            self.attempt,
            self.scheduled_for_ms,
        )


class MemorySnapshot:
    """The `Snapshot` port over values that no longer change."""

    def __init__(self, watermarks: Mapping[str, int], timers: Sequence[Timer]) -> None:
        self.watermarks = watermarks
        self._timers = timers

    async def unfired(self, chunk: int) -> AsyncIterator[Sequence[Timer]]:
        """See `Snapshot.unfired`."""
        for at in range(0, len(self._timers), chunk):
            yield self._timers[at : at + chunk]


class MemoryRecord:
    """The `Record` port without a server. No method waits, so each is atomic."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._keys: set[tuple[str, str, str, str]] = set()
        self._watermarks: dict[tuple[str, int], int] = {}

    @property
    def rows(self) -> Mapping[str, Row]:
        """All rows by id."""
        return self._rows

    def insert(self, row: Row) -> bool:
        """What an upstream system does; False when the row is there already."""
        if row.id in self._rows or row.natural_key in self._keys:
            return False
        self._rows[row.id] = row
        self._keys.add(row.natural_key)
        return True

    async def ping(self) -> None:
        """It is here."""

    async def close(self) -> None:
        """Nothing to close."""

    async def watermark(self, topic: str, shard: int) -> int:
        """See `Record.watermark`."""
        return self._watermarks.get((topic, shard), -1)

    async def plans(self, post_ids: Sequence[str]) -> Mapping[str, PostPlan]:
        """See `Record.plans`."""
        wanted = set(post_ids)
        found: dict[str, list[Row]] = {}
        for row in self._rows.values():
            if row.post_id in wanted:
                found.setdefault(row.post_id, []).append(row)
        return {post_id: _post_plan(rows) for post_id, rows in found.items()}

    async def apply_plan(
        self,
        topic: str,
        shard: int,
        expected: int,
        upto: int,
        activities: Sequence[PlannedActivity],
    ) -> frozenset[str] | None:
        """See `Record.apply_plan`."""
        for each in activities:
            _check(each)
        if not self._swap(topic, shard, expected, upto):
            return None
        planned = {each.activity_id for each in activities}
        inserted = {
            each.activity_id
            for each in activities
            if self.insert(
                Row(
                    id=each.activity_id,
                    pod_id=each.pod_id,
                    post_id=each.post_id,
                    member_id=each.member_id,
                    engagement_type=each.engagement_type,
                    status=Status.SCHEDULED,
                    scheduled_for_ms=each.scheduled_for_ms,
                    source_partition=shard,
                    source_offset=each.source_offset,
                )
            )
        }
        return frozenset(planned - inserted)

    async def unfired_between(self, shard: int, after: int, upto: int) -> Sequence[Timer]:
        """See `Record.unfired_between`. In the order of their offsets."""
        found = [
            (row.source_offset, timer.due_ms, timer)
            for row in self._rows.values()
            if row.source_partition == shard
            and row.source_offset is not None
            and after < row.source_offset <= upto
            and (timer := row.timer)
        ]
        found.sort(key=lambda entry: entry[:2])
        return [timer for _, _, timer in found]

    async def project(
        self, topic: str, shard: int, expected: int, upto: int, changes: Sequence[StatusChange]
    ) -> bool:
        """See `Record.project`. Ids that nobody has heard of are passed over."""
        if not self._swap(topic, shard, expected, upto):
            return False
        for change in latest_dispatched(changes):
            row = self._rows.get(change.activity_id)
            if row is not None and may_dispatch(row.status, row.attempt, change):
                self._rows[row.id] = replace(
                    row,
                    status=Status.DISPATCHED,
                    dispatched_at_ms=change.at_ms,
                    attempt=change.attempt,
                )
        return True

    @asynccontextmanager
    async def snapshot(self, shard: int) -> AsyncIterator[MemorySnapshot]:
        """See `Record.snapshot`."""
        yield MemorySnapshot(
            {topic: at for (topic, of), at in self._watermarks.items() if of == shard},
            [
                timer
                for row in self._rows.values()
                if row.source_partition == shard and (timer := row.timer)
            ],
        )

    async def pod_stats(self, pod_id: str) -> ActivityCounts:
        """The activities of one pod."""
        rows = self._rows.values()
        return ActivityCounts.of(Counter(r.status.value for r in rows if r.pod_id == pod_id))

    async def overview(self) -> ActivityCounts:
        """All activities."""
        return ActivityCounts.of(Counter(row.status.value for row in self._rows.values()))

    def _swap(self, topic: str, shard: int, expected: int, upto: int) -> bool:
        if self._watermarks.get((topic, shard), -1) != expected:
            return False
        self._watermarks[topic, shard] = upto
        return True


def _post_plan(rows: Sequence[Row]) -> PostPlan:
    ids = {row.id for row in rows}
    # Rows of an upstream system: the planner knows them under another id.
    ids |= {
        activity_id(row.pod_id, row.post_id, row.member_id, row.engagement_type)
        for row in rows
        if row.source_partition is None
    }
    likes = sorted(
        row.scheduled_for_ms
        for row in rows
        if row.engagement_type == "like"
        and row.scheduled_for_ms is not None
        and row.status not in (Status.CANCELLED, Status.EXPIRED)
    )
    return PostPlan(frozenset(ids), tuple(likes))


def _check(activity: PlannedActivity) -> None:
    """Refuse what PostgreSQL refuses."""
    try:
        UUID(activity.activity_id)
        for text in (activity.pod_id, activity.post_id, activity.member_id):
            if not _REFUSED.isdisjoint(text.encode().decode()):
                raise DataRefusedError("a control character in an id")
    except ValueError as error:
        raise DataRefusedError(str(error)) from None
    if activity.engagement_type not in ("like", "comment"):
        raise DataRefusedError(f"{activity.engagement_type!r} is not an engagement type")
