"""A steady stream of work for each kind of process, and how late each piece of it was done."""

import asyncio
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bench.load import World, insert, total
from bench.site import Site
from scheduler.adapters.kafka_consumer import reading
from schemas.codec import decode, encode
from schemas.events import EngagementExecuted, ExecuteEngagement, PostDetected
from schemas.ids import activity_id, execute_event_id
from schemas.times import millis, moment

RATE = 200
"""Pieces of work a second: in each of eight shards one every 40 ms."""

LEAD_S = 2
"""Time to bring timers into the stores before the first is due."""

PLAN_MS = 3000
"""From an event until its comment is due. Far longer in life: what a worker is late by within it,
its timers are not."""

GRACE_S = 30
RESTARTS_S = 300
POLL_MS = 200


@dataclass(frozen=True, slots=True)
class Done:
    """One piece of work: its shard, when it could have been done, and how much later it was."""

    shard: int
    due_ms: int
    late_ms: int


Fault = Callable[[], Awaitable[None]]
Feed = Callable[[Site, int, float, Fault], Awaitable[Sequence[Done]]]
"""Feed a site for some seconds, have the fault happen after some of them, and tell what became."""


async def timers(site: Site, seconds: int, after_s: float, fault: Fault) -> Sequence[Done]:
    """For dispatchers: timers that fall due; done is dispatched, by the wheel's clock."""
    from_ms = now_ms() + 1000 * LEAD_S
    world = World(seed=from_ms)
    shards = world.timers(RATE * seconds, len(site.shards), from_ms, from_ms + 1000 * seconds)
    topic = site.settings.topics.execute_engagement
    partitions = [TopicPartition(topic, each) for each in site.shards]
    async with reading(site.settings.kafka_bootstrap, partitions) as consumer:
        await consumer.seek_to_end(*partitions)
        for each in partitions:
            await consumer.position(each)
        await insert(site.settings, shards)
        await site.add(shards)
        assert now_ms() < from_ms, "too slow for its own measurement"
        striking = asyncio.create_task(_strike(from_ms, after_s, fault))
        async with asyncio.timeout(LEAD_S + seconds + GRACE_S):
            found = await _fired(consumer, lambda: total(shards))
        await striking
    return found


async def plans(site: Site, seconds: int, after_s: float, fault: Fault) -> Sequence[Done]:
    """For workers and dispatchers together: events whose one comment falls due `PLAN_MS` later,
    which must be the pacing; done is dispatched."""
    topics = site.settings.topics
    run = str(now_ms())
    partitions = [TopicPartition(topics.execute_engagement, each) for each in site.shards]
    async with reading(site.settings.kafka_bootstrap, partitions) as consumer:
        await consumer.seek_to_end(*partitions)
        for each in partitions:
            await consumer.position(each)
        producing = asyncio.create_task(
            produce(
                site,
                topics.post_detected,
                seconds,
                after_s,
                fault,
                lambda number, at_ms: comment(f"{run}-{number}", at_ms),
            )
        )
        try:
            async with asyncio.timeout(RESTARTS_S):
                return await _fired(
                    consumer, lambda: producing.result() if producing.done() else math.inf
                )
        finally:
            producing.cancel()


async def events(site: Site, seconds: int, after_s: float, fault: Fault) -> Sequence[Done]:
    """For workers: events that are published; done is that their row is there."""
    topic = site.settings.topics.post_detected
    run = str(now_ms())
    sent: dict[str, int] = {}

    def event(number: int, at_ms: int) -> bytes:
        post = f"{run}-{number}"
        sent[post] = at_ms
        return comment(post, at_ms)

    await produce(site, topic, seconds, after_s, fault, event)
    rows: Sequence[Any] = ()
    async with asyncio.timeout(GRACE_S):
        while len(rows) < len(sent):
            await asyncio.sleep(POLL_MS / 1000)
            rows = await site.fetch(
                "select post_id, source_partition as shard,"
                " (extract(epoch from created_at) * 1000)::bigint as at_ms"
                " from pod_activities where post_id like $1",
                f"{run}-%",
            )
    return [
        Done(row["shard"], sent[row["post_id"]], row["at_ms"] - sent[row["post_id"]])
        for row in rows
    ]


