"""One trace from the event of an upstream system to the result, through real processes."""

import asyncio
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, StatusCode
from redis.asyncio import Redis

from pod_automation import PodAutomation
from pod_automation.tracing import carried, opened
from pod_automation.tracing.spans import Tracing, context_of
from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.adapters.redis_keys import trace_key
from scheduler.adapters.redis_traces import KEPT_MS, RedisTraces
from scheduler.errors import SettingsError, StoreUnavailableError
from scheduler.settings import Settings
from scheduler.timer import Timer
from tests.integration.scenario import POLICY, running
from tests.integration.worker_bench import until
from tests.unit.test_quick_look import free_port

pytestmark = pytest.mark.timeout(240)

MEMBERS = ["ann", "bob", "cyd"]
ENGAGEMENTS = 2 * len(MEMBERS)


@dataclass(frozen=True)
class Seen:
    """A span as a collector gets it."""

    process: str
    name: str
    trace: str
    span: str
    parent: str
    links: tuple[str, ...]
    about: Mapping[str, str]


@dataclass
class Collector:
    """Takes OTLP over HTTP, as a collector of OpenTelemetry does."""

    spans: list[Seen] = field(default_factory=list)
    address: str = ""

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            who = {each.key: each.value.string_value for each in resource.resource.attributes}
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                self.spans.append(
                    Seen(
                        who["pod_automation.process"],
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        tuple(link.span_id.hex() for link in span.links),
                        {
                            each.key: each.value.string_value or str(each.value.int_value)
                            for each in span.attributes
                        },
                    )
                )

    def named(self, name: str, trace: str) -> list[Seen]:
        return [span for span in self.spans if (span.name, span.trace) == (name, trace)]


@pytest.fixture
def collector() -> Iterator[Collector]:
    taken = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield taken
    server.shutdown()
    server.server_close()
    thread.join()


def an_event(post_id: str, members: list[str]) -> dict[str, object]:
    return {
        "event_id": str(uuid4()),
        "pod_id": "pod",
        "post_id": post_id,
        "member_ids": members,
        "detected_at": datetime.now(UTC).isoformat(),
    }


def by_activity(spans: list[Seen]) -> dict[str, Seen]:
    return {span.about["pod_automation.activity_id"]: span for span in spans}


