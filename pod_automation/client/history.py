"""The history of an activity, told by its row and by what commands have changed of it."""

from datetime import datetime

import orjson

from pod_automation.client.results import ActivityHistory, Step
from scheduler.activity import Status
from scheduler.adapters.postgres_client import Change, Life
from schemas.topics import Topics

_WORDS = {
    "schedule": "scheduled",
    "dispatch": "made due at once",
    "reschedule": "rescheduled",
    "postpone": "postponed, being overdue",
    "expire": "expired, being overdue",
}
"""What commands do; all others cancel."""


def history(life: Life, topics: Topics) -> ActivityHistory:
    """All that happened, in order."""
    steps = [_planned(life, topics)]
    steps += [_changed(change, life, topics) for change in life.changes]
    steps += _failed(life)
    steps += _ended(life, topics)
    # What happened in one millisecond stays in the order of a life.
    steps.sort(key=lambda step: step.at)
    return ActivityHistory(
        activity_id=life.id,
        pod_id=life.pod_id,
        post_id=life.post_id,
        member_id=life.member_id,
        engagement_type=life.engagement_type,
        status=life.status,
        attempt=life.attempt,
        scheduled_for=life.scheduled_for,
        steps=tuple(steps),
    )


def _planned(life: Life, topics: Topics) -> Step:
    source = None
    if life.source_offset is not None:
        source = f"{topics.post_detected}/{life.source_partition}/{life.source_offset}"
    due = life.scheduled_for
    skipped = None
    if failures := _failures(life):
        due = _time(failures[0].get("due")) or due
    if life.changes and (life.changes[0].was_scheduled_for or life.changes[0].was == "pending"):
        due = life.changes[0].was_scheduled_for
    untouched = not life.changes and life.result_offset is None
    if life.status is Status.CANCELLED and untouched:
        skipped = life.last_error
    what = "inserted by an upstream system" if source is None else "planned"
    return Step(
        at=life.created_at,
        what=f"{what} and skipped" if skipped else what,
        scheduled_for=due,
        reason=skipped,
        source=source,
    )


def _changed(change: Change, life: Life, topics: Topics) -> Step:
    moved = change.became == change.was
    what = _WORDS.get(change.command or "", "rescheduled" if moved else change.became)
    if change.became == Status.CANCELLED:
        what = "cancelled"
    return Step(
        at=change.changed_at,
        what=what,
        attempt=life.attempt,
        scheduled_for=change.scheduled_for,
        by=change.actor,
        reason=change.reason,
        source=f"{topics.pod_commands}/{change.partition}/{change.command_offset}",
    )


def _failed(life: Life) -> list[Step]:
    return [
        Step(
            at=at,
            what="failed",
            attempt=int(failure.get("attempt", 1)),
            scheduled_for=_time(failure.get("due")),
            reason=failure.get("error") or None,
        )
        for failure in _failures(life)
        if (at := _time(failure.get("at")))
    ]


def _ended(life: Life, topics: Topics) -> list[Step]:
    steps = []
    result = None
    if life.result_offset is not None:
        result = f"{topics.engagement_executed}/{life.source_partition}/{life.result_offset}"
    if life.dispatched_at is not None:
        steps.append(
            Step(
                at=life.dispatched_at,
                what="sent to the executors",
                attempt=_sent_attempt(life),
            )
        )
    if life.status is Status.EXECUTED and life.executed_at is not None:
        steps.append(
            Step(at=life.executed_at, what="executed", attempt=life.attempt, source=result)
        )
    elif life.status is Status.RETRYING:
        steps.append(
            Step(
                at=life.updated_at,
                what="waits for another attempt",
                attempt=life.attempt,
                scheduled_for=life.scheduled_for,
                source=result,
            )
        )
    elif life.status is Status.FAILED:
        steps.append(
            Step(
                at=life.updated_at,
                what="given up",
                attempt=life.attempt,
                reason=life.last_error,
                source=result,
            )
        )
    elif life.status is Status.CANCELLED and result is not None:
        steps.append(
            Step(at=life.updated_at, what="cancelled", attempt=life.attempt, source=result)
        )
    return steps


def _sent_attempt(life: Life) -> int:
    """The attempt that `dispatched_at` is of."""
    return life.attempt - 1 if life.status is Status.RETRYING else life.attempt


def _failures(life: Life) -> list[dict[str, str]]:
    return orjson.loads(life.failures) if life.failures else []


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
