"""The planner: who engages with a new post, and when. A pure function, so a replay plans alike."""

from collections.abc import Iterable, Iterator, Sequence

from scheduler.activity import ActivityRow, PlannedActivity, PostPlan
from scheduler.policy import DelayWindow, PacingPolicy
from scheduler.stagger import CappedTimes, delay_ms, seed_of
from schemas.events import EngagementType, PostDetected
from schemas.ids import activity_id
from schemas.times import millis


def plan(
    event: PostDetected, policy: PacingPolicy, existing: PostPlan, source_offset: int
) -> list[PlannedActivity]:
    """The activities that `event` adds to what its post already has, likes first, in member order.

    One for each member and engagement type, members and types counted once and the author left
    out; none for activities that are in `existing`. Each falls due at `detected_at` plus its delay
    (`scheduler.stagger`). A like that would break the cap on likes of one post moves later, as
    little as the cap allows; what exists is never moved. `source_offset` is the Kafka offset of
    the event.

    A member's place among the others depends on the event alone and never on `existing`, so that
    a replay finds the times it found before. Fold the result into `existing` with `extended`
    before planning another event of the same post.
    """
    members = [member for member in dict.fromkeys(event.member_ids) if member != event.author_id]
    base_ms = millis(event.detected_at)

    def planned(
        engagement_type: EngagementType, window: DelayWindow, capped: CappedTimes | None
    ) -> Iterable[PlannedActivity]:
        for index, member in enumerate(members):
            own_id = activity_id(event.pod_id, event.post_id, member, engagement_type)
            if own_id in existing.activity_ids:
                continue
            due_ms = base_ms + delay_ms(window, index, len(members), seed_of(own_id))
            yield PlannedActivity(
                activity_id=own_id,
                pod_id=event.pod_id,
                post_id=event.post_id,
                member_id=member,
                engagement_type=engagement_type,
                scheduled_for_ms=due_ms if capped is None else capped.place(due_ms),
                source_offset=source_offset,
            )

    activities: list[PlannedActivity] = []
    if "like" in event.engagement_types:
        capped = CappedTimes(existing.like_times_ms, policy.like_cap, policy.like_cap_window_ms)
        activities.extend(planned("like", policy.like, capped))
    if "comment" in event.engagement_types:
        activities.extend(planned("comment", policy.comment, None))
    return activities


def scheduled_times(
    rows: Sequence[ActivityRow], policy: PacingPolicy, existing: PostPlan, base_ms: int
) -> Iterator[tuple[ActivityRow, int]]:
    """When pending rows of one post, in the order given, are to fall due (ms), likes first.

    As `plan` does it for members, with `base_ms` in the place of `detected_at`.
    """
    likes = [row for row in rows if row.engagement_type == "like"]
    capped = CappedTimes(existing.like_times_ms, policy.like_cap, policy.like_cap_window_ms)
    for index, row in enumerate(likes):
        delay = delay_ms(policy.like, index, len(likes), seed_of(row.activity_id))
        yield row, capped.place(base_ms + delay)
    comments = [row for row in rows if row.engagement_type == "comment"]
    for index, row in enumerate(comments):
        delay = delay_ms(policy.comment, index, len(comments), seed_of(row.activity_id))
        yield row, base_ms + delay


def extended(existing: PostPlan, activities: Iterable[PlannedActivity]) -> PostPlan:
    """`existing` with `activities`, which `plan` made for the same post on top of it."""
    added = list(activities)
    if not added:
        return existing
    likes = [each.scheduled_for_ms for each in added if each.engagement_type == "like"]
    return PostPlan(
        activity_ids=existing.activity_ids.union(each.activity_id for each in added),
        # Two sorted runs, nearly: sorting them is a merge.
        like_times_ms=tuple(sorted([*existing.like_times_ms, *likes])),
    )
