"""A cancel of 10,000 timers out of a million, while others fire: is it true, and who notices?"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial

import asyncpg
from aiokafka import ConsumerRecord
from msgspec import Struct

from bench.harness import Bench
from bench.lateness import SHARES, quantile
from bench.load import World, far_away, insert, total
from bench.results import Figure
from bench.site import Site
from bench.steady import now_ms
from pod_automation import PodAutomation
from schemas.codec import decode
from schemas.events import ExecuteEngagement
from schemas.times import millis

PENDING, FEW = 1_000_000, 100_000
VICTIMS = 10_000
RATE = 2_000
SECONDS = 20
CANCEL_AT_S = 10

READY_S = 15
PER_S = 20_000
"""Rows and timers that are brought into the stores in a second, at least."""

WHEN = ("before", "during")


class Cancelled(Struct):
    """How long it took, what it answered, and how late others were, by when they were due."""

    seconds: float
    cancelled: int
    too_late: int
    late: Mapping[str, Sequence[int]]


async def run(bench: Bench) -> Sequence[Figure]:
    """One worker, one dispatcher; half of the victims fall due while others fire."""
    pending = bench.of(PENDING, FEW)
    found = await bench.each_repeat(f"cancel of {VICTIMS:,}", partial(once, bench, pending))
    notes = {
        "pending": pending,
        "others, timers/s": RATE,
        "cancelled": [each.cancelled for each in found],
        "too late": [each.too_late for each in found],
    }
    name = f"cancel of {VICTIMS:,} among {pending:,}"
    figures = [
        Figure(
            name=name, unit="s", values=[each.seconds for each in found], better="less", notes=notes
        )
    ]
    for when in WHEN:
        figures += [
            Figure(
                name=f"{name}, others dispatched {when}, {quantity}",
                unit="ms",
                values=[quantile(each.late[when], share) for each in found],
                better="less",
                notes=notes,
            )
            for quantity, share in SHARES.items()
        ]
    return figures


async def once(bench: Bench, pending: int) -> Cancelled:
    """Cancel the victims in the midst of the firing; check what was answered."""
    async with bench.site() as site:
        shards = len(site.shards)
        count = RATE * SECONDS
        from_ms = now_ms() + 1000 * (READY_S + 2 * (pending + count + VICTIMS) // PER_S)
        until_ms = from_ms + 1000 * SECONDS
        world = World()
        firing = world.timers(count, shards, from_ms, until_ms)
        victims = World(7, pods=1)
        doomed = [
            victims.timers(VICTIMS // 2, shards, from_ms, until_ms),
            victims.timers(VICTIMS - VICTIMS // 2, shards, *far_away()),
        ]
        parts = [firing, *doomed, world.timers(pending, shards, *far_away())]
        timers = {
            shard: [each for part in parts for each in part[shard]] for shard in range(shards)
        }
        await insert(site.settings, timers)
        await site.open_wheels(timers)
        pod = next(each.pod_id for each in doomed[0][0])
        async with site.process("worker") as worker, site.process("dispatcher") as dispatcher:
            await worker.said("partitions assigned")
            await dispatcher.said("shard taken", shards)
            assert now_ms() < from_ms, "too slow for its own measurement"
            await asyncio.sleep((from_ms - now_ms()) / 1000 + CANCEL_AT_S)
            async with PodAutomation(site.settings, actor="bench") as pods:
                began_ms, began = now_ms(), time.perf_counter()
                answer = await pods.cancel(pod_id=pod)
                seconds = time.perf_counter() - began
            await asyncio.sleep((until_ms - now_ms()) / 1000 + 2)
        late = await _judge(site, total(doomed[0]) + total(doomed[1]), pod, answer.cancelled)
        during = (began_ms, began_ms + 1000 * seconds + 500)
        return Cancelled(
            seconds,
            answer.cancelled,
            answer.too_late + answer.final,
            {
                "before": sorted(
                    each for due_ms, each in late if from_ms + 1000 < due_ms < began_ms
                ),
                "during": sorted(each for due_ms, each in late if during[0] <= due_ms < during[1]),
            },
        )


async def _judge(site: Site, victims: int, pod: str, cancelled: int) -> list[tuple[int, int]]:
    """When others were due and how late they were. None is called cancelled that was sent."""
    late: list[tuple[int, int]] = []
    sent: set[str] = set()

    def take(record: ConsumerRecord) -> None:
        event = decode(ExecuteEngagement, record.value)
        assert event.activity_id not in sent, "fired twice"
        sent.add(event.activity_id)
        if event.pod_id != pod:
            due_ms = millis(event.scheduled_for)
            late.append((due_ms, millis(event.dispatched_at) - due_ms))

    await site.each(site.settings.topics.execute_engagement, take)
    connection = await asyncpg.connect(site.settings.postgres_dsn)
    try:
        rows = await connection.fetch(
            "select id::text, status from pod_activities where pod_id = $1", pod
        )
    finally:
        await connection.close()
    gone = {row["id"] for row in rows if row["status"] == "cancelled"}
    assert len(rows) == victims
    assert len(gone) == cancelled, "the answer is another than the record"
    assert not gone & sent, "cancelled and fired"
    assert {row["id"] for row in rows} - gone <= sent, "neither cancelled nor fired"
    return late
