"""Which status may replace which on the record, so that statuses never go back."""

from collections.abc import Iterable

from scheduler.activity import FINAL, Status, StatusChange
from schemas.times import EARLIEST_MS, LATEST_MS

MAX_ATTEMPT = 255
"""As in the contract (schemas.events.Attempt), the schema and the packed timer."""

BEFORE_DISPATCHED = (Status.PENDING, Status.SCHEDULED, Status.RETRYING)
"""What `dispatched` may replace, if the row's attempt is not a later one."""


def latest_dispatched(changes: Iterable[StatusChange]) -> list[StatusChange]:
    """The `dispatched` changes, of each activity only the one of its last attempt, by id.

    In that order the rows are locked, as by all who change several: none waits for another in turn.

    Other statuses were written to the record before they were published, and need no projection.
    What no row could hold is left out, since refusing it would hold up the shard for ever.
    """
    latest: dict[str, StatusChange] = {}
    for change in changes:
        if change.status is not Status.DISPATCHED or not (
            1 <= change.attempt <= MAX_ATTEMPT and EARLIEST_MS <= change.at_ms <= LATEST_MS
        ):
            continue
        known = latest.get(change.activity_id)
        if known is None or known.attempt < change.attempt:
            latest[change.activity_id] = change
    return sorted(latest.values(), key=lambda change: change.activity_id)


def may_dispatch(status: Status, attempt: int, change: StatusChange) -> bool:
    """Whether `change`, a `dispatched`, applies to a row with this status and attempt."""
    return attempt <= change.attempt and status in BEFORE_DISPATCHED


def may_date(status: Status, attempt: int, change: StatusChange) -> bool:
    """Whether `change` only tells when a row that is further on was dispatched.

    The result of an attempt may overtake the projection of its dispatch.
    """
    return attempt == change.attempt and status in FINAL
