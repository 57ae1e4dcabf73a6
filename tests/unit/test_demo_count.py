"""The demo's scenario and count: values in, values out, and every kind of fault is seen."""

from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from pod_automation.demo.count import Report, Tally, compare, percentile
from pod_automation.demo.scenario import Pacing, Post, Scenario
from pod_automation.demo.view import PodLine, State, View, closing_table, live_table, plain_line
from scheduler.activity import PostPlan
from scheduler.planner import plan
from scheduler.policy import DelayWindow, PacingPolicy
from scheduler.settings import load_settings
from schemas import codec
from schemas.codec import InvalidEvent, decode
from schemas.events import PostDetected

NOW_MS = 1_800_000_000_000
SCENARIO = Scenario.of("t", pods=3, posts=40, stream_s=20.0)


def test_the_same_scenario_each_time() -> None:
    assert Scenario.of("t", pods=3, posts=40, stream_s=20.0) == SCENARIO
    assert not SCENARIO.asked_for & Scenario.of("u", pods=3, posts=40, stream_s=20.0).asked_for


def test_deliveries_are_in_order_and_hold_doubles_and_broken_ones() -> None:
    deliveries = SCENARIO.deliveries()
    assert [at_s for at_s, _ in deliveries] == sorted(at_s for at_s, _ in deliveries)
    times = Counter(each.post_id for _, each in deliveries if isinstance(each, Post))
    assert set(times) == {post.post_id for post in SCENARIO.posts}
    assert set(times.values()) == {1, 2}
    broken = [each for _, each in deliveries if isinstance(each, bytes)]
    assert set(broken) == set(SCENARIO.broken)
    for each in broken:
        with pytest.raises(InvalidEvent):
            decode(PostDetected, each)


def test_small_scenarios_have_a_double_too() -> None:
    assert any(post.again_at_s for post in Scenario.of("t", pods=1, posts=2, stream_s=1).posts)
    assert Scenario.of("t", pods=5, posts=1, stream_s=1).deliveries()


def test_it_asks_for_what_the_planner_plans() -> None:
    """Reckoned apart from the planner, and with the same result."""
    planned = set()
    for post in SCENARIO.posts:
        value, event = post.event(NOW_MS)
        assert decode(PostDetected, value) == event
        planned |= {each.activity_id for each in plan(event, PacingPolicy(), PostPlan(), 0)}
    assert planned == SCENARIO.asked_for


@pytest.mark.parametrize("speed", [1.0, 600.0, 3600.0, 100_000.0])
def test_the_last_timer_falls_due_when_it_was_announced(speed: float) -> None:
    pacing = Pacing(speed)
    settings = {
        name.removeprefix("POD_AUTOMATION_").lower(): value
        for name, value in pacing.environment.items()
    }
    policy = load_settings(**settings).policy
    for post in SCENARIO.posts:
        _, event = post.event(NOW_MS)
        last_ms = max(each.scheduled_for_ms for each in plan(event, policy, PostPlan(), 0))
        assert last_ms - NOW_MS <= pacing.longest_ms(len(post.member_ids))


def test_at_normal_speed_the_policy_is_the_default() -> None:
    assert Pacing(1).environment["POD_AUTOMATION_LIKE_CAP_WINDOW_MS"] == "3600000"
    assert Pacing(1).comment_max_ms == PacingPolicy().comment.max_ms
    assert isinstance(PacingPolicy().like, DelayWindow)


def fire(tally: Tally, member: str, *, due: int = 0, sent: int = 5, written: int = 9) -> str:
    """Count one like; times in ms after NOW_MS."""
    value = codec.execute_engagement(
        f"id-{member}", "pod", "post", member, "like", 1, NOW_MS + due, NOW_MS + sent
    )
    assert tally.add(value, NOW_MS + written) is not None
    return f"id-{member}"


def test_all_well() -> None:
    tally = Tally(["pod"])
    asked = {fire(tally, member) for member in "abc"}
    assert compare(asked, asked, tally) == (0, 0, 0)
    assert (tally.early, tally.late_ms(0.5), tally.by_pod["pod"]) == (0, 5, 3)