async def engagements(site: Site, seconds: int, after_s: float, fault: Fault) -> Sequence[Done]:
    """For executors: engagements that are dispatched; done is handled, by a handler at once."""
    topics = site.settings.topics
    run = str(now_ms())
    sent: dict[str, int] = {}

    def event(number: int, at_ms: int) -> bytes:
        own_id = activity_id("pod", f"{run}-{number}", "member", "like")
        sent[own_id] = at_ms
        return encode(
            ExecuteEngagement(
                event_id=execute_event_id(own_id, 1),
                activity_id=own_id,
                pod_id="pod",
                post_id=f"{run}-{number}",
                member_id="member",
                engagement_type="like",
                attempt=1,
                scheduled_for=moment(at_ms),
                dispatched_at=moment(at_ms),
            )
        )

    partitions = [TopicPartition(topics.engagement_executed, each) for each in site.shards]
    async with reading(site.settings.kafka_bootstrap, partitions) as consumer:
        await consumer.seek_to_end(*partitions)
        for each in partitions:
            await consumer.position(each)
        await produce(site, topics.execute_engagement, seconds, after_s, fault, event)
        first: dict[str, Done] = {}
        async with asyncio.timeout(GRACE_S):
            while len(first) < len(sent):
                for tp, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
                    for record in records:
                        result = decode(EngagementExecuted, record.value)
                        if result.activity_id in sent:
                            due_ms = sent[result.activity_id]
                            late_ms = millis(result.executed_at) - due_ms
                            done = Done(tp.partition, due_ms, late_ms)
                            # What comes again after a kill was done at its first time.
                            first.setdefault(result.activity_id, done)
    return list(first.values())


FEEDS: Mapping[str, Feed] = {"dispatcher": timers, "worker": events, "executor": engagements}
"""By the command of the process that is fed."""


def comment(post: str, at_ms: int) -> bytes:
    """An event that asks for one comment by one member."""
    return encode(
        PostDetected(
            event_id=post,
            pod_id="pod",
            post_id=post,
            member_ids=("member",),
            detected_at=moment(at_ms),
            engagement_types=("comment",),
        )
    )


async def _fired(consumer: AIOKafkaConsumer, count: Callable[[], float]) -> Sequence[Done]:
    found: list[Done] = []
    seen: set[str] = set()
    while len(seen) < count():
        for tp, records in (await consumer.getmany(timeout_ms=POLL_MS)).items():
            for record in records:
                event = decode(ExecuteEngagement, record.value)
                assert event.event_id not in seen, "fired twice"
                seen.add(event.event_id)
                due_ms = millis(event.scheduled_for)
                late_ms = millis(event.dispatched_at) - due_ms
                found.append(Done(tp.partition, due_ms, late_ms))
    return found


async def produce(
    site: Site,
    topic: str,
    seconds: int,
    after_s: float,
    fault: Fault,
    event: Callable[[int, int], bytes],
    *,
    rate: int = RATE,
) -> int:
    """Publish `event(number, now)` at the rate, to each shard in turn, for so long and until the
    fault is over; returns how many."""
    async with AIOKafkaProducer(bootstrap_servers=site.settings.kafka_bootstrap) as producer:
        began_ms = now_ms()
        striking = asyncio.create_task(_strike(began_ms, after_s, fault))
        sent = []
        for number in itertools.count():
            if number >= rate * seconds and striking.done():
                break
            due_ms = began_ms + 1000 * number // rate
            await asyncio.sleep(max(0, due_ms - now_ms()) / 1000)
            shard = number % len(site.shards)
            sent.append(await producer.send(topic, event(number, now_ms()), partition=shard))
        await asyncio.gather(*sent)
        await striking
        return len(sent)


async def _strike(from_ms: int, after_s: float, fault: Fault) -> None:
    await asyncio.sleep(max(0.0, (from_ms - now_ms()) / 1000 + after_s))
    await fault()


def now_ms() -> int:
    """This machine's clock, in milliseconds UTC."""
    return time.time_ns() // 1_000_000
