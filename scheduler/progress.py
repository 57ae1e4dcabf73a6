"""Which status may replace which on the record, so that statuses never go back."""

from collections.abc import Iterable

from scheduler.activity import Status, StatusChange

BEFORE_DISPATCHED = (Status.PENDING, Status.SCHEDULED, Status.RETRYING)
"""What `dispatched` may replace, if the row's attempt is not a later one."""


def latest_dispatched(changes: Iterable[StatusChange]) -> list[StatusChange]:
    """The `dispatched` changes, of each activity only the one of its last attempt.

    Other statuses were written to the record before they were published, and need no projection.
    """
    latest: dict[str, StatusChange] = {}
    for change in changes:
        if change.status is not Status.DISPATCHED:
            continue
        known = latest.get(change.activity_id)
        if known is None or known.attempt < change.attempt:
            latest[change.activity_id] = change
    return list(latest.values())


def may_dispatch(status: Status, attempt: int, change: StatusChange) -> bool:
    """Whether `change`, a `dispatched`, applies to a row with this status and attempt."""
    return attempt <= change.attempt and status in BEFORE_DISPATCHED
