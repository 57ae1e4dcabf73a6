"""Counting what came out of the engine: its records, as any consumer sees them."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from math import ceil

from schemas.codec import InvalidEvent, decode
from schemas.events import EngagementExecuted, EngagementStatus, ExecuteEngagement
from schemas.ids import timeout_event_id
from schemas.times import millis

FINAL = ("executed", "failed", "cancelled", "expired")

Attempt = tuple[str, int]
"""An activity's id, and which try it is, from 1."""


@dataclass(slots=True)
class Tally:
    """All committed `execute-engagement` events of some pods."""

    pods: Collection[str]
    fired: Counter[Attempt] = field(default_factory=Counter)
    """How often each attempt was sent."""
    dispatched: Counter[str] = field(default_factory=Counter)
    """By pod: first attempts."""
    retried: Counter[str] = field(default_factory=Counter)
    """By pod: all further ones."""
    lateness_ms: list[int] = field(default_factory=list)
    early: int = 0
    likes_ms: dict[str, list[int]] = field(default_factory=dict)
    """When each post's likes were due; the cap is on plans, and retries are none."""

    def add(self, value: bytes, written_ms: int) -> ExecuteEngagement | None:
        """Count one record; returns its event, None when it is of other pods.

        `written_ms` is the record's own time, which the engine's clock cannot colour.
        """
        event = decode(ExecuteEngagement, value)
        if event.pod_id not in self.pods:
            return None
        due_ms, sent_ms = millis(event.scheduled_for), millis(event.dispatched_at)
        self.fired[event.activity_id, event.attempt] += 1
        self.lateness_ms.append(sent_ms - due_ms)
        if sent_ms < due_ms or written_ms < due_ms:
            self.early += 1
        if event.attempt > 1:
            self.retried[event.pod_id] += 1
            return event
        self.dispatched[event.pod_id] += 1
        if event.engagement_type == "like":
            self.likes_ms.setdefault(event.post_id, []).append(due_ms)
        return event

    def attempts(self) -> dict[str, set[int]]:
        """Which attempts of each activity were sent."""
        found: dict[str, set[int]] = defaultdict(set)
        for activity, attempt in self.fired:
            found[activity].add(attempt)
        return found

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


@dataclass(slots=True)
class Results:
    """All records on `engagement-executed` of some pods, each partition in its order."""

    pods: Collection[str]
    executed: set[Attempt] = field(default_factory=set)
    """Attempts that an executor has reported as done."""
    timed_out: dict[Attempt, str] = field(default_factory=dict)
    """Attempts of which the first thing that was said is that no result has come; the words."""
    _told: set[Attempt] = field(default_factory=set)

    def add(self, value: bytes) -> None:
        """Count one record; what is no result, and copies, change nothing."""
        try:
            event = decode(EngagementExecuted, value)
        except InvalidEvent:
            return
        if event.pod_id not in self.pods:
            return
        attempt = (event.activity_id, event.attempt)
        if event.outcome == "executed":
            self.executed.add(attempt)
        if attempt not in self._told and event.event_id == timeout_event_id(*attempt):
            self.timed_out[attempt] = event.error or ""
        self._told.add(attempt)


@dataclass(slots=True)
class Ends:
    """All final statuses on `engagement-status` of some pods; copies of one count once."""

    pods: Collection[str]
    found: dict[str, set[tuple[str, int]]] = field(default_factory=lambda: defaultdict(set))
    """By activity: each final status with its attempt. It should have one."""

    def add(self, value: bytes) -> None:
        """Count one record."""
        event = decode(EngagementStatus, value)
        if event.pod_id in self.pods and event.status in FINAL:
            self.found[event.activity_id].add((event.status, event.attempt))

    def ended(self, status: str) -> int:
        """How many activities have ended as `status`."""
        return sum(any(each == status for each, _ in ends) for ends in self.found.values())


@dataclass(slots=True)
class Letters:
    """All records on `dead-letter` that have to do with the demo; copies of one count once."""

    pods: Collection[str]
    broken: Collection[bytes]
    buried: set[bytes] = field(default_factory=set)
    """Those of `broken` that are there."""
    failed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By activity: the ids of its letters. One that has failed should have one."""

    def add(self, value: bytes, letter_id: str) -> None:
        """Count one record; `letter_id` is its `ce_id`."""
        if value in self.broken:
            self.buried.add(value)
            return
        try:
            event = decode(EngagementExecuted, value)
        except InvalidEvent:
            return  # of another demo in the same folder
        if event.pod_id in self.pods:
            self.failed[event.activity_id].add(letter_id)


def percentile(values: Iterable[int], share: float) -> int:
    """The smallest of `values` that at least `share` of them do not exceed; 0 when empty."""
    ordered = sorted(values)
    if not ordered:
        return 0
    return ordered[max(0, ceil(share * len(ordered)) - 1)]
