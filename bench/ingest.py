"""How fast one worker plans: from Kafka into PostgreSQL, the wheel, and confirmed statuses."""

import asyncio
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec import Struct

from bench.harness import Bench
from bench.load import PER_POST, World, publish
from bench.meter import Spent
from bench.results import IN_POSTGRES, SCHEDULE, Figure
from bench.site import Process, Site
from scheduler.adapters.kafka_consumer import reading

GOAL = 20_000


class Ingested(Struct, frozen=True):
    """Timers a second until both stores have them, and until all is acked; the processor time; and
    what a timer takes in the table, with all indexes and the room in them."""

    rate: float
    acked: float
    spent: Spent
    bytes_a_row: float


async def run(bench: Bench) -> Sequence[Figure]:
    """One worker, a topic filled beforehand; from the assignment to the last watermark."""
    events = bench.of(5000, 2000)
    found = await bench.each_repeat(f"ingest of {events:,} events", lambda: once(bench, events))
    return [
        Figure(
            name="ingest",
            quantity=SCHEDULE,
            unit="timers/s",
            values=[each.rate for each in found],
            goal=GOAL,
            notes={
                "events": events,
                "timers an event": PER_POST,
                "until the group's offsets are committed, timers/s": [each.acked for each in found],
                "processor": [each.spent for each in found],
            },
        ),
        Figure(
            name=IN_POSTGRES,
            quantity=IN_POSTGRES,
            unit="bytes/timer",
            values=[each.bytes_a_row for each in found],
            better="less",
            notes={"timers": events * PER_POST},
        ),
    ]


async def once(bench: Bench, events: int) -> Ingested:
    """One worker starts, with so many events in the topic."""
    async with bench.site() as site:
        topic = site.settings.topics.post_detected
        await site.open_wheels({})
        await publish(site.settings, World().events(events, time.time_ns() // 1_000_000))
        async with site.process("worker") as worker:
            applied = "select coalesce(sum(last_offset + 1), 0) from ingested_offsets"
            meter = bench.meter(worker)
            meter.start()
            await worker.said("partitions assigned")
            began = time.monotonic()
            meter.start()
            await worker.until(lambda: site.rows(applied), events, "events applied", 0.05)

            async def added() -> int:
                marks = [site.wheel.watermark(shard, topic) for shard in site.shards]
                return sum(mark + 1 for mark in await asyncio.gather(*marks))

            stored, _ = await worker.until(added, events, "events in the wheel")
            spent = meter.stop(events * PER_POST)
            acked = await _acked(site, worker, events)
        await _check(site, events)
        size = await site.rows("select pg_total_relation_size('pod_activities')")
    timers = events * PER_POST
    return Ingested(timers / (stored - began), timers / (acked - began), spent, size / timers)


async def _acked(site: Site, worker: Process, events: int) -> float:
    """When the group's committed offsets are at the end: all statuses were confirmed before."""
    settings = site.settings
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        group_id=settings.worker_group,
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(settings.topics.post_detected, each) for each in site.shards]
        # Without a subscription it asks for offsets and joins nothing.
        consumer.assign(partitions)

        async def committed() -> int:
            return sum([await consumer.committed(each) or 0 for each in partitions])

        return (await worker.until(committed, events, "events acked"))[0]
    finally:
        await consumer.stop()


async def _check(site: Site, events: int) -> None:
    """Nothing was lost or doubled on the way: a fast worker that loses is no figure."""
    timers = events * PER_POST
    assert await site.rows("select count(*) from pod_activities") == timers
    assert await site.pending() == timers
    partitions = [TopicPartition(site.settings.topics.engagement_status, p) for p in site.shards]
    async with reading(site.settings.kafka_bootstrap) as consumer:
        statuses = sum((await consumer.end_offsets(partitions)).values())
    # At least once.
    assert statuses >= timers
