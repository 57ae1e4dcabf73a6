"""Quiet hours over all time zones, and over their changes of the clock."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.activity import PostPlan
from scheduler.controls import Orders, Subject
from scheduler.planner import plan
from scheduler.policy import PacingPolicy
from scheduler.quiet_hours import (
    DAY_MS,
    LONGEST_MINUTES,
    MINUTE_MS,
    QuietHours,
    after,
    between,
    clock_of,
    fault,
    free_from,
    minute_of,
)
from schemas.events import PostDetected
from schemas.times import moment

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",  # half an hour of daylight saving
    "Asia/Kathmandu",
    "Africa/Casablanca",  # goes back for Ramadan
    "America/Santiago",  # at midnight
    "Pacific/Apia",
    "Asia/Kolkata",
)
minutes = st.integers(0, 1439)


@st.composite
def hours(draw: st.DrawFn, zones: tuple[str, ...] = ZONES) -> QuietHours:
    start = draw(minutes)
    length = draw(st.integers(1, LONGEST_MINUTES))
    return QuietHours(start, (start + length) % 1440, draw(st.sampled_from(zones)))


instants = st.integers(1_600_000_000_000, 1_900_000_000_000)


def wall(at_ms: int, zone: str) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).astimezone(
        ZoneInfo(zone)
    )


@given(quiet=hours(), at_ms=instants)
def test_what_is_quiet_is_said_by_the_wall_clock(quiet: QuietHours, at_ms: int) -> None:
    clock = wall(at_ms, quiet.zone)
    minute = clock.hour * 60 + clock.minute
    if quiet.start < quiet.end:
        assert quiet.quiet_at(at_ms) == (quiet.start <= minute < quiet.end)
    else:
        assert quiet.quiet_at(at_ms) == (minute >= quiet.start or minute < quiet.end)


@given(quiet=hours(), at_ms=instants)
@settings(max_examples=400)
def test_the_first_free_instant_is_free_and_the_first(quiet: QuietHours, at_ms: int) -> None:
    free_ms = free_from((quiet,), at_ms)
    assert not quiet.quiet_at(free_ms)
    if not quiet.quiet_at(at_ms):
        assert free_ms == at_ms
        return
    assert 0 < free_ms - at_ms <= DAY_MS
    assert free_ms % MINUTE_MS == 0
    for minute in range(at_ms // MINUTE_MS + 1, free_ms // MINUTE_MS):
        assert quiet.quiet_at(minute * MINUTE_MS)


@given(quiet=hours(), at_ms=instants)
@settings(max_examples=400)
def test_what_is_between_counts_each_minute_that_is_not_quiet(
    quiet: QuietHours, at_ms: int
) -> None:
    from_ms = at_ms // MINUTE_MS * MINUTE_MS
    until_ms = from_ms + DAY_MS
    minutes_of = range(from_ms, until_ms, MINUTE_MS)
    free = sum(not quiet.quiet_at(minute_ms) for minute_ms in minutes_of)
    assert between((quiet,), from_ms, until_ms) == free * MINUTE_MS


@given(
    several=st.lists(hours(), min_size=1, max_size=2).map(tuple),
    base_ms=instants,
    delays=st.lists(st.integers(0, 3 * DAY_MS), min_size=2, max_size=8),
)
def test_delays_count_what_is_not_quiet_and_keep_their_order(
    several: tuple[QuietHours, ...], base_ms: int, delays: list[int]
) -> None:
    if sum(each.minutes for each in several) > 1200:
        return  # they may leave nothing
    delays.sort()
    at = [after(several, base_ms, delay) for delay in delays]
    assert at == sorted(at)
    for instant, delay in zip(at, delays, strict=True):
        assert not any(each.quiet_at(instant) for each in several)
        assert instant - base_ms >= delay
        assert between(several, base_ms, instant) == delay
    for first, second in pairwise(delays):
        # As far apart as before, quiet hours not counted.
        gap = after(several, base_ms, second) - after(several, base_ms, first)
        assert gap >= second - first


BERLIN = QuietHours(minute_of("22:00"), minute_of("02:30"), "Europe/Berlin")


@pytest.mark.parametrize(
    ("at", "free"),
    [
        # An ordinary night.
        ("2026-11-24T22:00:00+01:00", "2026-11-25T02:30:00+01:00"),
        ("2026-11-24T21:59:59.999+01:00", "2026-11-24T21:59:59.999+01:00"),
        ("2026-11-25T02:29:59.999+01:00", "2026-11-25T02:30:00+01:00"),
        # The clock jumps from two to three: half past two does not come.
        ("2026-03-28T23:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        # It goes back from three to two: half past two comes twice, and so do the quiet minutes.
        ("2026-10-24T23:00:00+02:00", "2026-10-25T02:30:00+02:00"),
        ("2026-10-25T02:15:00+01:00", "2026-10-25T02:30:00+01:00"),
        ("2026-10-25T02:45:00+02:00", "2026-10-25T02:45:00+02:00"),
    ],
)
def test_nights_in_berlin(at: str, free: str) -> None:
    def ms(text: str) -> int:
        return round(datetime.fromisoformat(text).timestamp() * 1000)

    assert free_from((BERLIN,), ms(at)) == ms(free)


def test_what_comes_twice_is_quiet_twice() -> None:
    quiet = QuietHours(minute_of("02:15"), minute_of("02:45"), "Europe/Berlin")
    behind_the_first = round(datetime.fromisoformat("2026-10-25T02:50:00+02:00").timestamp() * 1000)
    at_ms = after((quiet,), behind_the_first, 30 * MINUTE_MS)
    assert not quiet.quiet_at(at_ms)
    assert at_ms == behind_the_first + 60 * MINUTE_MS


@pytest.mark.parametrize(
    "several",
    [
        (QuietHours(0, 720, "UTC"), QuietHours(720, 0, "UTC")),
        # A pod's and a member's, each of which may be.
        (QuietHours(1320, 1080, "Europe/Berlin"), QuietHours(1020, 1380, "Europe/Berlin")),
    ],
)
def test_of_hours_that_leave_nothing_together_the_first_do_not_count(
    several: tuple[QuietHours, ...],
) -> None:
    for at_ms in range(1_700_000_000_000, 1_700_000_000_000 + DAY_MS, 3_600_000):
        assert free_from(several, at_ms) == free_from(several[1:], at_ms)
        for delay_ms in (0, 1, DAY_MS, 9 * DAY_MS):
            assert after(several, at_ms, delay_ms) == after(several[1:], at_ms, delay_ms)


@pytest.mark.parametrize(
    ("start", "end", "zone", "complaint"),
    [
        ("22:00", "07:00", "Europe/Berlin", None),
        ("22:00", "22:00", "UTC", "not 0"),
        ("07:00", "06:00", "UTC", "not 23"),
        ("22:00", "07:00", "Mars/Olympus", "no time zone"),
        ("22:00", "07:00", "../../etc/passwd", "no time zone"),
        ("22:00", "07:00", "", "no time zone"),
        ("22:00", "07:00", "localtime", "no time zone"),
        ("22:00", "07:00", "posix/Europe/Berlin", "no time zone"),
        ("9pm", "07:00", "UTC", "'9pm' is no time of day: write it like 22:00"),
        ("22:00", "7:00", "UTC", "'7:00' is no time of day"),
        ("22:00:00", "07:00", "UTC", "no time of day"),
        ("25:00", "07:00", "UTC", "no time of day"),
        ("", "07:00", "UTC", "no time of day"),
    ],
)
def test_what_makes_no_quiet_hours(start: str, end: str, zone: str, complaint: str | None) -> None:
    found = fault(start, end, zone)
    assert (found is None) == (complaint is None)
    assert complaint is None or complaint in str(found)


@given(minute=minutes)
def test_clocks_are_read_as_they_are_written(minute: int) -> None:
    assert minute_of(clock_of(minute)) == minute


@given(
    quiet=st.dictionaries(
        st.sampled_from(
            [Subject("pod", "p"), *(Subject("member", f"m{number}") for number in range(4))]
        ),
        hours(),
        min_size=1,
        max_size=3,
    ),
    detected_ms=instants,
    there=st.lists(st.integers(0, 2 * DAY_MS), max_size=6),
    members=st.integers(1, 12),
)
@settings(max_examples=150)
def test_nothing_is_planned_where_it_is_quiet(
    quiet: dict[Subject, QuietHours], detected_ms: int, there: list[int], members: int
) -> None:
    if sum(each.minutes for each in quiet.values()) > 1200:
        return
    event = PostDetected(
        event_id="e",
        pod_id="p",
        post_id="x",
        member_ids=tuple(f"m{number}" for number in range(members)),
        detected_at=moment(detected_ms),
    )
    policy, orders = PacingPolicy(), Orders(1, frozenset(), quiet)
    existing = PostPlan(frozenset(), tuple(sorted(detected_ms + each for each in there)))
    planned = plan(event, policy, existing, 0, orders)
    assert planned == plan(event, policy, existing, 0, orders)
    for each in planned:
        for hours_of in orders.quiet_for("p", each.member_id):
            assert not hours_of.quiet_at(each.scheduled_for_ms)
    # A new like is in no stretch of more than the cap; what was there may break it by itself.
    likes = sorted(
        [*existing.like_times_ms]
        + [each.scheduled_for_ms for each in planned if each.engagement_type == "like"]
    )
    for each in planned:
        if each.engagement_type != "like":
            continue
        at = each.scheduled_for_ms
        window, cap = policy.like_cap_window_ms, policy.like_cap
        for first in [time for time in likes if at - window < time <= at]:
            assert sum(first <= time < first + window for time in likes) <= cap or not (
                first <= at < first + window
            )
    # In the order in which the members stand, unless one of them has hours of their own.
    comments = [each for each in planned if each.engagement_type == "comment"]
    alone = [each for each in comments if Subject("member", each.member_id) not in quiet]
    without = {
        each.member_id: each.scheduled_for_ms
        for each in plan(event, policy, existing, 0)
        if each.engagement_type == "comment"
    }
    assert sorted(alone, key=lambda each: each.scheduled_for_ms) == sorted(
        alone, key=lambda each: (each.scheduled_for_ms, without[each.member_id])
    )
    for one, other in pairwise(sorted(alone, key=lambda each: without[each.member_id])):
        assert one.scheduled_for_ms <= other.scheduled_for_ms
