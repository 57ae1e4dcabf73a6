"""The demo's scenario and count: values in, values out, and every kind of fault is seen."""

from collections import Counter
from dataclasses import replace

import pytest
from rich.console import Console

from pod_automation.demo.count import Tally, percentile
from pod_automation.demo.report import Report
from pod_automation.demo.scenario import Pacing, Post, Scenario
from pod_automation.demo.verdict import Faults, Figures
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


def fire(
    tally: Tally, member: str, *, due: int = 0, sent: int = 5, written: int = 9, attempt: int = 1
) -> None:
    """Count one like; times in ms after NOW_MS."""
    value = codec.fired(
        f"id-{member}", "pod", "post", member, "like", attempt, NOW_MS + due, NOW_MS + sent
    )[0]
    assert tally.add(value, NOW_MS + written) is not None


def test_each_attempt_is_counted_by_itself() -> None:
    tally = Tally(["pod"])
    for member in "abc":
        fire(tally, member)
    fire(tally, "a", attempt=2)
    fire(tally, "a", attempt=2)
    assert tally.fired == {("id-a", 1): 1, ("id-a", 2): 2, ("id-b", 1): 1, ("id-c", 1): 1}
    assert tally.attempts() == {"id-a": {1, 2}, "id-b": {1}, "id-c": {1}}
    assert (tally.dispatched["pod"], tally.retried["pod"]) == (3, 2)
    assert (tally.early, tally.late_ms(0.5)) == (0, 5)


def test_early_is_early_by_either_clock() -> None:
    tally = Tally(["pod"])
    fire(tally, "a", due=10, sent=9, written=11)
    fire(tally, "b", due=10, sent=11, written=9)
    fire(tally, "c", due=10, sent=10, written=10)
    assert tally.early == 2


def test_other_pods_are_not_counted() -> None:
    tally = Tally(["another"])
    value = codec.fired("id", "pod", "post", "m", "like", 1, NOW_MS, NOW_MS)[0]
    assert tally.add(value, NOW_MS) is None
    assert not tally.fired


def test_the_cap_is_checked_in_every_stretch() -> None:
    tally = Tally(["pod"])
    for number, due in enumerate((300, 0, 100, 200)):
        fire(tally, str(number), due=due, sent=999, written=999)
    assert tally.over_the_cap(3, 300) == 0, "half-open: the fourth falls just outside"
    assert tally.over_the_cap(3, 301) == 1
    assert tally.over_the_cap(4, 10_000) == 0
    fire(tally, "0", due=301, sent=999, written=999, attempt=2)
    assert tally.over_the_cap(4, 10_000) == 0, "the cap is on plans, and a retry is none"


def test_percentiles() -> None:
    assert percentile([], 0.5) == 0
    assert percentile([7], 0.99) == 7
    assert percentile(range(1, 101), 0.5) == 50
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile(range(1, 101), 1.0) == 100


FIGURES = Figures(executed=190, failed=10, retried=12, timed_out=4)
GOOD = Report(
    published=11,
    published_twice=1,
    asked_for=200,
    planned=200,
    dispatched=200,
    recorded=200,
    expected=FIGURES,
    kafka=FIGURES,
    postgresql=FIGURES,
    members=190,
    broken=2,
    dead_letters=12,
    faults=Faults(**dict.fromkeys(Faults.__dataclass_fields__, 0)),
    late_p50_ms=3,
    late_p99_ms=20,
    late_max_ms=30,
    killed=0,
    seconds=60.0,
)


@pytest.mark.parametrize("fault", Faults.__dataclass_fields__)
def test_any_fault_fails_the_demo(fault: str) -> None:
    assert GOOD.ok
    report = replace(GOOD, faults=replace(GOOD.faults, **{fault: 1}))
    assert not report.ok
    assert "has not kept its promise" in text_of(closing_table(report))


def text_of(made: object) -> str:
    console = Console(width=110, no_color=True)
    with console.capture() as captured:
        console.print(made)
    return captured.get()


def test_the_closing_table_says_it_all() -> None:
    text = text_of(closing_table(GOOD))
    for name in ("published", "lost", "duplicates", "early", "lateness p99"):
        assert name in text
    assert "fired once, never early" in text
    assert "killed" not in text
    for row in (
        ["executed", "190", "190", "190", "190", "agree"],
        ["failed", "10", "10", "10", "agree"],
        ["retried", "12", "12", "12", "agree"],
        ["timed", "out", "4", "4", "4", "agree"],
    ):
        assert row in [line.split() for line in text.splitlines()]
    less = replace(FIGURES, executed=189)
    text = text_of(closing_table(replace(GOOD, postgresql=less, killed=3)))
    assert "has not kept its promise" in text
    assert "differ" in text
    assert "kill -9" in text
    assert "at least 12" in text


def test_the_live_picture() -> None:
    pods = [PodLine("a", 10, 8, 6, 4, 1, 3), PodLine("b"), PodLine("c", 10, 10, 10, 10)]
    state = State(pods, 30, in_wheel=2, in_flight=1, awaited=5)
    text = text_of(live_table(state))
    assert "████" in text
    assert "▓" in text
    assert "2 timers, 5 awaited" in text
    line = plain_line(state)
    assert "planned 20  due 18  dispatched 16  executed 14  failed 1  retried 3" in line
    assert "awaited 5" in line
    assert state.left == 8


def test_the_bar_is_no_longer_than_its_pod() -> None:
    for pod in (PodLine("a", 10, 10, 10, 9, 1), PodLine("a", 10, 10, 8, 9, 1), PodLine("a", 10)):
        text = text_of(live_table(State([pod], 1)))
        assert sum(text.count(block) for block in "█▓░") == 24


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
