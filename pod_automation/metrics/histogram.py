"""A histogram that takes a whole batch at once: prometheus_client's takes a lock for each value."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import HistogramMetricFamily, Metric


class Histogram:
    """Counts by upper bounds, and the sum. Written by one thread, read by any."""

    def __init__(self, name: str, documentation: str, bounds_ms: Sequence[int]) -> None:
        """`bounds_ms`: upper bounds in milliseconds, ascending; they are shown in seconds."""
        self._name = name
        self._documentation = documentation
        self._bounds_ms = bounds_ms
        self._counts = [0] * (len(bounds_ms) + 1)
        self._sum_ms = 0.0

    def add(self, values_ms: Sequence[float]) -> None:
        """Count `values_ms`, in any order; cheapest where they are sorted."""
        ordered = sorted(values_ms)
        below = 0
        for at, bound in enumerate(self._bounds_ms):
            upto = bisect_right(ordered, bound, below)
            self._counts[at] += upto - below
            below = upto
        self._counts[-1] += len(ordered) - below
        self._sum_ms += sum(ordered)

    def collect(self) -> Iterator[Metric]:
        """As a metric, in seconds."""
        shown = HistogramMetricFamily(self._name, self._documentation)
        counts, total = list(self._counts), 0
        buckets = []
        for bound, count in zip([*self._bounds_ms, None], counts, strict=True):
            total += count
            name = "+Inf" if bound is None else f"{bound / 1000:g}"
            buckets.append((name, total))
        shown.add_metric((), buckets, self._sum_ms / 1000)
        yield shown
