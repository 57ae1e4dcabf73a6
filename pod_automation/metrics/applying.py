"""What a worker does: statuses it has published, and dead letters."""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.activity import Announcement, Status
from scheduler.ports import Outbox, SourceRecord
from schemas.events import EngagementType

# How reasons begin (docs/events.md), and the label they get: what they quote must not become one.
REASONS = (
    ("no value", "empty"),
    ("the value is empty", "empty"),
    ("not UTF-8", "not_json"),
    ("not JSON", "not_json"),
    ("refused by PostgreSQL", "refused"),
    ("cannot be planned", "bug"),
    ("cannot be judged", "bug"),
    ("cannot be applied", "bug"),
    ("the activity has another", "another_activity"),
    ("failed", "engagement_failed"),
    ("too large", "too_large"),
)
OTHER = "not_the_event"
KINDS = sorted({OTHER, *(kind for _, kind in REASONS)})


def kind_of(reason: str) -> str:
    """The label of a dead letter's reason: one of a handful."""
    return next((kind for start, kind in REASONS if reason.startswith(start)), OTHER)


class Applying(Collector):
    """Counts what goes through an outbox."""

    def __init__(self, inputs: Sequence[str]) -> None:
        """`inputs` are the full names of the topics that are applied."""
        self._inputs = inputs
        self._statuses: Counter[tuple[str, str]] = Counter()
        self._letters: Counter[tuple[str, str]] = Counter()

    def counting(self, outbox: Outbox) -> Outbox:
        """`outbox`, with each confirmed call counted."""
        return _Counted(outbox, self)

    def announced(self, statuses: Sequence[Announcement]) -> None:
        """These were published."""
        self._statuses.update(
            Counter((each.status.value, each.engagement_type) for each in statuses)
        )

    def buried(self, record: SourceRecord, reason: str) -> None:
        """This became a dead letter."""
        self._letters[record.topic, kind_of(reason)] += 1

    def collect(self) -> Iterator[Metric]:
        """See `Collector`; called by a thread of its own."""
        statuses = CounterMetricFamily(
            "pod_automation_statuses",
            "Statuses published; after a crash some are published, and counted, once more.",
            labels=("status", "type"),
        )
        # From 0 on, or nobody would see the first as an increase.
        told = self._statuses.copy()
        for status, kind in itertools.product(Status, get_args(EngagementType)):
            statuses.add_metric((status, kind), told[status, kind])
        yield statuses
        letters = CounterMetricFamily(
            "pod_automation_dead_letters",
            "Dead letters, by the topic they came from and the kind of reason.",
            labels=("topic", "reason"),
        )
        buried = self._letters.copy()
        for topic, reason in itertools.product(self._inputs, KINDS):
            letters.add_metric((topic, reason), buried[topic, reason])
        yield letters


class _Counted:
    """The `Outbox` port, with a count of what was confirmed."""

    def __init__(self, outbox: Outbox, applying: Applying) -> None:
        self._outbox = outbox
        self._applying = applying

    async def announce(self, shard: int, statuses: Sequence[Announcement]) -> None:
        """See `Outbox.announce`."""
        await self._outbox.announce(shard, statuses)
        self._applying.announced(statuses)

    async def dead_letter(
        self, record: SourceRecord, reason: str, extra: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """See `Outbox.dead_letter`."""
        await self._outbox.dead_letter(record, reason, extra)
        self._applying.buried(record, reason)

    async def forward(self, record: SourceRecord, partition: int) -> None:
        """See `Outbox.forward`."""
        await self._outbox.forward(record, partition)
