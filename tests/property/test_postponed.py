"""Laying overdue timers out anew, for any backlog, policy and existing plan."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from scheduler.activity import ActivityRow, PostPlan, Status
from scheduler.planner import postponed_times, replanned
from scheduler.policy import PacingPolicy
from schemas.ids import activity_id

NOW_MS = 1_000_000
POSTS = ("post-0", "post-1")

policies = st.builds(
    PacingPolicy, like_cap=st.integers(1, 4), like_cap_window_ms=st.integers(1, 80)
)


@st.composite
def backlogs(draw: st.DrawFn) -> list[ActivityRow]:
    """Rows that are overdue, each activity once, times close enough to meet the cap."""
    names = draw(
        st.lists(
            st.tuples(
                st.sampled_from(POSTS), st.integers(0, 9), st.sampled_from(("like", "comment"))
            ),
            unique=True,
            max_size=16,
        )
    )
    return [
        ActivityRow(
            activity_id=activity_id("pod", post_id, f"member-{member}", kind),
            pod_id="pod",
            post_id=post_id,
            member_id=f"member-{member}",
            engagement_type=kind,  # type: ignore[arg-type]
            status=draw(st.sampled_from((Status.SCHEDULED, Status.RETRYING))),
            scheduled_for_ms=NOW_MS - draw(st.integers(1, 400)),
            shard=0,
        )
        for post_id, member, kind in names
    ]


# Any: what is planned for a post besides need not keep the cap.
times = st.lists(st.integers(NOW_MS - 500, NOW_MS + 500), max_size=10)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[ActivityRow], dict[str, PostPlan], dict[str, list[int]]]:
    """A backlog, the plans of its posts, and what of these is not of the backlog."""
    rows = draw(backlogs())
    others = {post_id: sorted(draw(times)) for post_id in POSTS}
    plans = {
        post_id: PostPlan(
            like_times_ms=tuple(sorted([*others[post_id], *_likes(rows, post_id).elements()]))
        )
        for post_id in POSTS
    }
    return rows, plans, others


def _likes(rows: Sequence[ActivityRow], post_id: str) -> Counter[int]:
    return Counter(
        row.scheduled_for_ms or 0
        for row in rows
        if row.post_id == post_id and row.engagement_type == "like"
    )


def laid_out(
    rows: Sequence[ActivityRow],
    plans: Mapping[str, PostPlan],
    policy: PacingPolicy,
    shift_ms: int,
) -> list[tuple[ActivityRow, int]]:
    return postponed_times(rows, shift_ms, policy, plans, NOW_MS)


def keeps_cap(times: Sequence[int], at_ms: int, policy: PacingPolicy) -> bool:
    starts = [x for x in times if x <= at_ms < x + policy.like_cap_window_ms]
    return all(
        sum(start <= x < start + policy.like_cap_window_ms for x in times) <= policy.like_cap
        for start in starts
    )


shifts = st.integers(0, 600)


@given(worlds(), policies, shifts)
def test_no_window_with_a_moved_like_exceeds_the_cap(
    world: tuple[list[ActivityRow], dict[str, PostPlan], dict[str, list[int]]],
    policy: PacingPolicy,
    shift_ms: int,
) -> None:
    rows, plans, others = world
    new: dict[str, list[int]] = defaultdict(list)
    for row, due_ms in laid_out(rows, plans, policy, shift_ms):
        if row.engagement_type == "like":
            new[row.post_id].append(due_ms)
    for post_id, likes in new.items():
        together = [*others[post_id], *likes]
        assert all(keeps_cap(together, at_ms, policy) for at_ms in likes)


@given(worlds(), policies, shifts)
def test_each_is_moved_once_and_none_before_now_or_by_less_than_time_stood_still(
    world: tuple[list[ActivityRow], dict[str, PostPlan], dict[str, list[int]]],
    policy: PacingPolicy,
    shift_ms: int,
) -> None:
    rows, plans, _ = world
    moved = laid_out(rows, plans, policy, shift_ms)
    assert Counter(row.activity_id for row, _ in moved) == Counter(r.activity_id for r in rows)
    for row, due_ms in moved:
        assert due_ms >= NOW_MS
        assert due_ms - (row.scheduled_for_ms or 0) >= shift_ms


@given(worlds(), policies, shifts)
def test_the_order_within_a_post_and_type_is_kept(
    world: tuple[list[ActivityRow], dict[str, PostPlan], dict[str, list[int]]],
    policy: PacingPolicy,
    shift_ms: int,
) -> None:
    rows, plans, _ = world
    of: dict[tuple[str, str], list[tuple[int, int]]] = defaultdict(list)
    for row, due_ms in laid_out(rows, plans, policy, shift_ms):
        of[row.post_id, row.engagement_type].append((row.scheduled_for_ms or 0, due_ms))
    for pairs in of.values():
        assert pairs == sorted(pairs)


@given(worlds(), policies, shifts)
def test_the_spacing_is_kept_where_the_cap_allows(
    world: tuple[list[ActivityRow], dict[str, PostPlan], dict[str, list[int]]],
    policy: PacingPolicy,
    shift_ms: int,
) -> None:
    rows, plans, others = world
    by_post: dict[str, list[tuple[ActivityRow, int]]] = defaultdict(list)
    for row, due_ms in laid_out(rows, plans, policy, shift_ms):
        by_post[row.post_id].append((row, due_ms))
    for post_id, moved in by_post.items():
        first_ms = min(row.scheduled_for_ms or 0 for row, _ in moved)
        by_ms = max(shift_ms, NOW_MS - first_ms)
        taken = list(others[post_id])
        for row, due_ms in moved:
            wanted_ms = (row.scheduled_for_ms or 0) + by_ms
            if row.engagement_type == "like":
                while not keeps_cap([*taken, wanted_ms], wanted_ms, policy):
                    wanted_ms += 1
                taken.append(wanted_ms)
            assert due_ms == wanted_ms


@given(worlds(), policies, shifts, st.randoms(use_true_random=False))
def test_a_replay_gives_the_same_in_whatever_order_the_rows_are_read(
    world: tuple[list[ActivityRow], dict[str, PostPlan], dict[str, list[int]]],
    policy: PacingPolicy,
    shift_ms: int,
    random: Random,
) -> None:
    rows, plans, _ = world
    again = list(rows)
    random.shuffle(again)
    assert laid_out(rows, plans, policy, shift_ms) == laid_out(again, plans, policy, shift_ms)


@given(worlds(), policies, shifts)
def test_the_plan_holds_the_new_times_in_the_place_of_the_old(
    world: tuple[list[ActivityRow], dict[str, PostPlan], dict[str, list[int]]],
    policy: PacingPolicy,
    shift_ms: int,
) -> None:
    rows, plans, others = world
    moved = laid_out(rows, plans, policy, shift_ms)
    for post_id in POSTS:
        pairs = [
            (row.scheduled_for_ms or 0, due_ms)
            for row, due_ms in moved
            if row.post_id == post_id and row.engagement_type == "like"
        ]
        after = replanned(plans[post_id], pairs).like_times_ms
        assert list(after) == sorted([*others[post_id], *(due_ms for _, due_ms in pairs)])
        assert all(a <= b for a, b in pairwise(after))
