"""What a batch of inputs makes of the rows that it is about: one pass, in order, in memory."""

from collections import Counter
from collections.abc import Mapping

from msgspec import Struct

from scheduler.activity import STANDING, UNFIRED, ActivityRow, Announcement, RowChange, Status
from scheduler.controls import NO_VERDICT, Subject
from scheduler.ports import SourceRecord
from scheduler.timer import Timer


class Letter(Struct, frozen=True):
    """A dead letter to be sent once the record knows why; `history` is JSON, or empty."""

    record: SourceRecord
    reason: str
    history: str = ""


class Ledger:
    """Rows as they were read and as they have become, and what is to be told of it."""

    def __init__(self, rows: Mapping[str, ActivityRow]) -> None:
        self._read = rows
        self._rows = dict(rows)
        self._changes: dict[str, RowChange] = {}
        self.announcements: list[Announcement] = []
        self.letters: list[Letter] = []
        self.dropped: list[Timer] = []
        """Timers that the wheel must lose though their rows do not change."""
        self.ignored: Counter[str] = Counter()
        self.decided_by: int | None = None
        """The version of the orders that the changes depend on, if on any."""
        self.plans: dict[str, int] = {}
        """Of members with a daily cap for whom it plans: how many plans there were before."""
        self.pauses: dict[Subject, bool] = {}
        """Who is paused from now on, or is no longer."""
        self.verdict = NO_VERDICT
        """What changes beside the rows."""

    def row(self, activity_id: str) -> ActivityRow | None:
        """The row as it is after all changes so far."""
        return self._rows.get(activity_id)

    def change(
        self,
        after: ActivityRow,
        cause: int,
        announcement: Announcement | None = None,
        *,
        executed_at_ms: int | None = None,
        last_error: str | None = None,
    ) -> None:
        """The input at offset `cause` has made `after` of its row."""
        before = self._changes.get(after.activity_id)
        self._rows[after.activity_id] = after
        self._changes[after.activity_id] = RowChange(
            row=self._read[after.activity_id],
            cause=cause,
            status=after.status,
            attempt=after.attempt,
            scheduled_for_ms=after.scheduled_for_ms,
            executed_at_ms=executed_at_ms,
            last_error=before.last_error if before and last_error is None else last_error,
            failures=after.failures or None,
            counts=after.status is Status.EXECUTED,
        )
        if announcement is not None:
            self.announcements.append(announcement)

    @property
    def changes(self) -> list[RowChange]:
        """One for each row that has changed."""
        return list(self._changes.values())

    @property
    def changed(self) -> int:
        """How many rows have changed."""
        return len(self._changes)

    @property
    def added(self) -> list[Timer]:
        """Timers that the wheel must get."""
        return [
            timer
            for name in self._changes
            if self._rows[name].status in UNFIRED and (timer := timer_of(self._rows[name]))
        ]

    @property
    def removed(self) -> list[Timer]:
        """Timers that the wheel must lose, whether they wait or their result is awaited. One that
        is among `added` as well is moved (`Wheel.add`)."""
        changed = (self._read[name] for name in self._changes)
        return self.dropped + [
            timer for row in changed if row.status in STANDING and (timer := timer_of(row))
        ]


def timer_of(row: ActivityRow, attempt: int | None = None) -> Timer | None:
    """The timer of the row's attempt, or of another one; None for a row without a time."""
    if row.scheduled_for_ms is None:
        return None
    return Timer(
        row.activity_id,
        row.pod_id,
        row.post_id,
        row.member_id,
        row.engagement_type,
        row.attempt if attempt is None else attempt,
        row.scheduled_for_ms,
    )


def told(row: ActivityRow, reason: str | None = None, *, postponed: bool = False) -> Announcement:
    """The announcement of the status that the row is at."""
    return Announcement(
        row.activity_id,
        row.pod_id,
        row.post_id,
        row.member_id,
        row.engagement_type,
        row.status,
        row.attempt,
        row.scheduled_for_ms if row.status in UNFIRED else None,
        reason,
        postponed,
    )
