"""What a dispatcher does: timers fired and how late, transactions, its shards and their wheels."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from typing import get_args

import structlog
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pod_automation.metrics.histogram import Histogram
from scheduler.dispatch import Turn
from scheduler.errors import TransientError
from scheduler.ports import Wheel, WheelSize
from schemas.events import EngagementType

LATENESS_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 60_000, 600_000)
TRANSACTION_MS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000)

LOOK_S = 10.0
"""Between two looks at the wheels of our shards."""

log = structlog.get_logger(__name__)


class Firing(Collector):
    """The `Observer` of a dispatcher."""

    def __init__(self) -> None:
        self._fired: Counter[str] = Counter()
        self._timeouts = self._overdue = self._takeovers = self._rebuilds = 0
        self._owned: set[int] = set()
        self._sizes: dict[int, WheelSize] = {}
        self._clock_ahead_s: float | None = None
        self._lateness = Histogram(
            "pod_automation_lateness_seconds",
            "How long after it was due a timer was claimed, by the clock of the wheel.",
            LATENESS_MS,
        )
        self._transactions = Histogram(
            "pod_automation_transaction_seconds",
            "How long the transaction of a batch took.",
            TRANSACTION_MS,
        )

    def taken(self, shard: int, *, rebuilt: bool) -> None:
        """See `Observer.taken`."""
        self._takeovers += 1
        self._rebuilds += rebuilt
        self._owned.add(shard)

    def left(self, shard: int) -> None:
        """See `Observer.left`."""
        self._owned.discard(shard)
        self._sizes.pop(shard, None)

    def turned(self, shard: int, turn: Turn) -> None:
        """See `Observer.turned`."""
        likes = sum(timer.engagement_type == "like" for timer in turn.timers)
        self._fired["like"] += likes
        self._fired["comment"] += len(turn.timers) - likes
        self._timeouts += turn.timeouts
        self._overdue += turn.overdue
        self._lateness.add([turn.at_ms - timer.due_ms for timer in turn.timers])
        self._transactions.add([turn.commit_s * 1000])

    def show(self, shard: int, size: WheelSize, clock_ahead_s: float | None = None) -> None:
        """Show this wheel from now on and, where it is given, this lead of the wheel's clock."""
        self._sizes[shard] = size
        if clock_ahead_s is not None:
            self._clock_ahead_s = clock_ahead_s

    async def look(self, wheel: Wheel) -> None:
        """Look at the wheels of our shards again and again, until cancelled."""
        while True:
            try:
                for shard in sorted(self._owned):
                    size = await wheel.size(shard)
                    if shard in self._owned:
                        self.show(shard, size)
                before_s = time.time()
                theirs_s = await wheel.now_ms() / 1000
                # By the middle of the question, to half a round trip.
                self._clock_ahead_s = theirs_s - (before_s + time.time()) / 2
            except TransientError as error:
                log.debug("the wheels cannot be looked at", reason=str(error))
            except Exception:
                # Whatever it is: without this look the metrics stand still.
                log.exception("the wheels cannot be looked at")
            await asyncio.sleep(LOOK_S)

    def collect(self) -> Iterator[Metric]:
        """See `Collector`; called by a thread of its own."""
        fired = CounterMetricFamily(
            "pod_automation_fired", "Timers fired: attempts dispatched.", labels=("type",)
        )
        for kind in get_args(EngagementType):
            fired.add_metric((kind,), self._fired[kind])
        yield fired
        for name, documentation, count in (
            ("timeouts", "Attempts given up, since no result had come.", self._timeouts),
            ("overdue", "Timers reported as overdue instead of being fired.", self._overdue),
            ("takeovers", "Shards taken by this process.", self._takeovers),
            ("rebuilds", "Wheels rebuilt by this process.", self._rebuilds),
        ):
            yield CounterMetricFamily(f"pod_automation_{name}", documentation, value=count)
        yield GaugeMetricFamily(
            "pod_automation_shards_owned", "Shards of this process.", value=len(self._owned)
        )
        yield from self._lateness.collect()
        yield from self._transactions.collect()
        yield from self._wheels()
        if self._clock_ahead_s is not None:
            yield GaugeMetricFamily(
                "pod_automation_clock_ahead_seconds",
                "By how much the clock of Redis is ahead of this host's; negative: behind.",
                value=self._clock_ahead_s,
            )

    def _wheels(self) -> Iterator[Metric]:
        timers = GaugeMetricFamily(
            "pod_automation_wheel_timers",
            "Timers in the wheels of this process's shards, looked at every 10 s: `pending`, of"
            " which `due` are due, `held` are held back as overdue and `parked` have fallen due in"
            " a pause; `claimed`: in the batch under way; `awaited`: fired, and no result yet.",
            labels=("shard", "state"),
        )
        overdue = GaugeMetricFamily(
            "pod_automation_oldest_due_seconds",
            "How long the earliest timer of a wheel has been due; 0: none is.",
            labels=("shard",),
        )
        now_ms = (time.time() + (self._clock_ahead_s or 0)) * 1000
        for shard, size in sorted(self._sizes.copy().items()):
            for state, count in (
                ("pending", size.pending),
                ("due", size.due),
                ("held", size.held),
                ("parked", size.parked),
                ("claimed", size.in_flight),
                ("awaited", size.awaited),
            ):
                timers.add_metric((str(shard), state), count)
            late_s = 0.0 if size.next_due_ms is None else (now_ms - size.next_due_ms) / 1000
            overdue.add_metric((str(shard),), max(0.0, late_s) if size.due else 0.0)
        yield timers
        yield overdue
