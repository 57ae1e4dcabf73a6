"""The planner's rules, for any members, policy and existing plan."""

from collections.abc import Sequence
from datetime import UTC, datetime

from hypothesis import assume, given
from hypothesis import strategies as st

from scheduler.activity import PlannedActivity, PostPlan
from scheduler.controls import Orders, Subject
from scheduler.planner import DAY_MS, extended, plan, planned_for
from scheduler.policy import DelayWindow, PacingPolicy
from scheduler.quiet_hours import QuietHours
from scheduler.stagger import delay_ms, seed_of
from schemas.events import EngagementType, PostDetected
from schemas.ids import activity_id
from schemas.times import LATEST_MS, millis, moment

POD, POST = "pod", "post"
BASE = datetime(2026, 11, 24, 8, tzinfo=UTC)
BASE_MS = millis(BASE)
TYPES: tuple[EngagementType, EngagementType] = ("like", "comment")


@st.composite
def windows(draw: st.DrawFn, longest_ms: int) -> DelayWindow:
    low, high = sorted(draw(st.tuples(*[st.integers(0, longest_ms)] * 2)))
    jitter = draw(st.sampled_from([0, 0.1, 0.15]) | st.floats(0, 0.99))
    return DelayWindow(low, draw(st.sampled_from([low, high])), jitter)


def policies(longest_ms: int, cap_window_ms: int) -> st.SearchStrategy[PacingPolicy]:
    return st.builds(
        PacingPolicy,
        like=windows(longest_ms),
        comment=windows(longest_ms),
        like_cap=st.integers(1, 5),
        like_cap_window_ms=st.integers(1, cap_window_ms),
    )


# Few names, so that doubles, the author and what is there already come up often.
members = st.integers(0, 14).map("member-{}".format)
events = st.builds(
    PostDetected,
    event_id=st.just("event"),
    pod_id=st.just(POD),
    post_id=st.just(POST),
    member_ids=st.lists(members, max_size=20).map(tuple),
    detected_at=st.integers(-50, 50).map(lambda offset_ms: moment(BASE_MS + offset_ms)),
    author_id=st.none() | members,
    engagement_types=st.lists(st.sampled_from(TYPES), max_size=4).map(tuple),
)
# Any: the times may break the cap among themselves, and ids need not match them.
existing_plans = st.builds(
    PostPlan,
    activity_ids=st.frozensets(
        st.builds(activity_id, st.just(POD), st.just(POST), members, st.sampled_from(TYPES))
    ),
    like_times_ms=st.lists(st.integers(-100, 300).map(BASE_MS.__add__), max_size=12).map(
        lambda times: tuple(sorted(times))
    ),
)
# Small enough to try every millisecond, and large enough for everything to happen.
small_policies = policies(longest_ms=120, cap_window_ms=60)
large_policies = policies(longest_ms=6 * 3_600_000, cap_window_ms=3_600_000)


def keeps_cap(times: Sequence[int], at_ms: int, policy: PacingPolicy) -> bool:
    """Whether no window that holds `at_ms`, one of `times`, holds more than the cap."""
    starts = [x for x in times if x <= at_ms < x + policy.like_cap_window_ms]
    return all(
        sum(start <= x < start + policy.like_cap_window_ms for x in times) <= policy.like_cap
        for start in starts
    )


def likes(activities: Sequence[PlannedActivity]) -> list[PlannedActivity]:
    return [each for each in activities if each.engagement_type == "like"]


def natural_ms(event: PostDetected, policy: PacingPolicy, activity: PlannedActivity) -> int:
    """When `activity` would be due without a cap."""
    order = [m for m in dict.fromkeys(event.member_ids) if m != event.author_id]
    window = policy.like if activity.engagement_type == "like" else policy.comment
    index = order.index(activity.member_id)
    return millis(event.detected_at) + delay_ms(
        window, index, len(order), seed_of(activity.activity_id)
    )


@given(events, small_policies | large_policies, existing_plans)
def test_no_window_with_a_new_like_exceeds_the_cap(
    event: PostDetected, policy: PacingPolicy, existing: PostPlan
) -> None:
    new = [each.scheduled_for_ms for each in likes(plan(event, policy, existing, 0))]

    together = [*existing.like_times_ms, *new]

    assert all(keeps_cap(together, at_ms, policy) for at_ms in new)


@given(st.lists(events, max_size=4), small_policies | large_policies)
def test_no_window_at_all_exceeds_the_cap_when_none_did(
    posts: list[PostDetected], policy: PacingPolicy
) -> None:
    existing = PostPlan()
    for event in posts:
        existing = extended(existing, plan(event, policy, existing, 0))

    times = existing.like_times_ms

    assert list(times) == sorted(times)
    assert all(keeps_cap(times, at_ms, policy) for at_ms in times)


@given(events, small_policies, existing_plans)
def test_a_like_is_as_early_as_the_cap_allows(
    event: PostDetected, policy: PacingPolicy, existing: PostPlan
) -> None:
    times = list(existing.like_times_ms)
    for like in likes(plan(event, policy, existing, 0)):
        expected_ms = natural_ms(event, policy, like)
        while not keeps_cap([*times, expected_ms], expected_ms, policy):
            expected_ms += 1
        assert like.scheduled_for_ms == expected_ms
        times.append(expected_ms)


