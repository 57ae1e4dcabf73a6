"""How fast one dispatcher fires a backlog, each timer exactly once."""

import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial

from bench.harness import Bench
from bench.load import HOUR_MS, Shards, World, insert
from bench.meter import Spent
from bench.results import FIRE, Figure
from bench.site import Site
from schemas.codec import decode
from schemas.events import WheelCursor
from schemas.ids import execute_event_id
from schemas.times import millis

GOAL = 50_000
BATCH = 5000

DISPATCHED = "select count(*) from pod_activities where status = 'dispatched'"


async def run(bench: Bench) -> Sequence[Figure]:
    """One dispatcher that comes back to a wheel in which all is overdue, spread over an hour."""
    figures = []
    for name, count, shards in (
        ("drain, all shards", bench.of(400_000, 80_000), 8),
        ("drain, one shard", bench.of(200_000, 40_000), 1),
    ):
        found = await bench.each_repeat(
            f"{name}, {count:,} timers", partial(once, bench, count, shards)
        )
        figures.append(
            Figure(
                name=name,
                quantity=FIRE if shards > 1 else "",
                unit="timers/s",
                values=[rate for rate, _, _ in found],
                goal=GOAL if shards > 1 else None,
                notes={
                    "timers": count,
                    "timers a transaction": BATCH,
                    "until the record knows, timers/s": [projected for _, projected, _ in found],
                    "processor": [spent for _, _, spent in found],
                },
            )
        )
    return figures


async def once(bench: Bench, count: int, used: int) -> tuple[float, float, Spent]:
    """Timers a second from the first claim to the last commit, and to the last row."""
    async with bench.site() as site:
        now_ms = time.time_ns() // 1_000_000
        shards = World().timers(count, used, now_ms - HOUR_MS, now_ms)
        await insert(site.settings, shards)
        await site.open_wheels(shards)
        async with site.process("dispatcher", dispatch_batch=BATCH) as dispatcher:
            meter = bench.meter(dispatcher)
            meter.start()
            await dispatcher.said("shard taken")
            meter.start()

            async def fired() -> int:
                return count - await site.pending()

            await dispatcher.until(fired, count, "timers fired", 0.1)
            spent = meter.stop(count)

            async def projected() -> int:
                return await site.rows(DISPATCHED)

            await dispatcher.until(projected, count, "rows dispatched")
            known_ms = time.time_ns() / 1_000_000
        first_ms, last_ms = await _first_and_last(site)
        await _check(site, shards)
    return count / (last_ms - first_ms) * 1000, count / (known_ms - first_ms) * 1000, spent


async def _first_and_last(site: Site) -> tuple[int, int]:
    """When the first batch was claimed, and the last committed: the cursors tell.

    Not from the first commit on: by then all shards have a batch in hand that is nearly done.
    """
    cursors = await site.read(site.settings.topics.wheel_cursor)
    batches = [each for each in cursors if decode(WheelCursor, each.value).seq > 0]
    claimed = [datetime.fromisoformat(dict(each.headers)["ce_time"].decode()) for each in batches]
    return millis(min(claimed)), max(each.timestamp for each in batches)


async def _check(site: Site, shards: Shards) -> None:
    """Each timer exactly once, for whoever reads committed records."""
    records = await site.read(site.settings.topics.execute_engagement)
    fired = {dict(record.headers)["ce_id"].decode() for record in records}
    assert len(fired) == len(records)
    due = {execute_event_id(each.activity_id, 1) for timers in shards.values() for each in timers}
    assert fired == due
