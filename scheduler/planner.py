"""The planner: who engages with a new post, and when. A pure function, so a replay plans alike."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

from msgspec.structs import replace

from scheduler.activity import ActivityRow, PlannedActivity, PostPlan
from scheduler.controls import OPTED_OUT, Orders
from scheduler.policy import DelayWindow, PacingPolicy
from scheduler.quiet_hours import QuietHours, after, free_from
from scheduler.stagger import CappedTimes, Spread, seed_of
from schemas.events import EngagementType, PostDetected
from schemas.ids import ids_of_post
from schemas.times import LATEST_MS, millis

NO_ORDERS = Orders()
NO_DAYS: Mapping[str, CappedTimes] = MappingProxyType({})

DAY_MS = 86_400_000


def plan(
    event: PostDetected,
    policy: PacingPolicy,
    existing: PostPlan,
    source_offset: int,
    orders: Orders = NO_ORDERS,
) -> list[PlannedActivity]:
    """The activities that `event` adds to what its post already has, likes first, in member order.

    One for each member and engagement type, members and types counted once and the author left out;
    none for activities that are in `existing`. Each falls due at `detected_at` plus its delay
    (`scheduler.stagger`). A like that would break the cap on likes of one post moves later, as
    little as the cap allows; what exists is never moved. `source_offset` is the Kafka offset of the
    event. By `orders` the pod may have a policy of its own. Activities of members who have opted
    out are skipped: they say so, have the time that they would have had, and take no place under
    the cap. Quiet hours of the pod or the member do not count as delay: what would fall due behind
    their beginning comes later by as much, in the same order; and where the cap moves a like into
    them, on to the first free time behind them. What would break a member's daily cap comes later
    likewise.

    A member's place among the others depends on the event alone and never on `existing`, so that
    a replay finds the times it found before. Fold the result into `existing` with `extended`
    before planning another event of the same post.
    """
    members = [member for member in dict.fromkeys(event.member_ids) if member != event.author_id]
    base_ms = millis(event.detected_at)
    policy = orders.policy(event.pod_id, policy)

    days = days_of(orders, members)
    pod_id, post_id = event.pod_id, event.post_id
    known, opted_out = existing.activity_ids, orders.opted_out
    identified = ids_of_post(pod_id, post_id)

    def planned(
        engagement_type: EngagementType, window: DelayWindow, capped: CappedTimes | None
    ) -> Iterable[PlannedActivity]:
        spread = Spread(window, len(members))
        for index, member in enumerate(members):
            own_id, seed = identified(member, engagement_type)
            if own_id in known:
                continue
            quiet = orders.quiet_for(pod_id, member) if orders.quiet else ()
            delay = spread.delay_ms(index, seed)
            due_ms = after(quiet, base_ms, delay) if quiet else base_ms + delay
            skipped = OPTED_OUT if member in opted_out else None
            if skipped:
                due_ms = min(due_ms, LATEST_MS)
            else:
                due_ms = _placed(capped, due_ms, quiet, days.get(member))
            # By position: by name it takes twice as long, and this is done for each timer.
            yield PlannedActivity(
                own_id,
                pod_id,
                post_id,
                member,
                engagement_type,
                due_ms,
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


def _placed(
    capped: CappedTimes | None,
    due_ms: int,
    quiet: tuple[QuietHours, ...] = (),
    day: CappedTimes | None = None,
) -> int:
    """The first time from `due_ms` on that keeps the cap of the post and that of the member's day,
    and is not quiet. It counts for both from now on.

    No time is behind what an event may carry: what does not fit before that falls due then.
    """
    if not quiet and day is None:
        return min(due_ms if capped is None else capped.place(due_ms), LATEST_MS)
    caps = [each for each in (capped, day) if each is not None]
    due_ms = free_from(quiet, due_ms)
    if caps:
        while (free_ms := max(each.first_free(due_ms, quiet) for each in caps)) > due_ms:
            due_ms = free_ms
    due_ms = min(due_ms, LATEST_MS)
    for each in caps:
        each.add(due_ms)
    return due_ms


def days_of(orders: Orders, members: Iterable[str]) -> Mapping[str, CappedTimes]:
    """By member with a daily cap: what falls due of theirs, to which whoever plans adds."""
    if not orders.caps:
        return {}
    return {
        name: CappedTimes(orders.times.get(name, ()), cap, DAY_MS)
        for name in members
        if (cap := orders.caps.get(name)) is not None
    }


def planned_for(orders: Orders, activities: Iterable[PlannedActivity]) -> Orders:
    """`orders` after `activities` were planned: they count for the caps of their members."""
    if not orders.caps:
        return orders
    added: dict[str, list[int]] = {}
    for each in activities:
        if each.member_id in orders.caps and each.skipped is None:
            added.setdefault(each.member_id, []).append(each.scheduled_for_ms)
    times = {
        name: tuple(sorted([*orders.times.get(name, ()), *more])) for name, more in added.items()
    }
    return replace(orders, times={**orders.times, **times})


def scheduled_times(
    rows: Sequence[ActivityRow],
    policy: PacingPolicy,
    existing: PostPlan,
    base_ms: int,
    orders: Orders = NO_ORDERS,
    days: Mapping[str, CappedTimes] = NO_DAYS,
) -> Iterator[tuple[ActivityRow, int]]:
    """When pending rows of one post, in the order given, are to fall due (ms), likes first.

    As `plan` does it for members, with `base_ms` in the place of `detected_at`. `days` are those of
    members with a daily cap (`days_of`); what is placed counts there from then on.
    """

    def due_ms(row: ActivityRow, delay: int, quiet: tuple[QuietHours, ...]) -> int:
        return after(quiet, base_ms, delay) if quiet else base_ms + delay

    likes = [row for row in rows if row.engagement_type == "like"]
    capped = CappedTimes(existing.like_times_ms, policy.like_cap, policy.like_cap_window_ms)
    spread = Spread(policy.like, len(likes))
    for index, row in enumerate(likes):
        delay = spread.delay_ms(index, seed_of(row.activity_id))
        quiet = orders.quiet_for(row.pod_id, row.member_id)
        yield row, _placed(capped, due_ms(row, delay, quiet), quiet, days.get(row.member_id))
    comments = [row for row in rows if row.engagement_type == "comment"]
    spread = Spread(policy.comment, len(comments))
    for index, row in enumerate(comments):
        delay = spread.delay_ms(index, seed_of(row.activity_id))
        quiet = orders.quiet_for(row.pod_id, row.member_id)
        yield row, _placed(None, due_ms(row, delay, quiet), quiet, days.get(row.member_id))


def postponed_times(
    rows: Iterable[ActivityRow],
    shift_ms: int,
    policy: PacingPolicy,
    existing: Mapping[str, PostPlan],
    now_ms: int,
    orders: Orders = NO_ORDERS,
) -> list[tuple[ActivityRow, int]]:
    """When overdue rows, of any posts, are to fall due instead (ms), in the order of their times.

    Each moves by `shift_ms`, as if time had stood still for so long, so that they stay as far apart
    as they were. Where that is not enough for the first of a post to come after `now_ms`, all of
    that post move by as much more: to put only the late ones at `now_ms` would send them together.
    A like that would break the cap on likes of one post moves on, as little as the cap allows;
    what else is planned for its post counts, by `existing`, but not the times that are left. What
    would fall due in quiet hours comes as they end.
    """
    ordered = sorted(_timed(rows), key=lambda each: (each[1], each[0].activity_id))
    shifts: dict[str, int] = {}
    for row, due_ms in ordered:
        shifts.setdefault(row.post_id, max(shift_ms, now_ms - due_ms))
    capped = _others(ordered, policy, existing, orders)
    moved = []
    for row, due_ms in ordered:
        quiet = orders.quiet_for(row.pod_id, row.member_id)
        new_ms = free_from(quiet, due_ms + shifts[row.post_id])
        if row.engagement_type == "like":
            new_ms = _placed(capped[row.post_id], new_ms, quiet)
        moved.append((row, min(new_ms, LATEST_MS)))
    return moved


def rescheduled_times(
    rows: Iterable[tuple[ActivityRow, int]],
    policy: PacingPolicy,
    existing: Mapping[str, PostPlan],
    orders: Orders = NO_ORDERS,
) -> list[tuple[ActivityRow, int]]:
    """When rows that wait, of any posts, are to fall due (ms) that are wanted at these times.

    A like that would break the cap on likes of one post comes later, as little as the cap and the
    quiet hours in `orders` allow.
    """
    ordered = sorted(rows, key=lambda each: (each[1], each[0].activity_id))
    capped = _others(ordered, policy, existing, orders)
    moved = []
    for row, due_ms in ordered:
        if row.engagement_type == "like" and row.post_id in capped:
            quiet = orders.quiet_for(row.pod_id, row.member_id)
            moved.append((row, _placed(capped[row.post_id], due_ms, quiet)))
        else:
            moved.append((row, min(due_ms, LATEST_MS)))
    return moved


def _others(
    moving: Iterable[tuple[ActivityRow, int]],
    policy: PacingPolicy,
    existing: Mapping[str, PostPlan],
    orders: Orders,
) -> Mapping[str, CappedTimes]:
    """Of each post, the likes that stay where those that move leave their times, and its cap."""
    left: dict[str, list[int]] = {}
    policies: dict[str, PacingPolicy] = {}
    for row, _ in moving:
        if row.engagement_type == "like" and row.scheduled_for_ms is not None:
            left.setdefault(row.post_id, []).append(row.scheduled_for_ms)
            policies.setdefault(row.post_id, orders.policy(row.pod_id, policy))
    return {
        post_id: CappedTimes(
            without(existing.get(post_id, PostPlan()), times).like_times_ms,
            policies[post_id].like_cap,
            policies[post_id].like_cap_window_ms,
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
