"""The spans: `plan`, `fire`, `engage`, `settle`, each a child of the one before, hours apart.

Each ends when its own work is done; the next one finds its parent in the headers of its record, or,
across the wheel, beside it in Redis. Spans are at least once: what a crash has applied twice has
two. Nothing here can fail the work it tells of.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Protocol

from opentelemetry import context as otel
from opentelemetry.trace import (
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pod_automation.tracing.carried import TRACEPARENT, carried, header_of
from scheduler.adapters.redis_traces import RedisTraces
from scheduler.batch import read
from scheduler.ports import SourceRecord
from scheduler.timer import Timer
from schemas.events import EngagementExecuted, PostDetected
from schemas.headers import Headers
from schemas.topics import Topics
from streams.pump import Applier

SLICE = 100
"""Spans started before other tasks get their turn."""

NOTHING = otel.Context()
_W3C = TraceContextTextMapPropagator()


def context_of(span: Span) -> str | None:
    """The `traceparent` of `span`; None where it is of no trace."""
    found = span.get_span_context()
    if not found.is_valid:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


class Told(Protocol):
    """What spans tell of an engagement."""

    @property
    def activity_id(self) -> str: ...
    @property
    def pod_id(self) -> str: ...
    @property
    def post_id(self) -> str: ...
    @property
    def engagement_type(self) -> str: ...
    @property
    def attempt(self) -> int: ...


class Engaged(Told, Protocol):
    """`pod_automation.executor.Engagement` is one."""

    @property
    def traceparent(self) -> str | None: ...


class Attempt:
    """One attempt of an executor, as its span has it."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self.context = context_of(span)

    def came_to(self, executed: bool) -> None:
        """What came of it. The words of a failure stay with the result: they may name anybody."""
        if not executed:
            self._span.set_status(Status(StatusCode.ERROR, "failed"))


class Tracing:
    """Makes the spans of one process."""

    def __init__(self, tracer: Tracer, traces: RedisTraces) -> None:
        self._tracer = tracer
        self._traces = traces

    def watching(self, topics: Topics) -> Callable[[str, Applier], Applier]:
        """What makes of the applier of a topic one with spans: `plan` for each `post-detected`,
        `settle` for each `engagement-executed`."""

        def watched(topic: str, applier: Applier) -> Applier:
            if topic == topics.post_detected:
                return _Planning(self, applier)
            if topic == topics.engagement_executed:
                return _Settling(self, applier)
            return applier

        return watched

    @asynccontextmanager
    async def fired(
        self, shard: int, timers: Sequence[Timer], at_ms: int
    ) -> AsyncIterator[Sequence[Headers]]:
        """A span `fire` for each of `timers`, while their transaction lasts; gives the headers that
        each of their records gets."""
        posts = list(dict.fromkeys(timer.post_id for timer in timers))
        contexts = await self._traces.recall(shard, posts)
        parents = {post_id: _above(context) for post_id, context in contexts.items()}
        spans = []
        for at, timer in enumerate(timers):
            if at and not at % SLICE:
                await asyncio.sleep(0)
            spans.append(
                self._tracer.start_span(
                    "fire",
                    parents.get(timer.post_id, NOTHING),
                    SpanKind.PRODUCER,
                    {
                        **_about(timer),
                        "pod_automation.shard": shard,
                        "pod_automation.lateness_ms": at_ms - timer.due_ms,
                    },
                )
            )
        with _ended(spans):
            yield [header_of(context_of(span)) for span in spans]

    @contextmanager
    def engaging(self, engagement: Engaged) -> Iterator[Attempt]:
        """A span `engage`, current while the handler runs."""
        span = self._tracer.start_span(
            "engage", _above(engagement.traceparent), SpanKind.CONSUMER, _about(engagement)
        )
        token = otel.attach(set_span_in_context(span))
        try:
            with _ended([span]):
                yield Attempt(span)
        finally:
            otel.detach(token)

    async def remember(self, shard: int, spans: Mapping[str, Span]) -> None:
        """Keep the contexts of posts, by their spans, for those who fire; a span whose post had one
        before is linked to that."""
        contexts = {
            post_id: context
            for post_id, span in spans.items()
            if (context := context_of(span)) is not None
        }
        before = await self._traces.remember(shard, contexts)
        for post_id, context in before.items():
            spans[post_id].add_link(get_current_span(_above(context)).get_span_context())

    def begun(self, name: str, record: SourceRecord, about: Mapping[str, str | int]) -> Span:
        """A span that has begun with `record`, below the one that its headers name."""
        return self._tracer.start_span(
            name, _above(carried(record.headers)), SpanKind.CONSUMER, about
        )


class _Traced:
    """An applier with a span for each record; subclasses say which."""

    def __init__(self, tracing: Tracing, applier: Applier) -> None:
        self._tracing = tracing
        self._applier = applier

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        """See `Applier.apply`."""
        spans: list[Span] = []
        with _ended(spans):
            await self._begin(records, spans)
            await self._applier.apply(records)

    async def catch_up(self) -> None:
        """See `Applier.catch_up`."""
        await self._applier.catch_up()

    async def _begin(self, records: Sequence[SourceRecord], spans: list[Span]) -> None:
        """Add to `spans` one for each record; what has been added by an error is ended too."""
        raise NotImplementedError


class _Planning(_Traced):
    """Of `post-detected`, with a span `plan` for each event."""

    async def _begin(self, records: Sequence[SourceRecord], spans: list[Span]) -> None:
        first: dict[str, Span] = {}
        for record in records:
            event = read(record, PostDetected).event
            about = _where(record)
            if event is not None:
                about |= {
                    "pod_automation.pod_id": event.pod_id,
                    "pod_automation.post_id": event.post_id,
                    "pod_automation.members": len(event.member_ids),
                }
            spans.append(self._tracing.begun("plan", record, about))
            if event is not None:
                first.setdefault(event.post_id, spans[-1])
        # Before its timers are added: the first of them may be due at once.
        await self._tracing.remember(records[0].partition, first)


class _Settling(_Traced):
    """Of `engagement-executed`, with a span `settle` for each result."""

    async def _begin(self, records: Sequence[SourceRecord], spans: list[Span]) -> None:
        for record in records:
            event = read(record, EngagementExecuted).event
            about = _where(record)
            if event is not None:
                about |= {**_about(event), "pod_automation.outcome": event.outcome}
            spans.append(self._tracing.begun("settle", record, about))


def _where(record: SourceRecord) -> dict[str, str | int]:
    return {
        "messaging.system": "kafka",
        "messaging.destination.name": record.topic,
        "messaging.destination.partition.id": str(record.partition),
        "messaging.kafka.offset": record.offset,
    }


def _about(each: Told) -> dict[str, str | int]:
    # No member: who did what is for the record, which can forget; a store of traces may not.
    return {
        "pod_automation.activity_id": each.activity_id,
        "pod_automation.pod_id": each.pod_id,
        "pod_automation.post_id": each.post_id,
        "pod_automation.type": each.engagement_type,
        "pod_automation.attempt": each.attempt,
    }


def _above(context: str | None) -> otel.Context:
    return NOTHING if context is None else _W3C.extract({TRACEPARENT: context})


@contextmanager
def _ended(spans: Sequence[Span]) -> Iterator[None]:
    """Ends `spans` with the block; as failed, where it raises."""
    try:
        yield
    except BaseException as error:
        for span in spans:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        for span in spans:
            span.end()
