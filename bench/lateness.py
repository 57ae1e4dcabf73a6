"""How late whoever is to execute timers hears of them, and how late they are dispatched."""

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from bench.harness import Bench
from bench.load import World, far_away, insert, total
from bench.results import Figure, lateness_at
from bench.site import Site
from scheduler.adapters.kafka_consumer import reading
from schemas.codec import decode
from schemas.events import ExecuteEngagement
from schemas.times import millis

RATES = (200, 2000)
PENDING, FEW = 1_000_000, 100_000
"""Timers that wait beside, and in a quick run."""

SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}

LEAD_S = 2
ROWS_PER_S = 8_000
"""Time to bring the timers into the stores before the first is due."""

GRACE_S = 20

Late = tuple[list[int], list[int]]
"""Milliseconds from when each was due until it was dispatched, and until it was heard; sorted."""


async def run(bench: Bench) -> Sequence[Figure]:
    """Timers due at random times at a steady rate, others waiting beside them; one dispatcher."""
    seconds, pending = bench.of(20, 6), bench.of(PENDING, FEW)
    figures: list[Figure] = []
    async with bench.site() as site:
        world = World()
        await site.open_wheels(world.timers(pending, len(site.shards), *far_away()))
        async with site.process("dispatcher") as dispatcher:
            await dispatcher.said("shard taken", len(site.shards))
            for rate in RATES:
                what = f"lateness at {rate:,}/s for {seconds} s"
                found = await bench.each_repeat(what, partial(once, site, world, rate, seconds))
                figures += figures_of(rate, found, {"seconds": seconds, "pending": pending})
    return figures


def figures_of(rate: int, found: Sequence[Late], notes: Mapping[str, Any]) -> list[Figure]:
    """A job of a peer has started: so it is held against a consumer that has the engagement. When
    a timer was dispatched is a figure of ours alone."""
    made = []
    for name, share in SHARES.items():
        for what, quantity, late in (
            (lateness_at(rate, name), lateness_at(rate, name), [heard for _, heard in found]),
            (f"dispatched at {rate:,}/s, {name}", "", [dispatched for dispatched, _ in found]),
        ):
            made.append(
                Figure(
                    name=what,
                    quantity=quantity,
                    unit="ms",
                    values=[quantile(each, share) for each in late],
                    better="less",
                    notes={**notes, "earliest, ms": [each[0] for each in late]},
                )
            )
    return made


def quantile(ordered: Sequence[int], share: float) -> int:
    """By nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def once(
    site: Site, world: World, rate: int, seconds: int, spared: Collection[int] = ()
) -> Late:
    """`rate` timers a second for so long, but none in the `spared` shards."""
    count = rate * seconds
    from_ms = time.time_ns() // 1_000_000 + 1000 * (LEAD_S + count // ROWS_PER_S)
    shards = world.timers(count, len(site.shards), from_ms, from_ms + 1000 * seconds)
    shards = {shard: timers for shard, timers in shards.items() if shard not in spared}
    partitions = [
        TopicPartition(site.settings.topics.execute_engagement, each) for each in site.shards
    ]
    async with reading(site.settings.kafka_bootstrap, partitions) as consumer:
        await consumer.seek_to_end(*partitions)
        await insert(site.settings, shards)
        await site.add(shards)
        assert time.time_ns() // 1_000_000 < from_ms, "too slow for its own measurement"
        async with asyncio.timeout(LEAD_S + count // ROWS_PER_S + seconds + GRACE_S):
            return await _hear(consumer, total(shards))


async def _hear(consumer: AIOKafkaConsumer, count: int) -> Late:
    dispatched: list[int] = []
    heard: list[int] = []
    while len(heard) < count:
        found = await consumer.getmany(timeout_ms=1000)
        now_ms = time.time_ns() // 1_000_000
        for records in found.values():
            for record in records:
                event = decode(ExecuteEngagement, record.value)
                due_ms = millis(event.scheduled_for)
                dispatched.append(millis(event.dispatched_at) - due_ms)
                heard.append(now_ms - due_ms)
    assert min(dispatched) >= 0, "fired early"
    return sorted(dispatched), sorted(heard)
