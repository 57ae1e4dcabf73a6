"""What the API answers, and whom it does not let in."""

from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector

METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT")
OTHER_METHOD = "other"
"""Anyone may invent methods: they must not become labels."""

Refusal = Literal["token", "rate", "role"]


class Answering:
    """Counts requests. A registry of its own: each app of a process has its own counts."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "pod_automation_api_request_seconds",
            "How long requests took, by the pattern of their path; `none`: there is nothing.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._refused = Counter(
            "pod_automation_api_refused",
            "Requests that were not let in: no token, too many, or not of that role.",
            ("why",),
            registry=self._registry,
        )

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request has its answer. `route` is the pattern of the path, not the path."""
        shown = method if method in METHODS else OTHER_METHOD
        self._seconds.labels(shown, route, status).observe(seconds)

    def refused(self, why: Refusal) -> None:
        """A request was not let in."""
        self._refused.labels(why).inc()

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)

    def collectors(self) -> tuple[Collector, ...]:
        """What is in `text`."""
        return (self._seconds, self._refused)
