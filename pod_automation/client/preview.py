"""What the planner would make of an event, with nothing stored and nothing sent."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from pod_automation.client.arguments import a_moment
from pod_automation.client.errors import InvalidArgumentError
from pod_automation.client.results import Result
from scheduler.activity import PostPlan
from scheduler.controls import Orders
from scheduler.planner import NO_ORDERS, plan
from scheduler.policy import PacingPolicy
from schemas.codec import decode, encode
from schemas.events import EngagementType, PostDetected
from schemas.times import millis, moment


class PlannedEngagement(Result, frozen=True, kw_only=True):
    """One engagement as it would be planned: due at `scheduled_for`, `delay_ms` after the post was
    detected."""

    activity_id: str
    member_id: str
    engagement_type: EngagementType
    delay_ms: int
    scheduled_for: datetime


class PlanPreview(Result, frozen=True, kw_only=True):
    """What an event would add to its post, in the order of time.

    `already_planned` is how much of what the event asks for the post has already: that is not
    planned again. All likes that the post has count for the cap. `opted_out` are members who have,
    and are skipped.
    """

    pod_id: str
    post_id: str
    detected_at: datetime
    already_planned: int
    engagements: tuple[PlannedEngagement, ...]
    opted_out: tuple[str, ...] = ()


def preview(
    event: PostDetected,
    policy: PacingPolicy,
    existing: PostPlan,
    orders: Orders = NO_ORDERS,
) -> PlanPreview:
    """The plan for `event`, as a worker of this policy would make it on top of `existing`."""
    base_ms = millis(event.detected_at)
    members = {*event.member_ids} - {event.author_id}
    asked = len(members) * len({*event.engagement_types})
    planned = sorted(
        plan(event, policy, existing, 0, orders),
        key=lambda each: (each.scheduled_for_ms, each.activity_id),
    )
    return PlanPreview(
        pod_id=event.pod_id,
        post_id=event.post_id,
        detected_at=event.detected_at,
        already_planned=asked - len(planned),
        opted_out=tuple(sorted({each.member_id for each in planned if each.skipped})),
        engagements=tuple(
            PlannedEngagement(
                activity_id=each.activity_id,
                member_id=each.member_id,
                engagement_type=each.engagement_type,
                delay_ms=each.scheduled_for_ms - base_ms,
                scheduled_for=moment(each.scheduled_for_ms),
            )
            for each in planned
            if each.skipped is None
        ),
    )


def an_event(value: PostDetected | Mapping[str, Any] | bytes) -> PostDetected:
    """`value` as an event of the contract. Raises `InvalidArgumentError`."""
    try:
        if isinstance(value, PostDetected):
            # Nothing has checked what it was made of.
            a_moment("detected_at", value.detected_at)
            value = encode(value)
        return decode(PostDetected, value if isinstance(value, bytes) else orjson.dumps(value))
    except (ValueError, TypeError, AttributeError) as error:
        # InvalidEvent, what orjson does not write, and times that are none.
        raise InvalidArgumentError(f"this is no post-detected event: {error}") from None
