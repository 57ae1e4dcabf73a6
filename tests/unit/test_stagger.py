"""Delays and the cap by example; tests/property/test_planner.py holds the rules for all cases."""

from collections import Counter
from collections.abc import Sequence

import pytest

from scheduler.policy import HOUR_MS, MINUTE_MS, DelayWindow, PacingPolicy
from scheduler.quiet_hours import QuietHours
from scheduler.stagger import CappedTimes, delay_ms, seed_of
from schemas.ids import activity_id

LOWEST, MIDDLE, HIGHEST = 0, 1 << 63, (1 << 64) - 1


def test_delays_are_linear_over_the_members() -> None:
    window = DelayWindow(5 * MINUTE_MS, 30 * MINUTE_MS, jitter=0)

    delays = [delay_ms(window, index, 6, seed=HIGHEST) for index in range(6)]

    assert delays == [minutes * MINUTE_MS for minutes in (5, 10, 15, 20, 25, 30)]


def test_one_member_alone_has_the_shortest_delay() -> None:
    assert delay_ms(DelayWindow(100, 900, jitter=0), 0, 1, seed=MIDDLE) == 100


@pytest.mark.parametrize(
    ("seed", "delay"),
    [(LOWEST, 450), (MIDDLE, 500), (HIGHEST, 550)],
)
def test_jitter_moves_a_delay_by_its_share_at_most(seed: int, delay: int) -> None:
    assert delay_ms(DelayWindow(0, 1000, jitter=0.1), 1, 3, seed) == delay


@pytest.mark.parametrize(("index", "seed", "delay"), [(0, LOWEST, 100), (2, HIGHEST, 900)])
def test_jitter_does_not_leave_the_window(index: int, seed: int, delay: int) -> None:
    assert delay_ms(DelayWindow(100, 900, jitter=0.5), index, 3, seed) == delay


def test_every_millisecond_within_reach_is_as_likely() -> None:
    window = DelayWindow(10, 100, jitter=0.1)  # 50 in the middle, give or take 5
    steps = 11_000

    seeds = [((2 * step + 1) << 64) // (2 * steps) for step in range(steps)]
    delays = Counter(delay_ms(window, 4, 10, seed) for seed in seeds)

    assert delays == dict.fromkeys(range(45, 56), 1000)


def test_a_delay_is_the_same_on_every_platform_and_in_every_version() -> None:
    # A change here plans other times for a replay than those on record: that is a new contract.
    policy = PacingPolicy()
    like, comment = (activity_id("pod", "post", "member-1", kind) for kind in ("like", "comment"))

    assert seed_of(like) == 12516341815478016134
    assert delay_ms(policy.like, 1, 3, seed_of(like)) == 1_087_488
    assert delay_ms(policy.comment, 1, 3, seed_of(comment)) == 11_604_007


@pytest.mark.parametrize(
    ("existing", "cap", "earliest", "placed"),
    [
        pytest.param([], 1, 7, 7, id="nothing there"),
        pytest.param([0, 10, 20], 3, 5, 100, id="full: when the first leaves the window"),
        pytest.param([0, 10, 20], 3, 100, 100, id="exactly one window apart is apart"),
        pytest.param([0, 10, 20], 3, 99, 100, id="one less is not"),
        pytest.param([0, 10, 20], 4, 5, 5, id="room for a fourth"),
        pytest.param([50], 1, 0, 150, id="what comes later counts too"),
        pytest.param([100], 1, 0, 0, id="what comes a window later does not"),
        pytest.param([0, 200], 1, 20, 100, id="a gap that just fits"),
        pytest.param([0, 199], 1, 20, 299, id="a gap that is too small by one"),
        pytest.param([0, 150], 2, 70, 70, id="two that are no window together leave room"),
        pytest.param([0, 0, 0, 10, 50], 2, 5, 110, id="existing ones break the cap"),
        pytest.param([0, 0, 0], 2, 0, 100, id="doubles count each"),
    ],
)
def test_a_time_is_placed_where_the_cap_allows(
    existing: Sequence[int], cap: int, earliest: int, placed: int
) -> None:
    assert CappedTimes(existing, cap, window_ms=100).place(earliest) == placed


def test_what_was_placed_counts() -> None:
    times = CappedTimes([], cap=3, window_ms=HOUR_MS)

    placed = [times.place(MINUTE_MS * n) for n in (5, 7, 9, 11, 13, 15, 17)]

    assert placed == [MINUTE_MS * n for n in (5, 7, 9, 65, 67, 69, 125)]


def test_a_stretch_that_is_full_does_not_hide_the_room_before_it() -> None:
    times = CappedTimes([300, 310], cap=2, window_ms=100)

    assert [times.place(at) for at in (305, 205, 205, 100, 205)] == [400, 205, 410, 100, 500]


@pytest.mark.timeout(20)
def test_ten_thousand_members_take_well_under_a_second() -> None:
    # 0.1 s; looking at every time for every member would take half a minute.
    times = CappedTimes(range(0, 10_000_000, 1000), cap=3, window_ms=HOUR_MS)

    placed = [times.place(5 * MINUTE_MS + n * 150) for n in range(10_000)]

    assert placed == sorted(placed)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("hours", [(1320, 420), (1200, 960)])
def test_nor_do_they_take_longer_where_nights_are_quiet(hours: tuple[int, int]) -> None:
    # 0.3 s; looking at each night for every member would take minutes.
    times = CappedTimes([], cap=3, window_ms=HOUR_MS)
    quiet = (QuietHours(*hours, "Europe/Berlin"),)

    placed = []
    for n in range(10_000):
        placed.append(times.first_free(5 * MINUTE_MS + n * 150, quiet))
        times.add(placed[-1])

    assert placed == sorted(placed)
    assert not any(quiet[0].quiet_at(at) for at in placed)
