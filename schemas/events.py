"""The events on the wire, as frozen types.

Unknown fields are ignored, so that a newer producer does not break an older engine. Every time is
an aware datetime; `schemas.codec` reads and writes the bytes.
"""

import re
from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

MAX_ID_CHARS = 200
# An executor derives the id of its result from the activity's: an id and a suffix must fit.
MAX_EVENT_ID_CHARS = 256
MAX_MEMBERS = 10_000
MAX_COMMAND_ACTIVITIES = 1_000
MAX_RETRY_AFTER_MS = 7 * 24 * 3_600_000
# Far from where Lua, which counts batches too, can no longer tell two numbers apart (2^53).
MAX_SEQ = 2**52
MAX_SHIFT_MS = 366 * 24 * 3_600_000

# Control characters have no place in an id; PostgreSQL refuses NUL outright. The end is written as
# a look-ahead, since Python's $ lets one line feed pass.
_NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f]+(?![\s\S])"

Id = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_ID_CHARS,
        pattern=_NO_CONTROLS,
        description="An opaque id: 1 to 200 characters, none of them a control character.",
    ),
]


def is_id(text: str) -> bool:
    """Whether `text` is an `Id`."""
    return 0 < len(text) <= MAX_ID_CHARS and re.match(_NO_CONTROLS, text) is not None


EventId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=MAX_EVENT_ID_CHARS,
        pattern=_NO_CONTROLS,
        description="The same in every copy of the event: 1 to 256 characters, none of them a "
        "control character.",
    ),
]
Instant = Annotated[
    datetime,
    Meta(tz=True, description="RFC 3339 with an offset, from 1970 to 2200; sent in UTC."),
]
EngagementType = Literal["like", "comment"]
Outcome = Literal["executed", "failed"]
CommandName = Literal[
    "schedule",
    "dispatch",
    "cancel",
    "reschedule",
    "pause",
    "resume",
    "opt_out",
    "opt_in",
    "quiet_hours",
    "policy",
    "daily_cap",
    "drain",
    "undrain",
    "postpone",
    "expire",
]
_CLOCK = r"^([01][0-9]|2[0-3]):[0-5][0-9](?![\s\S])"
ClockTime = Annotated[str, Meta(pattern=_CLOCK)]


def is_clock_time(text: str) -> bool:
    """Whether `text` is a `ClockTime`."""
    return re.match(_CLOCK, text) is not None


DelayMs = Annotated[int, Meta(ge=0, le=MAX_SHIFT_MS)]
Jitter = Annotated[float, Meta(ge=0, lt=1)]
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
Attempt = Annotated[
    int, Meta(ge=1, le=255, description="Which try of the activity this is, from 1.")
]

# What the fields mean, for the generated documents. What we send ourselves is read as plain text:
# a row that an upstream system inserted may have an id that we would not accept on the wire.
_EVENT = Meta(description="The same in every copy of the event; derived from what it is about.")
_ACTIVITY = Meta(
    description="UUIDv5 of (pod, post, member, type), or the id of a row that an upstream system "
    "inserted."
)
_POD = Meta(description="The pod: a group of members who support each other's posts.")
_POST = Meta(description="The post; also the key of the record.")
_MEMBER = Meta(description="The member who engages.")
_TYPE = Meta(description="What the member does with the post.")


