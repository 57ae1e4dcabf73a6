"""Delays and the cap, for any window and any times."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.policy import DelayWindow
from scheduler.quiet_hours import MINUTE_MS, QuietHours, free_from
from scheduler.stagger import CappedTimes, delay_ms

delays = st.integers(0, 1_000_000)
seeds = st.integers(0, (1 << 64) - 1)
# Close together, so that likes push each other about.
times = st.lists(st.integers(0, 80), max_size=25)


@given(delays, delays, st.floats(0, 0.99), st.integers(1, 50), seeds, st.data())
def test_a_delay_is_linear_but_for_its_jitter_and_within_its_window(
    one: int, other: int, jitter: float, total: int, seed: int, data: st.DataObject
) -> None:
    window = DelayWindow(min(one, other), max(one, other), jitter)
    index = data.draw(st.integers(0, total - 1))
    share = index / (total - 1) if total > 1 else 0
    middle = window.min_ms + (window.max_ms - window.min_ms) * share

    delay = delay_ms(window, index, total, seed)

    assert window.min_ms <= delay <= window.max_ms
    # Integers: one millisecond for the rounding, a millionth for that of the jitter.
    assert abs(delay - middle) <= middle * (jitter + 1e-6) + 1


@settings(max_examples=1000)
@given(times, times, st.integers(1, 5), st.integers(1, 40))
def test_each_time_is_placed_at_the_first_millisecond_that_keeps_the_cap(
    existing: list[int], wanted: list[int], cap: int, window_ms: int
) -> None:
    capped = CappedTimes(existing, cap, window_ms)
    there = list(existing)

    for earliest in wanted:
        expected = earliest
        while not fits(there, expected, cap, window_ms):
            expected += 1
        assert capped.place(earliest) == expected
        there.append(expected)


@settings(max_examples=300)
@given(
    st.lists(st.integers(0, 3000), max_size=8),
    st.lists(st.integers(0, 3000), min_size=1, max_size=8),
    st.integers(1, 3),
    st.integers(1, 500),
    st.lists(st.integers(0, 1), min_size=8, max_size=8),
)
def test_likewise_beside_quiet_hours(
    existing: list[int], wanted: list[int], cap: int, window_minutes: int, whose: list[int]
) -> None:
    window_ms = window_minutes * MINUTE_MS
    there = [each * MINUTE_MS for each in existing]
    capped = CappedTimes(there, cap, window_ms)
    hours = [
        (QuietHours(1320, 420, "UTC"),),
        (QuietHours(60, 90, "UTC"), QuietHours(80, 500, "UTC")),
    ]

    for earliest, who in zip(wanted, whose, strict=False):
        quiet, at = hours[who], earliest * MINUTE_MS
        # By itself each is right (above, and test_quiet_hours.py); here what is kept of them.
        fresh = CappedTimes(there, cap, window_ms)
        while (free := free_from(quiet, fresh.first_free(at))) > at:
            at = free
        assert capped.first_free(earliest * MINUTE_MS, quiet) == at
        capped.add(at)
        there.append(at)


def fits(there: Sequence[int], at: int, cap: int, window_ms: int) -> bool:
    """Whether every window that would hold `at` holds at most `cap`, looking at each of them."""
    return all(
        sum(start <= x < start + window_ms for x in there) < cap
        for start in range(at - window_ms + 1, at + 1)
    )
