"""How engagements are spread over time: the delay of each, and the cap on likes of one post."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

from scheduler.policy import DelayWindow
from scheduler.quiet_hours import QuietHours, free_from

# Jitter is a float in the policy; as parts of this the rest is integer arithmetic, the same
# everywhere.
_PARTS = 1_000_000


def seed_of(activity_id: str) -> int:
    """A number in [0, 2**64) from the first eight bytes of a UUID (four bits of it are fixed)."""
    return int(activity_id[:18].replace("-", ""), 16)


def delay_ms(window: DelayWindow, index: int, total: int, seed: int) -> int:
    """The delay of member `index` of `total`, in milliseconds, within `window`.

    Linear over the members, from `min_ms` for the first to `max_ms` for the last, then moved by at
    most `jitter` of itself either way, by `seed` in [0, 2**64), and clamped to the window
    (DESIGN, Pacing). One member alone has `min_ms` as the middle. Never a matter of chance: the
    same arguments give the same delay on every platform.
    """
    return Spread(window, total).delay_ms(index, seed)


class Spread:
    """`delay_ms` for all of `total` members, of which each takes half the time."""

    __slots__ = ("_last", "_max_ms", "_min_ms", "_parts", "_span_ms")

    def __init__(self, window: DelayWindow, total: int) -> None:
        self._min_ms = window.min_ms
        self._max_ms = window.max_ms
        self._span_ms = window.max_ms - window.min_ms
        self._last = max(total - 1, 1)
        self._parts = _parts(window.jitter)

    def delay_ms(self, index: int, seed: int) -> int:
        """See the function of that name."""
        delay = self._min_ms + self._span_ms * index // self._last
        delay = _moved(delay, self._parts, seed)
        if delay < self._min_ms:
            return self._min_ms
        return delay if delay < self._max_ms else self._max_ms


def moved_by_jitter(delay_ms: int, jitter: float, seed: int) -> int:
    """`delay_ms` moved by at most `jitter` (a share) of it either way, by `seed` in [0, 2**64)."""
    return _moved(delay_ms, _parts(jitter), seed)


def _parts(jitter: float) -> int:
    return round(jitter * _PARTS)


def _moved(delay_ms: int, parts: int, seed: int) -> int:
    reach = delay_ms * parts // _PARTS
    # Uniform over the integers from -reach to +reach.
    return delay_ms - reach + (seed * (2 * reach + 1) >> 64)


class Stretches:
    """Disjoint stretches [from, until) of a line, ascending. Those that touch become one."""

    __slots__ = ("_from", "_until")

    def __init__(self) -> None:
        self._from: list[int] = []
        self._until: list[int] = []

    def past(self, at_ms: int) -> int:
        """The first instant from `at_ms` on that is in none of them."""
        nearest = bisect_right(self._from, at_ms) - 1
        if nearest >= 0 and at_ms < self._until[nearest]:
            return self._until[nearest]
        return at_ms

    def add(self, from_ms: int, until_ms: int) -> None:
        """One more, which may overlap others."""
        starts, ends = self._from, self._until
        if starts and starts[-1] <= from_ms <= ends[-1] <= until_ms:
            # As mostly: the last stretch becomes longer.
            ends[-1] = until_ms
            return
        low = bisect_left(ends, from_ms)
        high = bisect_right(starts, until_ms)
        if low < high:
            from_ms = min(from_ms, starts[low])
            until_ms = max(until_ms, ends[high - 1])
        starts[low:high] = [from_ms]
        ends[low:high] = [until_ms]


class CappedTimes:
    """Times on a line, at most `cap` of them in any half-open stretch [x, x + window_ms).

    `times` are taken as they are and never moved, even where they break the cap among themselves
    (the policy may have changed); a time that is added is in no stretch of more than `cap`.
    """

    __slots__ = ("_cap", "_full", "_full_or_quiet", "_times", "_window_ms")

    def __init__(self, times: Iterable[int], cap: int, window_ms: int) -> None:
        self._times = sorted(times)
        self._cap = cap
        self._window_ms = window_ms
        # Where no time can be added any more: what is full stays full, since times are only added.
        # Without this, adding n times would look at n*n/2 of them: 10,000 members of one post would
        # take a minute.
        self._full = Stretches()
        self._full_or_quiet: dict[tuple[QuietHours, ...], Stretches] = {}

    def place(self, earliest_ms: int) -> int:
        """Add the first time from `earliest_ms` on that keeps the cap, and return it."""
        at_ms = self.first_free(earliest_ms)
        self.add(at_ms)
        return at_ms

    def add(self, at_ms: int) -> None:
        """Add a time that keeps the cap."""
        times = self._times
        if not times or at_ms >= times[-1]:
            times.append(at_ms)
        else:
            insort(times, at_ms)

    def first_free(self, earliest_ms: int, quiet: tuple[QuietHours, ...] = ()) -> int:
        """The first time from `earliest_ms` on that keeps the cap and is not quiet; not added."""
        if not quiet:
            at_ms = self._first_free(earliest_ms)
            if at_ms > earliest_ms:
                self._full.add(earliest_ms, at_ms)
            return at_ms
        # The nights of a month, say, would be gone through by each of them again.
        known = self._full_or_quiet.setdefault(quiet, Stretches())
        at_ms = known.past(earliest_ms)
        while (free_ms := free_from(quiet, self.first_free(at_ms))) > at_ms:
            at_ms = free_ms
        if at_ms > earliest_ms:
            known.add(earliest_ms, at_ms)
        return at_ms

    def _first_free(self, at_ms: int) -> int:
        # Each run of `cap` neighbours a..b that is shorter than the window forbids (b - window,
        # a + window), ends excluded: there the new time would be one too many. The runs ascend, so
        # one sweep is enough.
        times, window_ms, last = self._times, self._window_ms, self._cap - 1
        at_ms = self._full.past(at_ms)
        if not times or at_ms >= times[-1]:
            # Behind all of them, as mostly, the last run alone can forbid it.
            return max(at_ms, times[~last] + window_ms) if last < len(times) else at_ms
        first = bisect_right(times, at_ms - window_ms)
        while first + last < len(times):
            a, b = times[first], times[first + last]
            if b - window_ms >= at_ms:
                break
            if b - a < window_ms:
                at_ms = self._full.past(a + window_ms)
                first = bisect_right(times, at_ms - window_ms, first)
            else:
                first += 1
        return at_ms
