"""Timers that the dispatcher finds and must not fire, as it reports them.

Like a deadline, an overdue timer is an input: the dispatcher only says what it has found, on
`pod-commands`, and the worker decides by the rows (`scheduler.catch_up`), in the order of the log.
"""

from collections.abc import Sequence

from scheduler.controls import OPTED_OUT
from scheduler.ports import Claim
from scheduler.timer import Timer
from schemas.events import MAX_COMMAND_ACTIVITIES, MAX_SHIFT_MS, PodCommand, WheelCursor
from schemas.ids import overdue_event_id
from schemas.times import moment


def reports(shard: int, claim: Claim) -> Sequence[PodCommand]:
    """The commands about the overdue timers of `claim`; their ids follow from the batch."""
    if not claim.overdue:
        return ()
    shift_ms = None if claim.shift_ms is None else min(max(claim.shift_ms, 0), MAX_SHIFT_MS)
    parts = range(0, len(claim.overdue), MAX_COMMAND_ACTIVITIES)
    return [
        PodCommand(
            event_id=overdue_event_id(shard, claim.nonce, number),
            command="expire" if shift_ms is None else "postpone",
            issued_at=moment(claim.now_ms),
            activity_ids=tuple(timer.activity_id for timer in timers),
            due_at=tuple(moment(timer.due_ms) for timer in timers),
            shift_ms=shift_ms,
        )
        for number, at in enumerate(parts)
        if (timers := claim.overdue[at : at + MAX_COMMAND_ACTIVITIES])
    ]


def leftovers(
    shard: int, timers: Sequence[Timer], at_ms: int, cursor: WheelCursor
) -> Sequence[PodCommand]:
    """The commands that cancel `timers`, which a wheel that was rebuilt at `cursor` has found of
    members who have opted out: they were on their way to be sent when that was applied, and have
    come back, since nobody had committed them."""
    return [
        PodCommand(
            event_id=overdue_event_id(shard, cursor.nonce, number),
            command="cancel",
            issued_at=moment(at_ms),
            activity_ids=tuple(
                timer.activity_id for timer in timers[at : at + MAX_COMMAND_ACTIVITIES]
            ),
            actor="dispatcher",
            reason=OPTED_OUT,
        )
        for number, at in enumerate(range(0, len(timers), MAX_COMMAND_ACTIVITIES))
    ]
