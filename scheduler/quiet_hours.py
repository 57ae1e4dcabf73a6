"""Hours in which nothing is to fall due, by the clocks of a time zone. Pure arithmetic on instants.

What is quiet is said by the wall clock. Where that jumps ahead, an hour is missing, and quiet hours
that would have ended in it end with the jump; where it goes back, an hour comes twice, and is quiet
both times.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Self
from zoneinfo import ZoneInfo

from msgspec import Struct

from schemas.events import is_clock_time
from schemas.times import LATEST_MS

MINUTE_MS = 60_000
DAY_MINUTES = 1440
DAY_MS = DAY_MINUTES * MINUTE_MS

LONGEST_MINUTES = 20 * 60
"""Something must be left of a day, also of the one that has an hour less."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# What each host means by these is its own, and all workers must plan alike.
_LOCAL = ("localtime", "posixrules", "Factory")
_VARIANTS = ("posix/", "right/")


class QuietHours(Struct, frozen=True):
    """From `start` until `end`, minutes after midnight by the clocks of `zone` (IANA); over
    midnight where the end is before the start. Begin is quiet, end is not."""

    start: int
    end: int
    zone: str

    @property
    def minutes(self) -> int:
        """How long they are by the clock."""
        return (self.end - self.start) % DAY_MINUTES

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Self:
        """From the value of a control: `from`, `until`, `zone`."""
        return cls(minute_of(value["from"]), minute_of(value["until"]), value["zone"])

    def quiet_at(self, at_ms: int) -> bool:
        """Whether it is quiet at that instant."""
        return not any(start <= at_ms < end for start, end in _free((self,), at_ms // DAY_MS))


def free_from(hours: tuple[QuietHours, ...], at_ms: int) -> int:
    """The first instant from `at_ms` on at which none of `hours` are quiet.

    Where together they leave nothing of a week, the first of them does not count.
    """
    return after(hours, at_ms, 0)


def after(hours: tuple[QuietHours, ...], base_ms: int, delay_ms: int) -> int:
    """The instant that lies `delay_ms` behind `base_ms`, quiet hours not counted.

    So whoever is later by the delay is later by the instant, and as far apart as before, but for
    the quiet hours in between. Where together they leave nothing of a week, the first of `hours`
    does not count.
    """
    at_ms, left_ms = base_ms, delay_ms
    day, barren = at_ms // DAY_MS, 0
    while hours:
        barren += 1
        for start, end in _free(hours, day):
            if at_ms < end:
                start, barren = max(start, at_ms), 0
                if left_ms < end - start:
                    return start + left_ms
                left_ms -= end - start
        day += 1
        if not barren:
            at_ms = day * DAY_MS
        elif barren > 7:
            hours, day, barren = hours[1:], at_ms // DAY_MS, 0
    return at_ms + left_ms


def between(hours: tuple[QuietHours, ...], from_ms: int, until_ms: int) -> int:
    """How much of the time from one instant until another is not quiet (ms); the inverse of `after`
    where the other is not quiet. Of hours that leave nothing of a week the first do not count."""
    first = from_ms // DAY_MS
    while hours and not any(_free(hours, day) for day in range(first, first + 8)):
        hours = hours[1:]
    days = range(from_ms // DAY_MS, until_ms // DAY_MS + 1)
    return sum(
        max(0, min(end, until_ms) - max(start, from_ms))
        for day in days
        for start, end in _free(hours, day)
    )


@lru_cache(maxsize=16_384)
def _free(hours: tuple[QuietHours, ...], day: int) -> tuple[tuple[int, int], ...]:
    """What of a day of UTC none of `hours` are quiet: stretches [from, until), ascending."""
    free = []
    at_ms, end_ms = day * DAY_MS, (day + 1) * DAY_MS
    for quiet_ms, until_ms in sorted(each for one in hours for each in _quiet(one, day)):
        if at_ms < quiet_ms:
            free.append((at_ms, quiet_ms))
        at_ms = max(at_ms, until_ms)
    if at_ms < end_ms:
        free.append((at_ms, end_ms))
    return tuple(free)


def _quiet(hours: QuietHours, day: int) -> Iterator[tuple[int, int]]:
    """Stretches of a day of UTC that are quiet, in any order."""
    for from_ms, until_ms, offset_ms in _offsets(hours.zone, day):
        # By the clock, which does not jump within these.
        first, last = (from_ms + offset_ms) // DAY_MS, (until_ms + offset_ms) // DAY_MS
        for local_day in range(first - 1, last + 1):
            start_ms = local_day * DAY_MS + hours.start * MINUTE_MS - offset_ms
            end_ms = start_ms + hours.minutes * MINUTE_MS
            if start_ms < until_ms and from_ms < end_ms:
                yield max(start_ms, from_ms), min(end_ms, until_ms)


@lru_cache(maxsize=4096)
def _offsets(zone: str, day: int) -> tuple[tuple[int, int, int], ...]:
    """From when until when of a day of UTC the clocks are so much ahead of it (ms)."""
    from_ms, until_ms = day * DAY_MS, (day + 1) * DAY_MS
    before, behind = _ahead(zone, from_ms), _ahead(zone, until_ms)
    if before == behind:
        return ((from_ms, until_ms, before),)
    # They jump once a day at most.
    low, high = from_ms, until_ms
    while high - low > 1000:
        middle = (low + high) // 2000 * 1000
        low, high = (middle, high) if _ahead(zone, middle) == before else (low, middle)
    return (from_ms, high, before), (high, until_ms, behind)


def _ahead(zone: str, at_ms: int) -> int:
    # Not by a timestamp: a float would do, but this is exact. Behind the last day that an event may
    # carry it goes on as on that one.
    at = (_EPOCH + timedelta(milliseconds=min(at_ms, LATEST_MS))).astimezone(_zone(zone))
    return (at.utcoffset() or timedelta()) // timedelta(milliseconds=1)


def fault(start: str, end: str, zone: str) -> str | None:
    """Why these make no quiet hours; None where they do."""
    for clock in (start, end):
        if not is_clock_time(clock):
            return f"{clock[:64]!r} is no time of day: write it like 22:00"
    try:
        if zone in _LOCAL or zone.startswith(_VARIANTS):
            raise KeyError(zone)
        _zone(zone)
    except (ValueError, OSError, KeyError):
        return f"there is no time zone {zone[:64]!r}"
    minutes = (minute_of(end) - minute_of(start)) % DAY_MINUTES
    if not 0 < minutes <= LONGEST_MINUTES:
        return f"quiet hours last up to {LONGEST_MINUTES // 60} hours, not {minutes / 60:g}"
    return None


def minute_of(clock: str) -> int:
    """`22:30` as minutes after midnight."""
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def clock_of(minute: int) -> str:
    """Its inverse."""
    return f"{minute // 60:02d}:{minute % 60:02d}"


def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)  # which keeps what it has read
