"""The record in memory: the twin of the one in PostgreSQL, for tests and for trying things out.

It keeps every promise of the port but durability, and passes the same contract tests.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import count
from typing import Literal
from uuid import UUID

import orjson

from scheduler.activity import (
    STANDING,
    UNFIRED,
    ActivityRow,
    Announcement,
    PlannedActivity,
    PostPlan,
    RowChange,
    Standing,
    Status,
    StatusChange,
)
from scheduler.controls import (
    NO_VERDICT,
    AppliedCommand,
    Control,
    Kind,
    Orders,
    Selection,
    Subject,
    Verdict,
)
from scheduler.errors import DataRefusedError
from scheduler.ledger import told
from scheduler.ports import NO_PLANS, RecordCounts
from scheduler.progress import latest_dispatched, may_date, may_dispatch
from scheduler.quiet_hours import QuietHours
from scheduler.stats import ActivityCounts
from scheduler.timer import Timer
from schemas.events import EngagementType
from schemas.ids import activity_id
from schemas.times import millis

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
    executed_at_ms: int | None = None
    last_error: str | None = None
    failures: str = ""
    result_offset: int | None = None
    command_offset: int | None = None
    updated_at_ms: int | None = field(default=None, compare=False)
    version: int = field(default=0, compare=False)

    @property
    def natural_key(self) -> tuple[str, str, str, str]:
        """What an activity is, whatever its id."""
        return self.post_id, self.member_id, self.engagement_type, self.pod_id

    @property
    def timer(self) -> Timer | None:
        """Its timer, if it belongs in the wheel."""
        if self.status not in UNFIRED or self.scheduled_for_ms is None:
            return None
        return _timer(self, self.scheduled_for_ms)


class MemorySnapshot:
    """The `Snapshot` port over values that no longer change."""

    def __init__(
        self,
        watermarks: Mapping[str, int],
        timers: Sequence[Timer],
        awaited: Sequence[Timer],
        rows: Sequence[ActivityRow],
        standings: Mapping[str, Standing],
        shard: int,
        controls: Collection[Control],
    ) -> None:
        self.watermarks = watermarks
        self.paused: Collection[Subject] = [
            each.subject for each in controls if each.kind == "paused"
        ]
        self.opted_out: Collection[str] = {
            each.subject.name for each in controls if each.kind == "opted_out"
        }
        self._timers = timers
        self._awaited = awaited
        self._rows = rows
        self._standings = standings
        self._shard = shard

    async def unfired(self, chunk: int) -> AsyncIterator[Sequence[Timer]]:
        """See `Snapshot.unfired`."""
        for at in range(0, len(self._timers), chunk):
            yield self._timers[at : at + chunk]

    async def awaited(self, chunk: int) -> AsyncIterator[Sequence[Timer]]:
        """See `Snapshot.awaited`."""
        for at in range(0, len(self._awaited), chunk):
            yield self._awaited[at : at + chunk]

    async def commanded(
        self, command_offset: int, chunk: int
    ) -> AsyncIterator[Sequence[ActivityRow]]:
        """See `Snapshot.commanded`."""
        found = [row for row in self._rows if row.command_offset == command_offset]
        for at in range(0, len(found), chunk):
            yield found[at : at + chunk]

    async def matching(
        self, selection: Selection, statuses: Collection[Status], chunk: int
    ) -> AsyncIterator[Sequence[str]]:
        """See `Snapshot.matching`."""
        of = "" if selection.scope == "all" else f"{selection.scope}_id"
        found = [
            row.activity_id
            for row in self._rows
            if row.status in statuses and (not of or getattr(row, of) == selection.name)
        ]
        for at in range(0, len(found), chunk):
            yield found[at : at + chunk]

    async def standing(self, chunk: int) -> AsyncIterator[Sequence[Standing]]:
        """See `Snapshot.standing`."""
        found = [
            each
            for each in self._standings.values()
            if each.shard == self._shard and each.status in STANDING
        ]
        for at in range(0, len(found), chunk):
            yield found[at : at + chunk]

    async def standings(self, activity_ids: Sequence[str]) -> Mapping[str, Standing]:
        """See `Snapshot.standings`."""
        found = ((each, self._standings.get(each)) for each in set(activity_ids))
        return {each: row for each, row in found if row is not None}


class MemoryRecord:
    """The `Record` port without a server. No method waits, so each is atomic."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}
        self._keys: set[tuple[str, str, str, str]] = set()
        self._watermarks: dict[tuple[str, int], int] = {}
        self._versions = count(1)
        self._engagements: Counter[str] = Counter()
        self._controls: dict[tuple[int, Kind, Subject], Control] = {}
        self._versions_of: dict[tuple[str, int], int] = {}
        self._wheels: dict[tuple[str, int], str] = {}
        self._were_due: dict[tuple[int, int, str], int | None] = {}
        self._plans: dict[str, int] = {}
        self._applied: dict[tuple[int, int], AppliedCommand] = {}

    @property
    def table(self) -> Mapping[str, Row]:
        """All rows by id."""
        return self._rows

    @property
    def controls(self) -> Mapping[tuple[int, Kind, Subject], Control]:
        """What lasts of the commands, by shard, kind and subject."""
        return self._controls

    @property
    def applied(self) -> Mapping[tuple[int, int], AppliedCommand]:
        """The commands that were applied, by shard and offset."""
        return self._applied

    @property
    def engagements(self) -> Mapping[str, int]:
        """Engagements carried out, by member."""
        return self._engagements

    def insert(self, row: Row) -> bool:
        """What an upstream system does; False when the row is there already."""
        if row.id in self._rows or row.natural_key in self._keys:
            return False
        self._put(row)
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
        *,
        decided_by: int | None = None,
        plans: Mapping[str, int] = NO_PLANS,
    ) -> frozenset[str] | None:
        """See `Record.apply_plan`."""
        if any(self._plans.get(name, 0) != count for name, count in plans.items()):
            return None
        for each in activities:
            _check(each)
        if not self._swap(topic, shard, expected, upto, decided_by):
            return None
        for name in plans:
            self._plans[name] = self._plans.get(name, 0) + 1
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
                    status=Status.CANCELLED if each.skipped else Status.SCHEDULED,
                    last_error=each.skipped,
                    scheduled_for_ms=each.scheduled_for_ms,
                    source_partition=shard,
                    source_offset=each.source_offset,
                )
            )
        }
        return frozenset(planned - inserted)

    async def reach_between(self, shard: int, after: int, upto: int, limit: int) -> int:
        """See `Record.reach_between`."""
        offsets = sorted(
            row.source_offset
            for row in self._rows.values()
            if row.source_partition == shard
            and row.source_offset is not None
            and after < row.source_offset <= upto
        )
        if len(offsets) <= limit:
            return upto
        # What stands behind the limit is not reached, unless it is the first.
        return max((each for each in offsets if each < offsets[limit]), default=offsets[0])

    async def unfired_between(self, shard: int, after: int, upto: int) -> Sequence[Timer]:
        """See `Record.unfired_between`. In the order of their offsets."""
        found = [
            (row.source_offset, timer.due_ms, timer)
            for row in self._rows.values()
            if row.source_partition == shard
            and row.source_offset is not None
            and after < row.source_offset <= upto
            and row.status is Status.SCHEDULED
            and (timer := row.timer)
        ]
        found.sort(key=lambda entry: entry[:2])
        return [timer for _, _, timer in found]

    async def skipped_between(self, shard: int, after: int, upto: int) -> Sequence[Announcement]:
        """See `Record.skipped_between`."""
        return [
            told(_read(row), row.last_error)
            for row in self._rows.values()
            if row.source_partition == shard
            and row.source_offset is not None
            and after < row.source_offset <= upto
            and row.status is Status.CANCELLED
            and row.result_offset is row.command_offset is None
        ]

    async def orders(
        self, topic: str, shard: int, member_ids: Collection[str], pod_ids: Collection[str] = ()
    ) -> Orders:
        """See `Record.orders`."""
        asked = {Subject("member", name) for name in member_ids}
        asked |= {Subject("pod", name) for name in pod_ids}
        return Orders.of(
            self._versions_of.get((topic, shard), -1),
            (
                (kind, subject, control.value)
                for (of, kind, subject), control in self._controls.items()
                if of == shard and subject in asked and control.active
            ),
            self._plans,
        )

    async def member_times(
        self, member_ids: Collection[str], from_ms: int
    ) -> Mapping[str, tuple[int, ...]]:
        """See `Record.member_times`."""
        found: dict[str, list[int]] = {name: [] for name in member_ids}
        left = (Status.PENDING, Status.CANCELLED, Status.EXPIRED)
        for row in self._rows.values():
            due_ms = row.scheduled_for_ms
            if row.member_id in found and row.status not in left and (due_ms or -1) >= from_ms:
                found[row.member_id].append(due_ms or 0)
        return {name: tuple(sorted(times)) for name, times in found.items()}

    async def rows(self, activity_ids: Sequence[str]) -> Mapping[str, ActivityRow]:
        """See `Record.rows`."""
        return {each: _read(self._rows[each]) for each in activity_ids if each in self._rows}

    async def change(
        self,
        topic: str,
        shard: int,
        expected: int,
        upto: int,
        changes: Sequence[RowChange],
        *,
        by: Literal["result", "command"],
        decided_by: int | None = None,
        plans: Mapping[str, int] = NO_PLANS,
        verdict: Verdict = NO_VERDICT,
        wheel_gen: str | None = None,
    ) -> Mapping[str, int] | None:
        """See `Record.change`."""
        for change in changes:
            row = self._rows.get(change.row.activity_id)
            if row is None or row.version != change.row.version:
                return None
            if "\0" in (change.last_error or ""):
                raise DataRefusedError("NUL in an error")
        if wheel_gen and self._wheels.get((topic, shard), wheel_gen) != wheel_gen:
            return None
        if any(self._plans.get(name, 0) != count for name, count in plans.items()):
            return None
        if not self._swap(topic, shard, expected, upto, decided_by):
            return None
        for name in plans:
            self._plans[name] = self._plans.get(name, 0) + 1
        for control in verdict.controls:
            self._controls[shard, control.kind, control.subject] = control
            if control.kind == "daily_cap" and control.active:
                self._plans.setdefault(control.subject.name, 0)
            for other in verdict.binding:
                self._versions_of[other, shard] = max(
                    control.command_offset, self._versions_of.get((other, shard), -1)
                )
        for applied in verdict.applied:
            self._applied.setdefault((shard, applied.command_offset), applied)
        for change in changes:
            row = self._rows[change.row.activity_id]
            due_ms, done_ms = change.scheduled_for_ms, change.executed_at_ms
            if by == "command":
                self._were_due.setdefault((shard, change.cause, row.id), row.scheduled_for_ms)
            self._put(
                replace(
                    row,
                    status=change.status,
                    attempt=change.attempt,
                    scheduled_for_ms=row.scheduled_for_ms if due_ms is None else due_ms,
                    executed_at_ms=row.executed_at_ms if done_ms is None else done_ms,
                    last_error=row.last_error if change.last_error is None else change.last_error,
                    failures=row.failures if change.failures is None else change.failures,
                    source_partition=shard
                    if row.source_partition is None
                    else row.source_partition,
                    result_offset=change.cause if by == "result" else None,
                    command_offset=change.cause if by == "command" else None,
                    updated_at_ms=_now_ms(),
                )
            )
            self._engagements[row.member_id] += change.counts
        return {
            other: at
            for (other, of), at in self._watermarks.items()
            if of == shard and other != topic
        }

    async def begin_wheel(
        self, topic: str, shard: int, gen: str, *, instead_of: str | None = None
    ) -> None:
        """See `Record.begin_wheel`."""
        if instead_of in (None, self._wheels.get((topic, shard))):
            self._wheels[topic, shard] = gen

    async def shards_of_posts(self, post_ids: Sequence[str]) -> Mapping[str, int]:
        """See `Record.shards_of_posts`."""
        found: dict[str, int] = {}
        for row in self._rows.values():
            if row.post_id in post_ids and row.source_partition is not None:
                shard = found.setdefault(row.post_id, row.source_partition)
                found[row.post_id] = min(shard, row.source_partition)
        return found

    async def quiet_before(
        self, shard: int, subject: Subject, command_offset: int
    ) -> QuietHours | None:
        """See `Record.quiet_before`."""
        about = (subject.scope, subject.name)
        found = [
            (offset, each.value)
            for (of, offset), each in self._applied.items()
            if of == shard and offset < command_offset and each.command == "quiet_hours"
            if (each.scope, each.name) == about
        ]
        value = max(found)[1] if found else None
        return None if value is None else QuietHours.of(value)

    async def count_commanded(self, shard: int, command_offset: int) -> int:
        """See `Record.count_commanded`."""
        rows = self._rows.values()
        return sum(
            row.command_offset == command_offset and row.source_partition == shard for row in rows
        )

    async def were_due(
        self, shard: int, command_offset: int, activity_ids: Collection[str]
    ) -> Mapping[str, int]:
        """See `Record.were_due`."""
        found = ((name, self._were_due.get((shard, command_offset, name))) for name in activity_ids)
        return {name: due_ms for name, due_ms in found if due_ms is not None}

    async def wheel_gen(self, topic: str, shard: int) -> str | None:
        """See `Record.wheel_gen`."""
        return self._wheels.get((topic, shard))

    async def project(
        self, topic: str, shard: int, expected: int, upto: int, changes: Sequence[StatusChange]
    ) -> bool:
        """See `Record.project`. Ids that nobody has heard of are passed over."""
        if not self._swap(topic, shard, expected, upto):
            return False
        for change in latest_dispatched(changes):
            row = self._rows.get(change.activity_id)
            if row is None:
                continue
            if may_date(row.status, row.attempt, change):
                if row.dispatched_at_ms != change.at_ms:
                    self._put(replace(row, dispatched_at_ms=change.at_ms))
            elif may_dispatch(row.status, row.attempt, change):
                self._put(
                    replace(
                        row,
                        status=Status.DISPATCHED,
                        dispatched_at_ms=change.at_ms,
                        attempt=change.attempt,
                    )
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
            [
                _timer(row, row.dispatched_at_ms)
                for row in self._rows.values()
                if row.source_partition == shard
                and row.status is Status.DISPATCHED
                and row.dispatched_at_ms is not None
            ],
            [_read(row) for row in self._rows.values() if row.source_partition == shard],
            {name: _standing(row) for name, row in self._rows.items()},
            shard,
            [each for (of, *_), each in self._controls.items() if of == shard and each.active],
        )

    async def counts(self) -> RecordCounts:
        """See `RecordView.counts`."""
        waiting, dispatched = Counter[int](), Counter[int]()
        for row in self._rows.values():
            if row.source_partition is not None:
                waiting[row.source_partition] += row.status in UNFIRED
                dispatched[row.source_partition] += row.status is Status.DISPATCHED
        watermarks: dict[int, dict[str, int]] = {}
        for (topic, shard), at in self._watermarks.items():
            watermarks.setdefault(shard, {})[topic] = at
        return RecordCounts(+waiting, +dispatched, watermarks)

    async def pod_stats(self, pod_id: str) -> ActivityCounts:
        """The activities of one pod."""
        rows = self._rows.values()
        return ActivityCounts.of(Counter(r.status.value for r in rows if r.pod_id == pod_id))

    async def overview(self) -> ActivityCounts:
        """All activities."""
        return ActivityCounts.of(Counter(row.status.value for row in self._rows.values()))

    def _put(self, row: Row) -> None:
        self._rows[row.id] = replace(row, version=next(self._versions))

    def _swap(
        self, topic: str, shard: int, expected: int, upto: int, decided_by: int | None = None
    ) -> bool:
        if self._watermarks.get((topic, shard), -1) != expected:
            return False
        if decided_by not in (None, self._versions_of.get((topic, shard), -1)):
            return False
        self._watermarks[topic, shard] = upto
        return True