@given(events, small_policies | large_policies, existing_plans)
def test_delays_stay_within_their_window(
    event: PostDetected, policy: PacingPolicy, existing: PostPlan
) -> None:
    for each in plan(event, policy, existing, 0):
        after_ms = each.scheduled_for_ms - millis(event.detected_at)
        if each.engagement_type == "comment":
            assert policy.comment.min_ms <= after_ms <= policy.comment.max_ms
        elif each.scheduled_for_ms == natural_ms(event, policy, each):
            assert policy.like.min_ms <= after_ms <= policy.like.max_ms
        else:
            assert after_ms > policy.like.min_ms


@given(events, small_policies | large_policies, existing_plans)
def test_each_member_but_the_author_is_planned_once_for_each_type(
    event: PostDetected, policy: PacingPolicy, existing: PostPlan
) -> None:
    planned = plan(event, policy, existing, source_offset=7)

    order = dict.fromkeys(m for m in event.member_ids if m != event.author_id)
    wanted = [(kind, m) for kind in TYPES if kind in event.engagement_types for m in order]
    assert [(each.engagement_type, each.member_id) for each in planned] == [
        (kind, m)
        for kind, m in wanted
        if activity_id(POD, POST, m, kind) not in existing.activity_ids
    ]
    assert len({each.activity_id for each in planned}) == len(planned)
    for each in planned:
        assert (each.pod_id, each.post_id, each.source_offset) == (POD, POST, 7)
        assert each.activity_id == activity_id(POD, POST, each.member_id, each.engagement_type)


@given(events, small_policies | large_policies, existing_plans)
def test_the_same_input_gives_the_same_plan(
    event: PostDetected, policy: PacingPolicy, existing: PostPlan
) -> None:
    assert plan(event, policy, existing, 3) == plan(event, policy, existing, 3)


@given(events, small_policies | large_policies, existing_plans)
def test_a_replay_plans_nothing(
    event: PostDetected, policy: PacingPolicy, existing: PostPlan
) -> None:
    after = extended(existing, plan(event, policy, existing, 0))

    assert plan(event, policy, after, 1) == []


@given(events, small_policies | large_policies, st.data())
def test_a_member_keeps_the_natural_time_whoever_is_planned_already(
    event: PostDetected, policy: PacingPolicy, data: st.DataObject
) -> None:
    whole = plan(event, policy, PostPlan(), 0)
    assume(whole)
    known = frozenset(data.draw(st.lists(st.sampled_from([each.activity_id for each in whole]))))

    rest = plan(event, policy, PostPlan(activity_ids=known), 0)

    for each in rest:
        assert each.scheduled_for_ms >= natural_ms(event, policy, each)
        if each.engagement_type == "comment":
            assert each in whole


@given(events, events, small_policies | large_policies, existing_plans)
def test_a_later_event_moves_nothing_that_is_planned(
    first: PostDetected, later: PostDetected, policy: PacingPolicy, existing: PostPlan
) -> None:
    before = extended(existing, plan(first, policy, existing, 0))
    added = plan(later, policy, before, 1)

    after = extended(before, added)

    assert not before.activity_ids & {each.activity_id for each in added}
    assert after.activity_ids == before.activity_ids | {each.activity_id for each in added}
    left = list(after.like_times_ms)
    for at_ms in [*before.like_times_ms, *(each.scheduled_for_ms for each in likes(added))]:
        left.remove(at_ms)
    assert left == []
    assert list(after.like_times_ms) == sorted(after.like_times_ms)


@given(
    cap=st.integers(1, 5),
    there=st.lists(st.integers(-DAY_MS, 3 * DAY_MS), max_size=12),
    events=st.integers(1, 5),
)
def test_a_member_has_no_more_than_the_cap_in_a_day(
    cap: int, there: list[int], events: int
) -> None:
    base = 1_795_000_000_000
    orders = Orders(caps={"m": cap}, times={"m": tuple(sorted(base + each for each in there))})
    made = []
    for number in range(events):
        event = PostDetected(
            event_id=f"e{number}",
            pod_id="p",
            post_id=f"x{number}",
            member_ids=("n", "m", "o"),
            detected_at=moment(base + number * 60_000),
        )
        planned = plan(event, PacingPolicy(), PostPlan(), 0, orders)
        assert planned == plan(event, PacingPolicy(), PostPlan(), 0, orders)
        free = {each.activity_id: each for each in plan(event, PacingPolicy(), PostPlan(), 0)}
        for each in planned:
            if each.member_id != "m" and each.engagement_type == "comment":
                assert each == free[each.activity_id]
        orders = planned_for(orders, planned)
        made += [each.scheduled_for_ms for each in planned if each.member_id == "m"]
    times = sorted(orders.times["m"])
    for at in made:
        for first in (each for each in times if at - DAY_MS < each <= at):
            # What was there may break it by itself; nothing that was planned does.
            inside = [each for each in times if first <= each < first + DAY_MS]
            assert len(inside) <= cap or at not in inside


def test_nothing_is_planned_behind_what_an_event_may_carry() -> None:
    event = PostDetected(
        event_id="e",
        pod_id="p",
        post_id="x",
        member_ids=tuple(f"m{number}" for number in range(40)),
        detected_at=moment(LATEST_MS - 1),
    )
    for orders in (Orders(), Orders(quiet={Subject("pod", "p"): QuietHours(0, 60, "UTC")})):
        planned = plan(event, PacingPolicy(like_cap=1), PostPlan(), 0, orders)
        assert {each.scheduled_for_ms for each in planned} == {LATEST_MS}
