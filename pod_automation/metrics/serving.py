"""Metrics over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import (
    CollectorRegistry,
    PlatformCollector,
    ProcessCollector,
    start_http_server,
)
from prometheus_client.registry import Collector

from scheduler.settings import Settings

log = structlog.get_logger(__name__)


@contextmanager
def served(settings: Settings, *collectors: Collector) -> Iterator[None]:
    """Serve what `collectors` have, and of the process itself, over HTTP where a port is set.

    A port that cannot be used is told in a line and stops nothing: a process that does its work
    without metrics is better than none.
    """
    if not settings.metrics_port:
        yield
        return
    registry = CollectorRegistry()
    PlatformCollector(registry=registry)
    ProcessCollector(registry=registry)
    for each in collectors:
        registry.register(each)
    try:
        server, thread = start_http_server(
            settings.metrics_port, settings.metrics_host, registry=registry
        )
    except (OSError, UnicodeError) as error:
        log.error(
            "no metrics: POD_AUTOMATION_METRICS_HOST and POD_AUTOMATION_METRICS_PORT name an"
            " address that cannot be used; set another port, or 0 for none",
            host=settings.metrics_host,
            port=settings.metrics_port,
            reason=str(error),
        )
        yield
        return
    log.info("metrics", host=settings.metrics_host, port=settings.metrics_port)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
