"""Opens what traces need, for one process, where the settings ask for it."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import structlog

from scheduler.adapters.redis_traces import RedisTraces
from scheduler.errors import SettingsError
from scheduler.settings import ENV_PREFIX, Settings

if TYPE_CHECKING:
    from pod_automation.tracing.spans import Tracing

FLUSH_S = 2.0
"""How long the end of a process waits for its last spans to be taken; no longer than an eighth of
its grace."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def opened(settings: Settings, process: str) -> AsyncIterator["Tracing | None"]:
    """What makes spans in a `process` (worker, dispatcher, executor); None where traces are off.

    Where spans go, and which of them, is said by the variables of OpenTelemetry
    (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, ...). Spans that nobody takes are
    dropped; the process does not wait for them. Raises `SettingsError` without the extra `traces`.
    """
    if settings.traces == "off":
        yield None
        return
    try:
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from pod_automation.tracing.exporting import Exporter
    except ImportError:
        raise SettingsError(
            f"{ENV_PREFIX}TRACES=otlp needs the extra traces:"
            ' pip install "pod-automation-engine[traces]"'
        ) from None
    from pod_automation.tracing.spans import Tracing

    about = {"service.name": "pod-automation", "pod_automation.process": process}
    if settings.instance_id:
        about["service.instance.id"] = settings.instance_id
    # What the environment says of the resource comes first.
    provider = TracerProvider(
        resource=Resource(about).merge(Resource.create()), shutdown_on_exit=False
    )
    # A batch of timers ends all its spans at once, of each shard.
    asked = os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", "")
    room = max(int(asked) if asked.isdecimal() else 0, 4 * settings.dispatch_batch)
    provider.add_span_processor(BatchSpanProcessor(Exporter(), max_queue_size=room))
    traces = RedisTraces(settings.redis_url, prefix=settings.topic_prefix)
    log.info("traces", process=process)
    try:
        yield Tracing(provider.get_tracer("pod-automation"), traces)
    finally:
        # In a thread that does not hold up the end of the process, where nobody takes them.
        ending = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        ending.start()
        try:
            await traces.close()
        finally:
            await asyncio.to_thread(ending.join, min(FLUSH_S, settings.shutdown_grace_ms / 8000))
