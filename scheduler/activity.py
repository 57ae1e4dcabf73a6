"""An activity: one member's like or comment on one post, and the statuses it passes through."""

from enum import StrEnum

from msgspec import Struct

from schemas.events import EngagementType


class Status(StrEnum):
    """Where an activity stands. For one attempt it only moves forward (docs/state-machine.md)."""

    PENDING = "pending"
    SCHEDULED = "scheduled"
    DISPATCHED = "dispatched"
    EXECUTED = "executed"
    FAILED = "failed"
    RETRYING = "retrying"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


# What waits in the wheel, and with what has been sent all that a rebuild must load.
UNFIRED = (Status.SCHEDULED, Status.RETRYING)
STANDING = (*UNFIRED, Status.DISPATCHED)
FINAL = (Status.EXECUTED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)


class PlannedActivity(Struct, frozen=True, gc=False):
    """A new activity as the planner made it; times in milliseconds UTC.

    `skipped` is why it is not to be carried out at all: it is `cancelled` from the beginning.
    """

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    scheduled_for_ms: int
    source_offset: int
    skipped: str | None = None


class PostPlan(Struct, frozen=True):
    """What a post already has: the planner adds to it and never moves it.

    `activity_ids` are all activities known for the post, of whatever status; `like_times_ms` the
    planned times of those likes that count for the cap (not cancelled, not expired), sorted.
    """

    activity_ids: frozenset[str] = frozenset()
    like_times_ms: tuple[int, ...] = ()


class ActivityRow(Struct, frozen=True, gc=False, kw_only=True):
    """An activity as the record has it; times in milliseconds UTC.

    `shard` is None for the row of an upstream system that nothing has been done with. `version`
    differs after every change of the row, by whomever. `result_offset` and `command_offset` name
    the record that changed it last; both None where neither a result nor a command did.
    `failures` is the history of its failed attempts, as JSON, empty where there is none.
    """

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: Status
    attempt: int = 1
    scheduled_for_ms: int | None = None
    shard: int | None = None
    result_offset: int | None = None
    command_offset: int | None = None
    failures: str = ""
    version: int = 0


class Standing(Struct, frozen=True, gc=False, kw_only=True):
    """Where an activity stands by the record, as far as the wheel is concerned; times in
    milliseconds UTC. `shard`, `command_offset` and `version` are as in `ActivityRow`.
    """

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: Status
    attempt: int = 1
    scheduled_for_ms: int | None = None
    dispatched_at_ms: int | None = None
    shard: int | None = None
    command_offset: int | None = None
    created_at_ms: int = 0
    version: int = 0


class RowChange(Struct, frozen=True, gc=False, kw_only=True):
    """What an input makes of a row: `row` as it was read, and what it is to become.

    `cause` is the offset of the input. What is None stays as it is. `counts` adds one to the
    member's engagements.
    """

    row: ActivityRow
    cause: int
    status: Status
    attempt: int
    scheduled_for_ms: int | None
    executed_at_ms: int | None = None
    last_error: str | None = None
    failures: str | None = None
    counts: bool = False


class Announcement(Struct, frozen=True, gc=False):
    """A status to be published on `engagement-status`; times in milliseconds UTC.

    `postponed`: the attempt had that status before, and waits until another time now.
    """

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: Status
    attempt: int
    scheduled_for_ms: int | None = None
    reason: str | None = None
    postponed: bool = False


class StatusChange(Struct, frozen=True, gc=False):
    """A status read from `engagement-status`, to be projected on the record."""

    activity_id: str
    status: Status
    attempt: int
    at_ms: int
