"""The events on the wire, as frozen types.

Unknown fields are ignored, so that a newer producer does not break an older engine. Every time is
an aware datetime; `schemas.codec` reads and writes the bytes.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

MAX_ID_CHARS = 200
# An executor derives the id of its result from the activity's: an id and a suffix must fit.
MAX_EVENT_ID_CHARS = 256
MAX_MEMBERS = 10_000

# Control characters have no place in an id; PostgreSQL refuses NUL outright. The end is written as
# a look-ahead, since Python's $ lets one line feed pass.
_NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]+(?![\s\S])"

Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID_CHARS,
        pattern=_NO_CONTROLS,
        description="Opaque id, 1 to 200 characters without control characters.",
    ),
]
EventId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_EVENT_ID_CHARS,
        pattern=_NO_CONTROLS,
        description="Id of the event, the same in every copy of it; 1 to 256 characters without "
        "control characters.",
    ),
]
Instant = Annotated[
    datetime,
    Meta(tz=True, description="RFC 3339 with an offset, from 1970 to 2200; sent in UTC."),
]
Attempt = Annotated[int, Meta(ge=1, le=255, description="Counts from 1.")]
EngagementType = Literal["like", "comment"]
Outcome = Literal["executed", "failed"]
StatusName = Literal[
    "pending",
    "scheduled",
    "dispatched",
    "executed",
    "failed",
    "retrying",
    "cancelled",
    "expired",
]


class PostDetected(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member has posted: plan the pod's support for it. Sent by the upstream system."""

    event_id: EventId
    pod_id: Id
    post_id: Id
    member_ids: Annotated[tuple[Id, ...], Meta(max_length=MAX_MEMBERS)]
    detected_at: Instant
    author_id: Id | None = None
    engagement_types: Annotated[tuple[EngagementType, ...], Meta(max_length=16)] = (
        "like",
        "comment",
    )
    post_url: Annotated[str, Meta(max_length=4096)] | None = None


class ExecuteEngagement(Struct, frozen=True, kw_only=True):
    """An engagement is due: do it. Exactly once for a `read_committed` consumer."""

    event_id: str
    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    attempt: Attempt
    scheduled_for: Instant
    dispatched_at: Instant


class EngagementExecuted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an engagement. Sent by executors."""

    event_id: EventId
    activity_id: Id
    pod_id: Id
    post_id: Id
    member_id: Id
    engagement_type: EngagementType
    attempt: Attempt
    outcome: Outcome
    executed_at: Instant
    error: str | None = None
    retryable: bool = True


class EngagementStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An activity has changed its status.

    `dispatched` is exactly once for a `read_committed` consumer; all others are at least once,
    with an `event_id` that is the same for every copy.
    """

    event_id: str
    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    status: StatusName
    attempt: Attempt
    at: Instant
    reason: str | None = None
    scheduled_for: Instant | None = None


class WheelCursor(Struct, frozen=True, kw_only=True):
    """How far a shard's wheel has been fired: the last committed batch. Internal, compacted.

    `gen` names the life of the wheel, `seq` counts its batches over all lives, `nonce` tells two
    claims of the same `seq` apart.
    """

    seq: Annotated[int, Meta(ge=0)]
    nonce: str
    gen: str


Event = PostDetected | ExecuteEngagement | EngagementExecuted | EngagementStatus | WheelCursor