async def test_a_trace_goes_from_the_event_to_the_result(
    environment: dict[str, str], settings: Settings, collector: Collector
) -> None:
    await ensure_topics(settings)
    traced = {
        "POD_AUTOMATION_TRACES": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    upstream = "00f067aa0ba902b7"
    async with (
        running(environment | POLICY | traced, 1, 1, executors=1) as processes,
        PodAutomation(settings) as pods,
    ):
        # A Redis that is slow for a moment costs the traces of that moment.
        trace = post = ""
        for _ in range(5):
            trace, post = uuid4().hex, str(uuid4())
            await pods.publish_post_detected(
                an_event(post, MEMBERS), traceparent=f"00-{trace}-{upstream}-01"
            )
            with suppress(TimeoutError):
                async with asyncio.timeout(20):
                    while len(collector.named("settle", trace)) < ENGAGEMENTS:  # noqa: ASYNC110
                        await asyncio.sleep(0.05)
                break
        else:
            pytest.fail("five posts, and no trace of one came to its end")
        # The same post again, and no word of a trace: one of its own, which knows of the first.
        again = an_event(post, [*MEMBERS, "dan"])
        await pods.publish_post_detected(again)

        def of_its_own() -> list[Seen]:
            plans = [span for span in collector.spans if span.name == "plan"]
            of_post = [span for span in plans if span.about["pod_automation.post_id"] == post]
            return [span for span in of_post if span.trace != trace]

        async def linked() -> bool:
            return bool(of_its_own())

        await until(linked, "the plan of the second event")
        assert [await process.stop() for process in processes] == [0, 0, 0]

    # One that is applied again, after a rebalance say, has a second span.
    plans = collector.named("plan", trace)
    plan = plans[0]
    assert (plan.process, plan.parent) == ("worker", upstream)
    assert plan.about["pod_automation.post_id"] == post
    other = of_its_own()[0]
    assert set(other.links) <= {each.span for each in plans}
    assert len(other.links) == 1

    fired = by_activity(
        [
            span
            for span in collector.named("fire", trace)
            if span.parent in {each.span for each in plans}
        ]
    )
    engaged = by_activity(collector.named("engage", trace))
    results = by_activity(collector.named("settle", trace))
    assert len(fired) >= ENGAGEMENTS
    assert {span.process for span in fired.values()} == {"dispatcher"}
    for activity in list(results)[:ENGAGEMENTS]:
        assert engaged[activity].parent == fired[activity].span
        assert engaged[activity].process == "executor"
        assert results[activity].parent == engaged[activity].span
        assert results[activity].process == "worker"
        assert int(fired[activity].about["pod_automation.lateness_ms"]) >= 0
    # Who it was is for the record alone.
    told = {value for span in collector.spans for value in span.about.values()}
    assert not told & {*MEMBERS, "dan"}


async def test_nobody_takes_the_spans(environment: dict[str, str], settings: Settings) -> None:
    await ensure_topics(settings)
    traced = {
        "POD_AUTOMATION_TRACES": "otlp",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    async with (
        running(environment | POLICY | traced, 1, 1, executors=1) as processes,
        PodAutomation(settings) as pods,
    ):
        await pods.publish_post_detected(an_event(str(uuid4()), MEMBERS))

        async def executed() -> bool:
            return (await pods.get_pod_engagement_stats("pod")).executed == ENGAGEMENTS

        await until(executed, "all engagements")
        assert [await process.stop() for process in processes] == [0, 0, 0]


async def test_the_first_context_of_a_post_stays(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.adapters.redis_traces.CALL_S", 10.0)
    traces = RedisTraces(settings.redis_url, prefix=settings.topic_prefix)
    first, second = (f"00-{uuid4().hex}-00f067aa0ba902b7-01" for _ in range(2))
    try:
        assert await traces.remember(1, {"a": first}) == {}
        assert await traces.remember(1, {"a": first}) == {}
        assert await traces.remember(1, {"a": second, "b": second}) == {"a": first}
        assert await traces.recall(1, ["b", "a", "c"]) == {"a": first, "b": second}
        assert await traces.recall(2, ["a"]) == {}
        async with Redis.from_url(settings.redis_url) as redis:
            left_ms = await redis.pttl(trace_key(settings.topic_prefix, 1, "a"))
        assert KEPT_MS - 60_000 < left_ms <= KEPT_MS
    finally:
        await traces.close()


async def test_a_redis_that_refuses_or_does_not_answer_costs_traces_alone(
    settings: Settings,
) -> None:
    context = f"00-{uuid4().hex}-00f067aa0ba902b7-01"
    async with Redis.from_url(settings.redis_url) as redis:
        await redis.lpush(trace_key(settings.topic_prefix, 1, "list"), "not a string")
    refusing = RedisTraces(settings.redis_url, prefix=settings.topic_prefix)
    # Whoever connects to it waits for ever.
    hanging = socket.create_server(("127.0.0.1", 0))
    silent = RedisTraces(f"redis://127.0.0.1:{hanging.getsockname()[1]}/0")
    try:
        assert await refusing.remember(1, {"good": context, "list": context}) == {}
        # For a while nobody asks, however much is there.
        assert await refusing.recall(1, ["good"]) == {}
        assert await silent.recall(1, ["good"]) == {}
        assert await silent.remember(1, {"good": context}) == {}
    finally:
        for traces in (refusing, silent):
            await traces.close()
        hanging.close()


@pytest.mark.parametrize("address", ["redis://127.0.0.1:1/0", ""], ids=["away", "forgotten"])
async def test_what_fires_without_its_trace_begins_one(settings: Settings, address: str) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces = RedisTraces(address or settings.redis_url, prefix=settings.topic_prefix)
    timers = [Timer(str(uuid4()), "pod", "post", f"m{n}", "like", 1, 5_000) for n in range(150)]
    tracing = Tracing(provider.get_tracer("test"), traces)
    try:
        async with tracing.fired(0, timers, 5_007) as headers:
            pass
        with pytest.raises(StoreUnavailableError):
            async with tracing.fired(0, timers[:1], 5_007):
                raise StoreUnavailableError("Kafka", "away")
    finally:
        await traces.close()
    *good, bad = exporter.get_finished_spans()
    assert [carried(each) for each in headers] == [
        context_of(NonRecordingSpan(one.context)) for one in good
    ]
    assert len({one.context.trace_id for one in good}) == len(timers)
    assert all(one.parent is None and one.status.is_ok for one in good)
    assert bad.status.status_code is StatusCode.ERROR


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"00-" + b"0" * 31 + b"-00f067aa0ba902b7-01",
        b"00-abc-def-01",
        b"x" * 999,
    ],
)
def test_what_is_no_context_is_passed_over(value: bytes | None) -> None:
    good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert carried([("traceparent", value)]) is None
    assert (
        carried([("other", good), ("traceparent", value), ("traceparent", good)]) == good.decode()
    )


async def test_without_the_extra_it_says_so(settings: Settings, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(SettingsError, match=r"needs the extra traces: pip install"):
        async with opened(settings.model_copy(update={"traces": "otlp"}), "worker"):
            pass