def test_faults_are_seen() -> None:
    tally = Tally(["pod"])
    fired = {fire(tally, member) for member in "abc"}
    fire(tally, "a")
    assert compare(fired | {"id-d"}, fired | {"id-d"}, tally) == (1, 1, 0), "planned, not fired"
    assert compare(fired, fired - {"id-b"}, tally) == (1, 1, 0), "fired, not on record"
    assert compare(fired - {"id-c"}, fired, tally) == (0, 1, 1), "nobody asked for it"
    assert compare(fired, fired | {"id-x"}, tally) == (0, 1, 1), "nor for this row"


def test_early_is_early_by_either_clock() -> None:
    tally = Tally(["pod"])
    fire(tally, "a", due=10, sent=9, written=11)
    fire(tally, "b", due=10, sent=11, written=9)
    fire(tally, "c", due=10, sent=10, written=10)
    assert tally.early == 2


def test_other_pods_are_not_counted() -> None:
    tally = Tally(["another"])
    value = codec.execute_engagement("id", "pod", "post", "m", "like", 1, NOW_MS, NOW_MS)
    assert tally.add(value, NOW_MS) is None
    assert not tally.fired


def test_the_cap_is_checked_in_every_stretch() -> None:
    tally = Tally(["pod"])
    for number, due in enumerate((300, 0, 100, 200)):
        fire(tally, str(number), due=due, sent=999, written=999)
    assert tally.over_the_cap(3, 300) == 0, "half-open: the fourth falls just outside"
    assert tally.over_the_cap(3, 301) == 1
    assert tally.over_the_cap(4, 10_000) == 0


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([7], 0.99) == 7
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile(range(1, 101), 1.0) == 100


GOOD = Report(
    published=11,
    published_twice=1,
    asked_for=200,
    planned=200,
    dispatched=200,
    recorded=200,
    executed=200,
    lost=0,
    duplicates=0,
    early=0,
    not_asked_for=0,
    over_the_cap=0,
    broken=2,
    dead_letters=2,
    late_p50_ms=3,
    late_p99_ms=20,
    late_max_ms=30,
    killed=0,
    seconds=60.0,
)


@pytest.mark.parametrize(
    "fault",
    [
        {"lost": 1},
        {"duplicates": 1},
        {"early": 1},
        {"not_asked_for": 1},
        {"over_the_cap": 1},
        {"planned": 199},
        {"recorded": 199},
        {"executed": 199},
        {"dead_letters": 1},
    ],
    ids=str,
)
def test_any_fault_fails_the_demo(fault: dict[str, int]) -> None:
    assert GOOD.ok
    assert not replace(GOOD, **fault).ok


def text_of(made: object) -> str:
    console = Console(width=110, no_color=True)
    with console.capture() as captured:
        console.print(made)
    return captured.get()


def test_the_closing_table_says_it_all() -> None:
    text = text_of(closing_table(GOOD))
    for name in ("published", "lost", "duplicates", "early", "lateness p99"):
        assert name in text
    assert "planned once, fired once, never early" in text
    assert "killed" not in text
    text = text_of(closing_table(replace(GOOD, lost=1, killed=2)))
    assert "has not kept its promise" in text
    assert "kill -9" in text


def test_the_live_picture() -> None:
    state = State([PodLine("a", 10, 8, 6, 4), PodLine("b"), PodLine("c", 10, 10, 10, 10)], 30)
    text = text_of(live_table(state))
    assert "████" in text
    assert "▓" in text
    assert "planned 20  due 18  dispatched 16  executed 14" in plain_line(state)


def test_without_a_terminal_there_are_lines_now_and_then() -> None:
    console = Console(width=110, no_color=True, force_terminal=False)
    state = State([PodLine("a", 1, 1, 1, 1)], 3)
    view = View(console)
    with console.capture() as captured:
        view.begin(state)
        for _ in range(20):
            view.turn(state)
        view.turn(state, last=True)
        view.end()
    assert len(captured.get().splitlines()) == 2
