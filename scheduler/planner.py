"""The planner: who engages with a new post, and when. A pure function, so a replay plans alike."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from scheduler.activity import ActivityRow, PlannedActivity, PostPlan
from scheduler.controls import OPTED_OUT
from scheduler.policy import DelayWindow, PacingPolicy
from scheduler.stagger import CappedTimes, delay_ms, seed_of
from schemas.events import EngagementType, PostDetected
from schemas.ids import activity_id
from schemas.times import LATEST_MS, millis


def plan(
    event: PostDetected,
    policy: PacingPolicy,
    existing: PostPlan,
    source_offset: int,
    opted_out: Collection[str] = (),
) -> list[PlannedActivity]:
    """The activities that `event` adds to what its post already has, likes first, in member order.

    One for each member and engagement type, members and types counted once and the author left
    out; none for activities that are in `existing`. Each falls due at `detected_at` plus its delay
    (`scheduler.stagger`). A like that would break the cap on likes of one post moves later, as
    little as the cap allows; what exists is never moved. `source_offset` is the Kafka offset of
    the event. Activities of members who have `opted_out` are skipped: they say so, have the time
    that they would have had, and take no place under the cap.

    A member's place among the others depends on the event alone and never on `existing`, so that
    a replay finds the times it found before. Fold the result into `existing` with `extended`
    before planning another event of the same post.
    """
    members = [member for member in dict.fromkeys(event.member_ids) if member != event.author_id]
    base_ms = millis(event.detected_at)

    def planned(
        engagement_type: EngagementType, window: DelayWindow, capped: CappedTimes | None
    ) -> Iterable[PlannedActivity]:
        total = len(members)
        for index, member in enumerate(members):
            own_id = activity_id(event.pod_id, event.post_id, member, engagement_type)
            if own_id in existing.activity_ids:
                continue
            due_ms = base_ms + delay_ms(window, index, total, seed_of(own_id))
            skipped = OPTED_OUT if opted_out and member in opted_out else None
            # By position: by name it takes twice as long, and this is done for each timer.
            yield PlannedActivity(
                own_id,
                event.pod_id,
                event.post_id,
                member,
                engagement_type,
                due_ms if capped is None or skipped else capped.place(due_ms),
                source_offset,
                skipped,
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


def postponed_times(
    rows: Iterable[ActivityRow],
    shift_ms: int,
    policy: PacingPolicy,
    existing: Mapping[str, PostPlan],
    now_ms: int,
) -> list[tuple[ActivityRow, int]]:
    """When overdue rows, of any posts, are to fall due instead (ms), in the order of their times.

    Each moves by `shift_ms`, as if time had stood still for so long, so that they stay as far apart
    as they were. Where that is not enough for the first of a post to come after `now_ms`, all of
    that post move by as much more: to put only the late ones at `now_ms` would send them together.
    A like that would break the cap on likes of one post moves on, as little as the cap allows;
    what else is planned for its post counts, by `existing`, but not the times that are left.
    """
    ordered = sorted(_timed(rows), key=lambda each: (each[1], each[0].activity_id))
    shifts: dict[str, int] = {}
    left: dict[str, list[int]] = {}
    for row, due_ms in ordered:
        shifts.setdefault(row.post_id, max(shift_ms, now_ms - due_ms))
        if row.engagement_type == "like":
            left.setdefault(row.post_id, []).append(due_ms)
    capped = _others(left, policy, existing)
    moved = []
    for row, due_ms in ordered:
        new_ms = due_ms + shifts[row.post_id]
        if row.engagement_type == "like":
            new_ms = capped[row.post_id].place(new_ms)
        moved.append((row, min(new_ms, LATEST_MS)))
    return moved


def rescheduled_times(
    rows: Iterable[tuple[ActivityRow, int]],
    policy: PacingPolicy,
    existing: Mapping[str, PostPlan],
) -> list[tuple[ActivityRow, int]]:
    """When rows that wait, of any posts, are to fall due (ms) that are wanted at these times.

    A like that would break the cap on likes of one post comes later, as little as the cap allows.
    """
    ordered = sorted(rows, key=lambda each: (each[1], each[0].activity_id))
    left: dict[str, list[int]] = {}
    for row, _ in ordered:
        if row.engagement_type == "like" and row.scheduled_for_ms is not None:
            left.setdefault(row.post_id, []).append(row.scheduled_for_ms)
    capped = _others(left, policy, existing)
    return [
        (
            row,
            capped[row.post_id].place(wanted)
            if row.post_id in capped and row.engagement_type == "like"
            else wanted,
        )
        for row, wanted in ordered
    ]


def _others(
    left: Mapping[str, Sequence[int]], policy: PacingPolicy, existing: Mapping[str, PostPlan]
) -> Mapping[str, CappedTimes]:
    """Of each post, the likes that stay where others leave these times."""
    return {
        post_id: CappedTimes(
            without(existing.get(post_id, PostPlan()), times).like_times_ms,
            policy.like_cap,
            policy.like_cap_window_ms,
        )
        for post_id, times in left.items()
    }


def without(existing: PostPlan, like_times_ms: Iterable[int]) -> PostPlan:
    """`existing` without likes at these times, one for each."""
    times = Counter(existing.like_times_ms)
    times.subtract(like_times_ms)
    return PostPlan(existing.activity_ids, tuple(sorted((+times).elements())))


def replanned(existing: PostPlan, moved: Iterable[tuple[int, int]]) -> PostPlan:
    """`existing` after likes were moved: from one time to another."""
    pairs = list(moved)
    left = without(existing, (was_ms for was_ms, _ in pairs)).like_times_ms
    return PostPlan(existing.activity_ids, tuple(sorted([*left, *(new_ms for _, new_ms in pairs)])))


def _timed(rows: Iterable[ActivityRow]) -> Iterator[tuple[ActivityRow, int]]:
    return ((row, row.scheduled_for_ms) for row in rows if row.scheduled_for_ms is not None)


def extended(existing: PostPlan, activities: Iterable[PlannedActivity]) -> PostPlan:
    """`existing` with `activities`, which `plan` made for the same post on top of it."""
    added = list(activities)
    if not added:
        return existing
    likes = [
        each.scheduled_for_ms
        for each in added
        if each.engagement_type == "like" and each.skipped is None
    ]
    return PostPlan(
        activity_ids=existing.activity_ids.union(each.activity_id for each in added),
        # Two sorted runs, nearly: sorting them is a merge.
        like_times_ms=tuple(sorted([*existing.like_times_ms, *likes])),
    )