class PostDetected(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member has posted: plan the pod's support for it. Sent by the upstream system."""

    event_id: EventId
    pod_id: Annotated[Id, _POD]
    post_id: Annotated[Id, _POST]
    member_ids: Annotated[
        tuple[Id, ...],
        Meta(
            max_length=MAX_MEMBERS,
            description="Who is to engage, in this order; each counts once, the author never.",
        ),
    ]
    detected_at: Annotated[Instant, Meta(description="When the post was seen: delays start here.")]
    author_id: Annotated[Id | None, Meta(description="Who posted; never planned for.")] = None
    engagement_types: Annotated[
        tuple[EngagementType, ...],
        Meta(max_length=16, description="What each member is to do."),
    ] = ("like", "comment")
    post_url: Annotated[
        Annotated[str, Meta(max_length=4096)] | None,
        Meta(description="Where the post is; carried for the reader, the engine does not use it."),
    ] = None


class ExecuteEngagement(Struct, frozen=True, kw_only=True):
    """An engagement is due: do it. Exactly once for a `read_committed` consumer."""

    event_id: Annotated[str, _EVENT]
    activity_id: Annotated[str, _ACTIVITY]
    pod_id: Annotated[str, _POD]
    post_id: Annotated[str, _POST]
    member_id: Annotated[str, _MEMBER]
    engagement_type: Annotated[EngagementType, _TYPE]
    attempt: Attempt
    scheduled_for: Annotated[Instant, Meta(description="When it was due; never after it was sent.")]
    dispatched_at: Annotated[Instant, Meta(description="When it was sent.")]


class EngagementExecuted(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of an engagement. Sent by executors."""

    event_id: EventId
    activity_id: Annotated[Id, _ACTIVITY]
    pod_id: Annotated[Id, _POD]
    post_id: Annotated[Id, _POST]
    member_id: Annotated[Id, _MEMBER]
    engagement_type: Annotated[EngagementType, _TYPE]
    attempt: Attempt
    outcome: Annotated[Outcome, Meta(description="Whether it was done.")]
    executed_at: Annotated[Instant, Meta(description="When it was done, or given up.")]
    error: Annotated[str | None, Meta(description="What went wrong, for people.")] = None
    retryable: Annotated[
        bool, Meta(description="For a failure: whether another attempt may help.")
    ] = True
    retry_after_ms: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_RETRY_AFTER_MS)] | None,
        Meta(description="For a failure: wait this long instead of the back-off's time."),
    ] = None


class EngagementStatus(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An activity has changed its status.

    `dispatched` is exactly once for a `read_committed` consumer; all others are at least once,
    with an `event_id` that is the same for every copy.
    """

    event_id: Annotated[str, _EVENT]
    activity_id: Annotated[str, _ACTIVITY]
    pod_id: Annotated[str, _POD]
    post_id: Annotated[str, _POST]
    member_id: Annotated[str, _MEMBER]
    engagement_type: Annotated[EngagementType, _TYPE]
    status: Annotated[StatusName, Meta(description="The new status.")]
    attempt: Attempt
    at: Annotated[Instant, Meta(description="When it changed.")]
    reason: Annotated[str | None, Meta(description="Why, where that is not plain.")] = None
    scheduled_for: Annotated[
        Instant | None, Meta(description="When the engagement is due, or was.")
    ] = None


class PodCommand(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Do something with activities that are there. Sent by clients, the command line, and the
    engine itself.

    `schedule`: plan those of `activity_ids`, all of `post_id`, that are still pending, in this
    order. `dispatch`: fire those of `activity_ids` now, if they wait in the wheel. `reschedule`:
    move those of `activity_ids` that wait to the times in `due_at`, or all that wait of `post_id`
    by `shift_ms`.

    `cancel`: cancel those of `activity_ids` that are pending or wait; or, without any, all that
    wait of `post_id`, of `member_id`, of `pod_id`, or all there are. `pause` and `resume`: whatever
    is due of `pod_id`, of `member_id`, or of everybody, waits until it is taken back. `opt_out` and
    `opt_in`: nothing more is planned for `member_id`, and what waits is cancelled, until it is
    taken back; what was cancelled stays so. `quiet_hours`: nothing of `pod_id` or `member_id` is to
    fall due between `quiet_from` and `quiet_until` by the clocks of `time_zone`; without these, at
    any hour again. `policy`: from now on the posts of `pod_id` are planned by these delays, this
    jitter and this cap, and by the engine's settings where there are none. `daily_cap`: of
    `member_id` at most so many are planned to fall due in any 24 hours; without it, any number. Of
    these, what is about a pod, a member or everybody is to be written to every partition.

    `drain` and `undrain`: the dispatcher `instance_id` gives its shards to the others and takes
    none, until it is taken back. To be written to partition 0 alone: one shard applies them, in
    order.

    `postpone` and `expire` are the dispatcher's, about timers that it has found overdue: those of
    `activity_ids` that still wait, and are still due at the time that stands at the same place in
    `due_at`, are moved by `shift_ms`, or given up.
    """

    event_id: EventId
    command: Annotated[CommandName, Meta(description="What is to be done.")]
    issued_at: Annotated[Instant, Meta(description="When it was asked for.")]
    post_id: Annotated[Id | None, Meta(description="The post that the activities belong to.")] = (
        None
    )
    activity_ids: Annotated[
        tuple[Id, ...],
        Meta(max_length=MAX_COMMAND_ACTIVITIES, description="The activities, in order."),
    ] = ()
    pod_id: Annotated[Id | None, Meta(description="The pod that it is about.")] = None
    member_id: Annotated[Id | None, Meta(description="The member that it is about.")] = None
    instance_id: Annotated[
        Id | None, Meta(description="The dispatcher that it is about, by its instance id.")
    ] = None
    actor: Annotated[
        Annotated[str, Meta(max_length=MAX_ID_CHARS)] | None,
        Meta(description="Who asks for it; kept for the audit."),
    ] = None
    like_cap: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="For `schedule` and `policy`: likes of a post in the cap's window, at most."
        ),
    ] = None
    like_cap_window_ms: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_SHIFT_MS)] | None,
        Meta(description="For `policy`: how long that window is."),
    ] = None
    like_min_delay_ms: Annotated[DelayMs | None, Meta(description="For `policy`.")] = None
    like_max_delay_ms: Annotated[DelayMs | None, Meta(description="For `policy`.")] = None
    like_jitter: Annotated[
        Jitter | None, Meta(description="For `policy`: the share by which a delay is moved.")
    ] = None
    comment_min_delay_ms: Annotated[DelayMs | None, Meta(description="For `policy`.")] = None
    comment_max_delay_ms: Annotated[DelayMs | None, Meta(description="For `policy`.")] = None
    comment_jitter: Annotated[Jitter | None, Meta(description="For `policy`.")] = None
    daily_cap: Annotated[
        Annotated[int, Meta(ge=1, le=100_000)] | None,
        Meta(description="For `daily_cap`: how many in any 24 hours, at most."),
    ] = None
    quiet_from: Annotated[
        ClockTime | None, Meta(description="For `quiet_hours`: when they begin, as 22:00.")
    ] = None
    quiet_until: Annotated[
        ClockTime | None, Meta(description="For `quiet_hours`: when they end, as 07:30.")
    ] = None
    time_zone: Annotated[
        Annotated[str, Meta(max_length=64)] | None,
        Meta(description="For `quiet_hours`: an IANA time zone, as Europe/Berlin."),
    ] = None
    reason: Annotated[
        Annotated[str, Meta(max_length=MAX_ID_CHARS)] | None,
        Meta(description="Why, for people; carried on in the statuses."),
    ] = None
    due_at: Annotated[
        Annotated[tuple[Instant, ...], Meta(max_length=MAX_COMMAND_ACTIVITIES)] | None,
        Meta(
            description="For `postpone` and `expire`: when each of `activity_ids` was due; for "
            "`reschedule`: when each is to be due."
        ),
    ] = None
    shift_ms: Annotated[
        Annotated[int, Meta(ge=0, le=MAX_SHIFT_MS)] | None,
        Meta(description="For `postpone` and `reschedule`: by how much, at least."),
    ] = None


class WheelCursor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a shard's wheel has been fired: the last committed batch. Internal, compacted.

    `gen` names the life of the wheel, `seq` counts its batches over all lives, `nonce` tells two
    claims of the same `seq` apart. The cursor of a new life says of the last batch what the one
    before it said.
    """

    seq: Annotated[
        int, Meta(ge=0, le=MAX_SEQ, description="Counts the batches over all lives of the wheel.")
    ]
    nonce: Annotated[str, Meta(description="Tells two claims of the same `seq` apart.")]
    gen: Annotated[str, Meta(description="Names the life of the wheel.")]
    claimed_at: Annotated[
        Instant | None, Meta(description="When the last batch was claimed, by the wheel's clock.")
    ] = None


Event = (
    PostDetected
    | ExecuteEngagement
    | EngagementExecuted
    | EngagementStatus
    | PodCommand
    | WheelCursor
)