def _timer(row: Row, due_ms: int) -> Timer:
    return Timer(
        row.id,
        row.pod_id,
        row.post_id,
        row.member_id,
        row.engagement_type,
        row.attempt,
        due_ms,
    )


def _read(row: Row) -> ActivityRow:
    return ActivityRow(
        activity_id=row.id,
        pod_id=row.pod_id,
        post_id=row.post_id,
        member_id=row.member_id,
        engagement_type=row.engagement_type,
        status=row.status,
        attempt=row.attempt,
        scheduled_for_ms=row.scheduled_for_ms,
        shard=row.source_partition,
        result_offset=row.result_offset,
        command_offset=row.command_offset,
        failures=row.failures,
        version=row.version,
    )


def _standing(row: Row) -> Standing:
    return Standing(
        activity_id=row.id,
        pod_id=row.pod_id,
        post_id=row.post_id,
        member_id=row.member_id,
        engagement_type=row.engagement_type,
        status=row.status,
        attempt=row.attempt,
        scheduled_for_ms=row.scheduled_for_ms,
        dispatched_at_ms=row.dispatched_at_ms,
        shard=row.source_partition,
        command_offset=row.command_offset,
        version=row.version,
    )


def _post_plan(rows: Sequence[Row]) -> PostPlan:
    ids = {row.id for row in rows}
    # Rows of an upstream system: the planner knows them under another id.
    ids |= {
        activity_id(row.pod_id, row.post_id, row.member_id, row.engagement_type)
        for row in rows
        if row.source_offset is None
    }
    likes = [
        row.scheduled_for_ms
        for row in rows
        if row.engagement_type == "like" and row.scheduled_for_ms is not None and _may_count(row)
    ]
    likes += [
        millis(datetime.fromisoformat(failure["due"]))
        for row in rows
        if row.engagement_type == "like" and row.failures
        for failure in orjson.loads(row.failures)
        if "due" in failure
    ]
    return PostPlan(frozenset(ids), tuple(sorted(likes)))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _may_count(row: Row) -> bool:
    """Whether the like was sent or will be, as far as is known."""
    if row.status is Status.CANCELLED:
        due_ms = row.scheduled_for_ms or 0
        waited = row.command_offset is not None or row.result_offset is not None
        was_due = waited and due_ms <= (row.updated_at_ms or _now_ms()) + 60_000
        return row.dispatched_at_ms is not None or was_due
    return row.status not in (Status.PENDING, Status.EXPIRED)


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
