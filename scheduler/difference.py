"""Differences between the stores: which there are, what each means, and what heals it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from msgspec import Struct


class Kind(StrEnum):
    """What differs. The names are part of the contract: metrics and `--json` carry them."""

    # Rows against timers
    MISSING_TIMER = "missing_timer"
    TIMER_WITHOUT_ROW = "timer_without_row"
    TIMER_OF_ENDED_ROW = "timer_of_ended_row"
    TIMER_ELSEWHERE = "timer_elsewhere"
    OTHER_ATTEMPT = "other_attempt"
    TIMER_TWICE = "timer_twice"
    TIMER_OF_SENT_ROW = "timer_of_sent_row"
    NEVER_SENT = "never_sent"
    SENT_BEFORE = "sent_before"
    ROW_WITHOUT_TIME = "row_without_time"
    # Rows against awaited results
    MISSING_DEADLINE = "missing_deadline"
    DEADLINE_ELSEWHERE = "deadline_elsewhere"
    DEADLINE_WITHOUT_ROW = "deadline_without_row"
    DEADLINE_OF_OTHER_ROW = "deadline_of_other_row"
    # A shard as a whole
    NO_WHEEL = "no_wheel"
    NOT_FIRING = "not_firing"
    CURSOR = "cursor"
    WHEEL_BEHIND = "wheel_behind"
    WHEEL_AHEAD = "wheel_ahead"
    RECORD_AHEAD = "record_ahead"
    ACKED_AHEAD = "acked_ahead"
    PROJECTION_BEHIND = "projection_behind"
    PROJECTION_AHEAD = "projection_ahead"
    # The light look, which only counts
    WAITING = "waiting"
    AWAITED = "awaited"


class Meaning(Struct, frozen=True):
    """`cause` and `todo` in plain words. `heals`: a rebuild from PostgreSQL puts it right.
    `blocks`: a rebuild would send something twice, or lose it, so none may be ordered."""

    cause: str
    todo: str
    heals: bool = True
    blocks: bool = False


_REBUILD = "rebuild the shard (--repair)"
_DISPATCHER = "start a dispatcher, or read its log"
_WORKER = "start a worker, or read its log"

MEANINGS: Mapping[Kind, Meaning] = {
    Kind.MISSING_TIMER: Meaning("Redis has lost it", _REBUILD),
    Kind.TIMER_WITHOUT_ROW: Meaning(
        "it was put into Redis by hand, or its row was deleted by hand", _REBUILD
    ),
    Kind.TIMER_OF_ENDED_ROW: Meaning(
        "the row was changed by hand, or the wheel was built from an older record", _REBUILD
    ),
    Kind.TIMER_ELSEWHERE: Meaning(
        "the time was changed by hand, in the row or in Redis; the row counts", _REBUILD
    ),
    Kind.OTHER_ATTEMPT: Meaning(
        "the row was changed by hand, or the wheel was built from an older record", _REBUILD
    ),
    Kind.TIMER_TWICE: Meaning("it was put into Redis by hand a second time", _REBUILD),
    Kind.TIMER_OF_SENT_ROW: Meaning("Redis went back in time: it has been sent", _REBUILD),
    Kind.NEVER_SENT: Meaning(
        "the row was changed by hand to dispatched: nothing has been sent, and a rebuild would lose"
        " this attempt",
        "set its status back to 'scheduled', or to 'retrying' behind the first attempt",
        heals=False,
        blocks=True,
    ),
    Kind.SENT_BEFORE: Meaning(
        "the row was set back by hand, or PostgreSQL has lost what it had confirmed: this attempt"
        " has been sent, and a rebuild would send it again",
        "set its status to 'dispatched', with dispatched_at, or to what became of it",
        heals=False,
        blocks=True,
    ),
    Kind.ROW_WITHOUT_TIME: Meaning(
        "the row was changed by hand: it lacks the time that its status needs, and a rebuild would"
        " pass it over",
        "set scheduled_for, or dispatched_at where it was sent",
        heals=False,
        blocks=True,
    ),
    Kind.MISSING_DEADLINE: Meaning("Redis has lost it", _REBUILD),
    Kind.DEADLINE_ELSEWHERE: Meaning(
        "it was sent under another POD_AUTOMATION_RESULT_TIMEOUT_MS, or changed by hand", _REBUILD
    ),
    Kind.DEADLINE_WITHOUT_ROW: Meaning(
        "it was put into Redis by hand, or its row was deleted by hand", _REBUILD
    ),
    Kind.DEADLINE_OF_OTHER_ROW: Meaning(
        "the row was changed by hand, or Redis went back in time", _REBUILD
    ),
    Kind.NO_WHEEL: Meaning(
        "the wheel has no generation, and no dispatcher has rebuilt it", _DISPATCHER
    ),
    Kind.NOT_FIRING: Meaning(
        "what is due does not fire: no dispatcher owns the shard", _DISPATCHER, heals=False
    ),
    Kind.CURSOR: Meaning(
        "Redis went back in time, or was changed by hand: it is not at the batch that Kafka has"
        " committed last",
        _REBUILD,
    ),
    Kind.WHEEL_BEHIND: Meaning(
        "applied in PostgreSQL, not yet in Redis, and nobody is at it", f"{_WORKER}; or {_REBUILD}"
    ),
    Kind.WHEEL_AHEAD: Meaning(
        "PostgreSQL has lost what it had confirmed",
        f"{_REBUILD}, and set the offsets of the worker group back",
    ),
    Kind.RECORD_AHEAD: Meaning(
        "the topic was created anew, or has lost records",
        "delete its rows from ingested_offsets if it is meant to start anew",
        heals=False,
    ),
    Kind.ACKED_AHEAD: Meaning(
        "the worker group has passed records that PostgreSQL does not know: its offsets were set"
        " ahead, or PostgreSQL has lost what it had confirmed",
        "set the offsets of the worker group back to the watermark, while the topic keeps them",
        heals=False,
    ),
    Kind.PROJECTION_BEHIND: Meaning(
        "it has been sent, PostgreSQL does not know it yet, and nobody is at it", _DISPATCHER
    ),
    Kind.PROJECTION_AHEAD: Meaning(
        "engagement-status was created anew, or has lost records",
        "set last_offset to -1 for it in ingested_offsets",
        heals=False,
    ),
    Kind.WAITING: Meaning("rows that wait are not as many as timers", "reconcile the shard"),
    Kind.AWAITED: Meaning("rows dispatched are not as many as deadlines", "reconcile the shard"),
}


class Difference(Struct, frozen=True):
    """One difference, and what each store says of it.

    `activity_id` is empty for what concerns the shard as a whole. `record`, `wheel` and `kafka` are
    for people to read; times are RFC 3339.
    """

    kind: Kind
    activity_id: str = ""
    record: Mapping[str, Any] | None = None
    wheel: Mapping[str, Any] | None = None
    kafka: Mapping[str, Any] | None = None
    note: str = ""
    """More of its cause than its kind tells."""

    @property
    def meaning(self) -> Meaning:
        """What it means, and what heals it."""
        return MEANINGS[self.kind]

    @property
    def cause(self) -> str:
        """Its cause, in plain words."""
        return f"{self.meaning.cause}{': ' if self.note else ''}{self.note}"
