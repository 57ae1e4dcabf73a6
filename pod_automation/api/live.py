"""What is being fired at this moment, as a consumer of `execute-engagement` sees it."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import msgspec
import structlog
from aiokafka import TopicPartition
from msgspec import Struct

from pod_automation.cli.loop import answer
from scheduler.adapters.kafka_consumer import reading
from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_topics import check_topics
from scheduler.backoff import Backoff
from scheduler.errors import EngineError
from scheduler.settings import Settings
from scheduler.tasks import ended
from schemas.events import Instant
from schemas.times import millis

WINDOW_S = 60
MOST_KEPT = 100_000
"""Latenesses of the window; of more than that only the last ones count."""

POLL_MS = 500

log = structlog.get_logger(__name__)


class _Fired(Struct):
    scheduled_for: Instant
    dispatched_at: Instant


_decoder = msgspec.json.Decoder(_Fired)


class Live:
    """Throughput and lateness of the last minute. Begins when the API does."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._began = monotonic()
        self._late: deque[tuple[float, int]] = deque(maxlen=MOST_KEPT)
        self._told: str | None = None
        self._counts: deque[tuple[int, int]] = deque()  # second, engagements

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Reads on while this lasts; a Kafka that is away is waited for."""
        reading = asyncio.create_task(self._read_on(), name="live")
        try:
            yield
        finally:
            await ended(reading)

    async def _read_on(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._read()
            except EngineError as error:
                # Once, until it is seen again: it is tried for as long as the API runs.
                if str(error) != self._told:
                    log.warning("engagements are not seen", error=str(error))
                self._told = str(error)
            except Exception:
                # Whatever it is: without this the dashboard shows nothing for ever.
                log.exception("engagements are not seen")
            await backoff.wait()

    async def _read(self) -> None:
        settings = self._settings
        # First, as to ask for a topic by name would create it on some brokers.
        await answer("Kafka", check_topics(settings))
        topic = settings.topics.execute_engagement
        places = [TopicPartition(topic, shard) for shard in range(settings.partitions)]
        with translated():
            async with reading(settings.kafka, places) as consumer:
                await consumer.seek_to_end(*places)
                self._told = None
                while True:
                    found = await consumer.getmany(timeout_ms=POLL_MS)
                    self._note([record.value for page in found.values() for record in page])

    def _note(self, values: list[bytes | None]) -> None:
        now = monotonic()
        if values:
            second = int(now)
            if self._counts and self._counts[-1][0] == second:
                self._counts[-1] = (second, self._counts[-1][1] + len(values))
            else:
                self._counts.append((second, len(values)))
        for value in values:
            with contextlib.suppress(msgspec.DecodeError, msgspec.ValidationError):
                fired = _decoder.decode(value or b"")
                late_ms = millis(fired.dispatched_at) - millis(fired.scheduled_for)
                self._late.append((now, late_ms))

    def summary(self) -> dict[str, Any]:
        """The last minute: engagements a second, by second and together, and lateness."""
        now = monotonic()
        while self._late and self._late[0][0] < now - WINDOW_S:
            self._late.popleft()
        while self._counts and self._counts[0][0] < now - WINDOW_S:
            self._counts.popleft()
        late = sorted(each for _, each in self._late)
        span = max(1.0, min(WINDOW_S, now - self._began))
        counts = dict(self._counts)
        last = int(now)
        return {
            "window_s": round(span),
            "fired": sum(counts.values()),
            "per_second": round(sum(counts.values()) / span, 2),
            "series": [counts.get(second, 0) for second in range(last - WINDOW_S, last)],
            "lateness_ms": {
                name: late[min(len(late) - 1, int(len(late) * share))] if late else None
                for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
            },
        }
