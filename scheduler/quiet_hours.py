"""Hours in which nothing is to fall due, by the clocks of a time zone. Pure arithmetic on instants.

What is quiet is said by the wall clock. Where that jumps ahead, an hour is missing, and quiet hours
that would have ended in it end with the jump; where it goes back, an hour comes twice, and is quiet
both times.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from msgspec import Struct

from schemas.events import is_clock_time

MINUTE_MS = 60_000
DAY_MINUTES = 1440

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

    def quiet_at(self, at_ms: int) -> bool:
        """Whether it is quiet at that instant."""
        return (self._minute(at_ms) - self.start) % DAY_MINUTES < self.minutes

    def free_from(self, at_ms: int) -> int:
        """The first instant from `at_ms` on at which it is not quiet."""
        while self.quiet_at(at_ms):
            end_ms = _whole(at_ms) + self._until(at_ms, self.end) * MINUTE_MS
            # By the clock as it was at the beginning: it may have jumped on the way.
            at_ms = self._first(at_ms, end_ms, quiet=False)
        return at_ms

    def quiet_from(self, at_ms: int) -> int:
        """The first instant after `at_ms`, at which it is not quiet, at which it is."""
        while not self.quiet_at(at_ms):
            start_ms = _whole(at_ms) + self._until(at_ms, self.start) * MINUTE_MS
            at_ms = self._first(at_ms, start_ms, quiet=True)
        return at_ms

    def _minute(self, at_ms: int) -> int:
        # Not by a timestamp: a float would do, but this is exact.
        at = (_EPOCH + timedelta(milliseconds=at_ms)).astimezone(_zone(self.zone))
        return at.hour * 60 + at.minute

    def _until(self, at_ms: int, minute: int) -> int:
        """Minutes from `at_ms` until the clock says `minute`, one at least."""
        return (minute - self._minute(at_ms) - 1) % DAY_MINUTES + 1

    def _first(self, after_ms: int, by_ms: int, *, quiet: bool) -> int:
        """The first whole minute after `after_ms` at which it is as wanted, if that is by `by_ms`;
        else `by_ms`."""
        low, high = after_ms // MINUTE_MS, by_ms // MINUTE_MS
        if self.quiet_at(by_ms) != quiet:
            return by_ms
        while high - low > 1:
            middle = (low + high) // 2
            if self.quiet_at(middle * MINUTE_MS) == quiet:
                high = middle
            else:
                low = middle
        return high * MINUTE_MS


def free_from(hours: Sequence[QuietHours], at_ms: int) -> int:
    """The first instant from `at_ms` on at which none of `hours` are quiet.

    Where together they leave no minute of a day, it gives up after a week, and says the last end.
    """
    limit_ms = at_ms + 7 * DAY_MINUTES * MINUTE_MS
    while at_ms < limit_ms:
        moved_ms = at_ms
        for each in hours:
            moved_ms = each.free_from(moved_ms)
        if moved_ms == at_ms:
            break
        at_ms = moved_ms
    return at_ms


def after(hours: Sequence[QuietHours], base_ms: int, delay_ms: int) -> int:
    """The instant that lies `delay_ms` behind `base_ms`, quiet hours not counted.

    So whoever is later by the delay is later by the instant, and as far apart as before, but for
    the quiet hours in between.
    """
    at_ms = free_from(hours, base_ms)
    while True:
        quiet_ms = min(each.quiet_from(at_ms) for each in hours)
        if at_ms + delay_ms < quiet_ms:
            return at_ms + delay_ms
        delay_ms -= quiet_ms - at_ms
        at_ms = free_from(hours, quiet_ms)


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


def _whole(at_ms: int) -> int:
    return at_ms // MINUTE_MS * MINUTE_MS


def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)  # which keeps what it has read
