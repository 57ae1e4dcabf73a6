"""A burst: a million timers of one pod fall due at once, and everybody else goes on."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from aiokafka import ConsumerRecord

from bench.harness import Bench
from bench.lateness import quantile
from bench.load import Shards, World, insert, total
from bench.meter import Spent
from bench.results import Figure
from bench.rolling import PACING, SHARES
from bench.site import Site
from bench.steady import RATE, Done, comment, now_ms, produce
from schemas.codec import decode
from schemas.events import ExecuteEngagement
from schemas.times import millis

BURST, FEW = 1_000_000, 100_000
CROWDED = 4
"""Shards that the burst is in; as many are without."""

WAITING = 2000
"""Timers of others that may be waiting when the burst counts as drained."""

LEAD_S = 4
AFTER_S = 2
NEAR, FAR = "in the same shards", "in other shards"

Late = Mapping[str, Sequence[int]]
"""By how many milliseconds the others' timers were dispatched late, sorted, by where they are."""


async def run(bench: Bench) -> Sequence[Figure]:
    """One worker, one dispatcher, default batches; beside the burst, others publish 200 events a
    second whose comments fall due three seconds later."""
    count = bench.of(BURST, FEW)
    found = await bench.each_repeat(f"burst of {count:,}", partial(once, bench, count))
    notes = {"timers": count, "shards": CROWDED, "others, events/s": RATE}
    figures = [
        Figure(
            name=f"burst of {count:,}, drained",
            unit="timers/s",
            values=[rate for rate, _, _ in found],
            notes=notes | {"processor": [spent for _, _, spent in found]},
        )
    ]
    for place in (NEAR, FAR):
        figures += [
            Figure(
                name=f"burst of {count:,}, others {place}, dispatched, {name}",
                unit="ms",
                values=[quantile(late[place], share) for _, late, _ in found],
                better="less",
                notes=notes,
            )
            for name, share in SHARES.items()
        ]
    return figures


async def once(bench: Bench, count: int) -> tuple[float, Late, Spent]:
    """Timers a second from the moment they are due, and how late the others' were meanwhile."""
    async with bench.site() as site:
        # Due long from now, for the wheel; overdue, once the dispatcher may have them.
        due_ms = now_ms() + 1000 * (LEAD_S + 10 + count // 15_000)
        burst = World(pods=1).timers(count, CROWDED, due_ms, due_ms + 1)
        await insert(site.settings, burst)
        await site.open_wheels(burst)
        async with (
            site.process("worker", **PACING) as worker,
            site.process("dispatcher") as dispatcher,
        ):
            await worker.said("partitions assigned")
            await dispatcher.said("shard taken", len(site.shards))
            assert now_ms() + 1000 * LEAD_S < due_ms, "too slow for its own measurement"
            await asyncio.sleep((due_ms - now_ms()) / 1000 - LEAD_S)
            meter = bench.meter(dispatcher)
            spent: list[Spent] = []

            async def drained() -> None:
                await asyncio.sleep(max(0, due_ms - now_ms()) / 1000)
                meter.start()

                async def fired() -> int:
                    return total(burst) - await site.pending()

                # Others' wait as well: some hundreds, for three seconds each. To count rows would
                # take as much of PostgreSQL as all else does.
                await dispatcher.until(fired, total(burst) - WAITING, "timers fired", 0.1)
                spent.append(meter.stop(total(burst)))
                await asyncio.sleep(AFTER_S)

            run = str(due_ms)
            topic = site.settings.topics.post_detected
            published = await produce(
                site,
                topic,
                LEAD_S,
                LEAD_S,
                drained,
                lambda number, at_ms: comment(f"{run}-{number}", at_ms),
            )

            async def emptied() -> int:
                return int(not await site.pending())

            await dispatcher.until(emptied, 1, "an empty wheel")
        rate, others = await _told(site, burst, due_ms, published)
    return rate, others, spent[0]


async def _told(site: Site, burst: Shards, due_ms: int, published: int) -> tuple[float, Late]:
    """Out of what was fired: each exactly once."""
    ours = {each.activity_id for timers in burst.values() for each in timers}
    last_ms = due_ms
    done: list[Done] = []
    seen: set[str] = set()

    def take(record: ConsumerRecord) -> None:
        nonlocal last_ms
        event = decode(ExecuteEngagement, record.value)
        assert event.activity_id not in seen, "fired twice"
        seen.add(event.activity_id)
        if event.activity_id in ours:
            last_ms = max(last_ms, record.timestamp)
        else:
            was_due_ms = millis(event.scheduled_for)
            late_ms = millis(event.dispatched_at) - was_due_ms
            done.append(Done(record.partition, was_due_ms, late_ms))

    await site.each(site.settings.topics.execute_engagement, take)
    assert len(seen) == total(burst) + published
    during = [each for each in done if due_ms <= each.due_ms < last_ms]
    late = {
        NEAR: sorted(each.late_ms for each in during if each.shard in burst),
        FAR: sorted(each.late_ms for each in during if each.shard not in burst),
    }
    return total(burst) / (last_ms - due_ms) * 1000, late
