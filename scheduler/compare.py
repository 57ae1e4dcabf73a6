"""Whether an activity's row and its timers agree: values in, a verdict out.

What is given must fit together; how that is got from stores that go on changing is the matter of
`scheduler.reconcile`.
"""

from collections.abc import Collection
from typing import Any

from msgspec import Struct

from scheduler.activity import STANDING, UNFIRED, Standing, Status
from scheduler.difference import Difference, Kind
from scheduler.ports import Placed, Sight
from scheduler.timer import Timer
from schemas.times import rfc3339

NOWHERE = Sight(waits=False, in_flight=False)


class Known(Struct, frozen=True):
    """What holds for all activities of one look.

    `sent` are the attempts, as (activity, attempt), that Kafka has as dispatched and the record
    does not know of yet; `reported` those whose result waits to be applied. `commands_at` is how
    far commands have been applied.
    """

    shard: int
    await_ms: int
    now_ms: int = 0
    commands_at: int = -1
    sent: Collection[tuple[str, int]] = frozenset()
    reported: Collection[tuple[str, int]] = frozenset()


def timer_for(row: Standing) -> Timer:
    """The timer of the row's attempt; one without a time is due in 1970, where none is."""
    return Timer(
        row.activity_id,
        row.pod_id,
        row.post_id,
        row.member_id,
        row.engagement_type,
        row.attempt,
        row.scheduled_for_ms or 0,
    )


def agrees(placed: Placed, row: Standing | None, shard: int) -> bool:
    """At first sight: whether a timer in the wheel is the one that its row calls for."""
    if row is None or row.shard != shard or row.attempt != placed.timer.attempt:
        return False
    if placed.fired:
        return row.status is Status.DISPATCHED and row.dispatched_at_ms is not None
    return row.status in UNFIRED and row.scheduled_for_ms == placed.timer.due_ms


def row_side(row: Standing, own: Sight, known: Known) -> Kind | None:
    """What is wrong with the wheel, seen from a row; None where nothing is.

    `own` is where `timer_for(row)` is.
    """
    if row.shard != known.shard:
        return None
    if row.status in UNFIRED:
        return _waiting(row, own, known)
    if row.status is Status.DISPATCHED:
        return _dispatched(row, own, known)
    return None


def _waiting(row: Standing, own: Sight, known: Known) -> Kind | None:
    if row.scheduled_for_ms is None:
        return Kind.ROW_WITHOUT_TIME
    # A claimed one is about to be sent; of one that was, the projection is about to tell the row.
    if own.waits or own.in_flight or (row.activity_id, row.attempt) in known.sent:
        return None
    return Kind.MISSING_TIMER if own.deadline_ms is None else Kind.SENT_BEFORE


def _dispatched(row: Standing, own: Sight, known: Known) -> Kind | None:
    if row.dispatched_at_ms is None:
        return Kind.ROW_WITHOUT_TIME
    if own.waits:
        return Kind.TIMER_OF_SENT_ROW
    if own.deadline_ms is not None:
        # From the settling on, which is after the dispatch; from the dispatch on after a rebuild.
        earliest, latest = row.dispatched_at_ms + known.await_ms, known.now_ms + known.await_ms
        return None if earliest <= own.deadline_ms <= latest else Kind.DEADLINE_ELSEWHERE
    if own.in_flight or (row.activity_id, row.attempt) in known.reported:
        return None
    return Kind.MISSING_DEADLINE


def timer_side(
    placed: Placed, row: Standing | None, own: Sight, seen: Sight, known: Known
) -> Kind | None:
    """What is wrong with the wheel, seen from a timer that was found in it; None where nothing is.

    `own` is where the row's own timer is (`NOWHERE` without a row), and `seen` where `placed` is
    by now. The timer that the row calls for is the matter of `row_side`.
    """
    timer = placed.timer
    if not (seen.deadline_ms is not None if placed.fired else seen.waits):
        return None
    if row is None or row.shard != known.shard:
        return Kind.DEADLINE_WITHOUT_ROW if placed.fired else Kind.TIMER_WITHOUT_ROW
    if _swept(row, known):
        return None
    if row.status not in STANDING:
        return Kind.DEADLINE_OF_OTHER_ROW if placed.fired else Kind.TIMER_OF_ENDED_ROW
    if placed.fired:
        return _awaited(timer, row, own, known)
    if row.attempt == timer.attempt and row.status is Status.DISPATCHED:
        return None  # row_side
    if row.attempt == timer.attempt and row.scheduled_for_ms in (None, timer.due_ms):
        return None  # row_side
    if own.waits:
        return Kind.TIMER_TWICE
    if row.attempt != timer.attempt:
        return Kind.OTHER_ATTEMPT
    # Claimed from where it belongs, so it is about to be sent; what is left here is seen again.
    return None if own.in_flight else Kind.TIMER_ELSEWHERE


def _swept(row: Standing, known: Known) -> bool:
    """Whether a sweep is at work on it: that changes rows before its watermark moves, and has the
    wheel let go of their timers, or move them, just after."""
    return row.command_offset is not None and row.command_offset > known.commands_at


def _awaited(timer: Timer, row: Standing, own: Sight, known: Known) -> Kind | None:
    if row.attempt == timer.attempt:
        # What is claimed leaves its slot before its result is awaited. All else is row_side's.
        return Kind.DEADLINE_OF_OTHER_ROW if row.status in UNFIRED and own.waits else None
    if row.attempt < timer.attempt:
        return None if (timer.activity_id, timer.attempt) in known.sent else Kind.SENT_BEFORE
    return Kind.DEADLINE_OF_OTHER_ROW


def told(
    kind: Kind,
    activity_id: str,
    row: Standing | None,
    own: Sight,
    placed: Placed | None,
) -> Difference:
    """The difference with what each store says of it."""
    wheel: dict[str, Any] = {}
    if row is not None and (own.waits or own.in_flight or own.deadline_ms is not None):
        wheel["own_timer"] = (
            "waits" if own.waits else "in flight" if own.in_flight else "sent, its result awaited"
        )
        if own.deadline_ms is not None:
            wheel["deadline"] = _when(own.deadline_ms)
    if placed is not None:
        timer = placed.timer
        wheel["timer"] = {
            "pod_id": timer.pod_id,
            "post_id": timer.post_id,
            "member_id": timer.member_id,
            "engagement_type": timer.engagement_type,
            "attempt": timer.attempt,
            "deadline" if placed.fired else "due": _when(timer.due_ms),
        }
    return Difference(kind, activity_id, record=_said(row), wheel=wheel or None)


def _said(row: Standing | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "pod_id": row.pod_id,
        "post_id": row.post_id,
        "member_id": row.member_id,
        "engagement_type": row.engagement_type,
        "status": row.status.value,
        "attempt": row.attempt,
        "scheduled_for": _when(row.scheduled_for_ms),
        "dispatched_at": _when(row.dispatched_at_ms),
        "shard": row.shard,
    }


def _when(at_ms: int | None) -> str | None:
    if at_ms is None:
        return None
    try:
        return rfc3339(at_ms)
    except (ValueError, OverflowError, OSError):
        return f"{at_ms} ms"
