"""Writes docs/metrics.md from the collectors: `python -m pod_automation.metrics.reference`.

With `--check` nothing is written: the exit code is 1 when the page is not what the code says.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import get_args

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pod_automation.metrics.answering import METHODS, OTHER_METHOD, Answering
from pod_automation.metrics.applying import OTHER, REASONS, Applying
from pod_automation.metrics.differences import KINDS_LOOKED_FOR, Differences
from pod_automation.metrics.firing import Firing
from scheduler.activity import Announcement, Status
from scheduler.generated import keep_fresh
from scheduler.ports import SourceRecord, WheelSize
from scheduler.quick_look import QuickReport
from schemas.events import EngagementType
from schemas.topics import Topics

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
COMMAND = "python -m pod_automation.metrics.reference"

_ABOUT = f"""\
# Metrics

<!-- Generated from pod_automation/metrics by `{COMMAND}`. Change it there. -->

For Prometheus, off by default. With [`POD_AUTOMATION_METRICS_PORT`](configuration.md#processes) a
worker or dispatcher serves them at `http://HOST:PORT/metrics`, on 127.0.0.1 unless
`POD_AUTOMATION_METRICS_HOST` says otherwise; the API serves its own at `/metrics` of its port,
without a token. Processes of one host need a port each. A port in use is one line in the log
(`no metrics`), and the process works on without. Worker and dispatcher show metrics of the process
itself (`process_*`, `python_info`) too.

No label holds a pod, a post or a member, and none grows with them: the labels below are all there
are, times shards or partitions. Counters begin at 0 with each process. What each alert means is in
the [runbook](runbook.md#alerts).
"""

_HEAD = ("| metric | type | labels | meaning |", "|---|---|---|---|")


def sections() -> tuple[tuple[str, str, Sequence[Collector]], ...]:
    """Title, about and collectors of each kind of process; each collector has seen something, so
    that all metrics and labels show."""
    firing, applying = Firing(), Applying(Topics.prefixed().inputs)
    differences, answering = Differences(60), Answering()
    firing.show(0, WheelSize("gen", 1, 0, 0, {}), clock_ahead_s=0.0)
    applying.announced([Announcement("a", "pod", "post", "m", "like", Status.SCHEDULED, 1, 0)])
    applying.buried(SourceRecord("topic", 0, 0, None, None, ()), "not JSON")
    differences.tell(QuickReport({0: {}}, {"topic": {0: 0}}))
    answering.answered("GET", "/healthz", 200, 0.001)
    answering.refused("token")
    return (
        ("Dispatcher", "Of its own shards: sum over the dispatchers.", (firing,)),
        ("Worker", "What it has written: sum over the workers.", (applying,)),
        (
            "The worker that does the chores",
            "One worker has these at a time, looked at every"
            " `POD_AUTOMATION_RECONCILE_INTERVAL_MS`; another takes over when it goes.",
            (differences,),
        ),
        ("API", "At `/metrics` of the port of `pod-automation api`.", answering.collectors()),
    )


def page() -> str:
    """The whole page."""
    parts = [_ABOUT]
    for title, about, collectors in sections():
        rows = [_row(metric) for each in collectors for metric in each.collect()]
        parts.append("\n".join((f"## {title}", "", about, "", *_HEAD, *rows, "")))
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return keep_fresh(PAGE, page().encode(), COMMAND, __doc__ or "", arguments)


def names(metric: Metric) -> Iterator[str]:
    """The names by which a metric's samples are asked for."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    yield from (metric.name + suffix for suffix in suffixes.get(metric.type, ("",)))


def _row(metric: Metric) -> str:
    shown = metric.name + ("_total" if metric.type == "counter" else "")
    found: dict[str, set[str]] = {}
    for sample in metric.samples:
        for label, value in sample.labels.items():
            if label != "le":
                found.setdefault(label, set()).add(value)
    labels = "; ".join(_label(metric.name, *each) for each in found.items())
    # A bar ends a cell, even within a code span.
    cells = (f"`{shown}`", metric.type, labels, metric.documentation)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _label(name: str, label: str, seen: set[str]) -> str:
    """A label and its values, where there is a list of them."""
    values: Sequence[str] = {
        ("pod_automation_statuses", "status"): [each.value for each in Status],
        ("pod_automation_statuses", "type"): get_args(EngagementType),
        ("pod_automation_dead_letters", "reason"): [
            *dict.fromkeys(kind for _, kind in REASONS),
            OTHER,
        ],
        ("pod_automation_reconcile_differences", "kind"): KINDS_LOOKED_FOR,
        ("pod_automation_api_request_seconds", "method"): [*METHODS, OTHER_METHOD],
        ("pod_automation_api_refused", "why"): ["token", "rate", "role"],
    }.get((name, label), sorted(seen) if len(seen) > 1 else ())
    return f"`{label}`" + (f": {', '.join(values)}" if values else "")


if __name__ == "__main__":
    sys.exit(main())
