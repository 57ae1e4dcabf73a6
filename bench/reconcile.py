"""How long the stores take to be held against each other, and whom that holds up."""

import time
from collections.abc import Sequence

from bench import lateness
from bench.harness import Bench, beside
from bench.load import World, far_away, insert
from bench.results import Figure
from bench.site import Site
from pod_automation.reconciling import quick_look, reconciler

RATE = 200
"""Timers a second that fall due while all shards are compared again and again."""


async def run(bench: Bench) -> Sequence[Figure]:
    """All eight shards, one after the other, by a process beside the one dispatcher."""
    count = bench.of(400_000, 100_000)
    async with bench.site() as site:
        bench.say(f"filling the stores with {count:,} timers")
        shards = World().timers(count, len(site.shards), *far_away())
        await insert(site.settings, shards)
        await site.open_wheels(shards)
        async with site.process("dispatcher") as dispatcher:
            await dispatcher.said("shard taken", len(site.shards))
            full = await bench.each_repeat(
                f"comparing {count:,} timers", lambda: _compared(site, count)
            )
            quick = await bench.each_repeat(
                f"a light look at {count:,} timers", lambda: _looked(site)
            )
            world = World(2)
            beside = await bench.each_repeat(
                "timers that fall due while all shards are compared",
                lambda: _beside(site, bench, world),
            )
    return [
        Figure(
            name="comparing the stores",
            unit="timers/s",
            values=[count / each for each in full],
            notes={"timers": count, "shards": len(site.shards)},
        ),
        Figure(
            name="a light look at all shards",
            unit="s",
            values=quick,
            better="less",
            notes={"timers": count, "shards": len(site.shards)},
        ),
        *(
            Figure(
                name=f"dispatched at {RATE}/s while all shards are compared, {name}",
                unit="ms",
                values=[lateness.quantile(found, share) for found, _ in beside],
                better="less",
            )
            for name, share in lateness.SHARES.items()
        ),
    ]


async def _compared(site: Site, count: int) -> float:
    began = time.monotonic()
    async with reconciler(site.settings, timeout_s=30, first=1) as looking:
        reports = [await looking.run_once(shard) for shard in site.shards]
    assert all(each.agrees and not each.undecided for each in reports), reports
    assert sum(each.timers for each in reports) == count
    return time.monotonic() - began


async def _looked(site: Site) -> float:
    began = time.monotonic()
    async with quick_look(site.settings) as looking:
        await looking.run_once()
    return time.monotonic() - began


async def _beside(site: Site, bench: Bench, world: World) -> lateness.Late:
    async with beside(_again_and_again(site)):
        return await lateness.once(site, world, RATE, bench.of(20, 6))


async def _again_and_again(site: Site) -> None:
    async with reconciler(site.settings, timeout_s=30, first=1) as looking:
        while True:
            for shard in site.shards:
                await looking.run_once(shard)
