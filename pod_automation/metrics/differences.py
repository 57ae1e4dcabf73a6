"""What the last light look at the stores has found."""

import time
from collections.abc import Iterator

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scheduler.quick_look import QuickReport

KINDS_LOOKED_FOR = (
    "no_wheel",
    "wheel_behind",
    "wheel_ahead",
    "cursor",
    "waiting",
    "awaited",
)
STALE_AFTER = 3
"""Intervals without a look after which the last one is no longer shown: another worker leads."""


class Differences(Collector):
    """The last report, as gauges. Only the worker that does the chores has one."""

    def __init__(self, interval_s: float) -> None:
        """`interval_s` is the time between two looks."""
        self._stale_s = STALE_AFTER * interval_s
        self._report: QuickReport | None = None
        self._at_s = 0.0
        self._seen_s = 0.0

    def tell(self, report: QuickReport) -> None:
        """Show `report` from now on."""
        self._at_s, self._seen_s, self._report = time.time(), time.monotonic(), report

    def collect(self) -> Iterator[Metric]:
        """See `Collector`; called by a thread of its own."""
        differences = GaugeMetricFamily(
            "pod_automation_reconcile_differences",
            "By how much the stores have differed at two looks between which nothing moved.",
            labels=("shard", "kind"),
        )
        last_run = GaugeMetricFamily(
            "pod_automation_reconcile_last_run_timestamp_seconds",
            "When the stores were compared last.",
        )
        lag = GaugeMetricFamily(
            "pod_automation_input_lag",
            "Records that are not applied yet.",
            labels=("topic", "partition"),
        )
        report = self._report
        if report is not None and time.monotonic() - self._seen_s < self._stale_s:
            for shard, found in report.differences.items():
                by_kind = {kind.value: by for kind, by in found.items()}
                for kind in KINDS_LOOKED_FOR:
                    differences.add_metric((str(shard), kind), abs(by_kind.get(kind, 0)))
            for topic, partitions in report.lag.items():
                for partition, records in partitions.items():
                    lag.add_metric((topic, str(partition)), records)
            last_run.add_metric((), self._at_s)
        yield differences
        yield last_run
        yield lag
