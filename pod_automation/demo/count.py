"""Counting what came out of the engine: its records, as any consumer sees them."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from math import ceil

from schemas.codec import decode
from schemas.events import ExecuteEngagement
from schemas.times import millis


@dataclass(slots=True)
class Tally:
    """All committed `execute-engagement` events of some pods."""

    pods: Collection[str]
    fired: Counter[str] = field(default_factory=Counter)
    """How often each activity has fired."""
    by_pod: Counter[str] = field(default_factory=Counter)
    lateness_ms: list[int] = field(default_factory=list)
    early: int = 0
    likes_ms: dict[str, list[int]] = field(default_factory=dict)
    """When each post's likes were due."""

    def add(self, value: bytes, written_ms: int) -> ExecuteEngagement | None:
        """Count one record; returns its event, None when it is of other pods.

        `written_ms` is the record's own time, which the engine's clock cannot colour.
        """
        event = decode(ExecuteEngagement, value)
        if event.pod_id not in self.pods:
            return None
        due_ms, sent_ms = millis(event.scheduled_for), millis(event.dispatched_at)
        self.fired[event.activity_id] += 1
        self.by_pod[event.pod_id] += 1
        self.lateness_ms.append(sent_ms - due_ms)
        if sent_ms < due_ms or written_ms < due_ms:
            self.early += 1
        if event.engagement_type == "like":
            self.likes_ms.setdefault(event.post_id, []).append(due_ms)
        return event

    def late_ms(self, share: float) -> int:
        """The lateness that `share` of all events stay within, 0 when there is none."""
        return percentile(self.lateness_ms, share)

    def over_the_cap(self, cap: int, window_ms: int) -> int:
        """Posts with more than `cap` likes in some stretch of `window_ms`."""
        over = 0
        for times in self.likes_ms.values():
            times.sort()
            over += any(
                last - first < window_ms for first, last in zip(times, times[cap:], strict=False)
            )
        return over


def percentile(values: Iterable[int], share: float) -> int:
    """The smallest of `values` that at least `share` of them do not exceed; 0 when empty."""
    ordered = sorted(values)
    if not ordered:
        return 0
    return ordered[max(0, ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What closes the demo. Lateness in milliseconds."""

    published: int
    published_twice: int
    asked_for: int
    planned: int
    dispatched: int
    recorded: int
    """Rows that PostgreSQL has as dispatched."""
    executed: int
    lost: int
    duplicates: int
    early: int
    not_asked_for: int
    over_the_cap: int
    broken: int
    dead_letters: int
    late_p50_ms: int
    late_p99_ms: int
    late_max_ms: int
    killed: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether the engine has kept what it promises."""
        wrong = (
            self.lost,
            self.duplicates,
            self.early,
            self.not_asked_for,
            self.over_the_cap,
            self.asked_for - self.planned,
            self.asked_for - self.recorded,
            self.asked_for - self.executed,
            self.broken - self.dead_letters,
        )
        return not any(wrong)


def compare(
    asked_for: Collection[str], rows: Collection[str], tally: Tally
) -> tuple[int, int, int]:
    """Activities lost, fired more than once, and fired or planned that nobody asked for.

    Lost is what was asked for and is not a row, or has not fired.
    """
    asked, planned, fired = set(asked_for), set(rows), set(tally.fired)
    lost = len(asked - (planned & fired))
    twice = sum(times - 1 for times in tally.fired.values())
    return lost, twice, len((planned | fired) - asked)
