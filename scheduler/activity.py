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


# In the wheel, or on its way there: what a rebuild must load.
UNFIRED = (Status.SCHEDULED, Status.RETRYING)
FINAL = (Status.EXECUTED, Status.FAILED, Status.CANCELLED, Status.EXPIRED)


class PlannedActivity(Struct, frozen=True, gc=False):
    """A new activity as the planner made it; times in milliseconds UTC."""

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    scheduled_for_ms: int
    source_offset: int


class PostPlan(Struct, frozen=True):
    """What a post already has: the planner adds to it and never moves it.

    `activity_ids` are all activities known for the post, of whatever status; `like_times_ms` the
    planned times of those likes that count for the cap (not cancelled, not expired), sorted.
    """

    activity_ids: frozenset[str] = frozenset()
    like_times_ms: tuple[int, ...] = ()


class StatusChange(Struct, frozen=True, gc=False):
    """A status read from `engagement-status`, to be projected on the record."""

    activity_id: str
    status: Status
    attempt: int
    at_ms: int
