"""How fast the wheels come back after Redis has lost all of them."""

import asyncio
import time
from collections.abc import Sequence

from bench import lateness
from bench.harness import Bench, beside
from bench.load import World, far_away, insert
from bench.meter import Spent
from bench.results import Figure
from bench.site import Site

RATE = 200
"""Timers a second that fall due in the other shards while one is rebuilt."""


async def run(bench: Bench) -> Sequence[Figure]:
    """All eight shards of one dispatcher at once, from the loss to the last one whole."""
    count = bench.of(400_000, 100_000)
    async with bench.site() as site:
        bench.say(f"filling the record with {count:,} timers")
        shards = World().timers(count, len(site.shards), *far_away())
        await insert(site.settings, shards)
        await site.open_wheels(shards)
        async with site.process("dispatcher") as dispatcher:
            await dispatcher.said("shard taken", len(site.shards))
            spent: list[Spent] = []

            async def seconds() -> float:
                lost = {size.gen for size in await site.sizes()}
                meter = bench.meter(dispatcher)
                meter.start()
                began = time.monotonic()
                await site.lose_wheels()

                async def whole() -> int:
                    return sum(size.gen not in {None, *lost} for size in await site.sizes())

                ended, _ = await dispatcher.until(whole, len(site.shards), "shards whole")
                spent.append(meter.stop(count))
                assert await site.pending() == count
                return ended - began

            took = await bench.each_repeat(f"rebuild of {count:,} timers", seconds)
            world = World(2)
            beside = await bench.each_repeat(
                "the others while one shard is rebuilt",
                lambda: _beside(site, bench, world),
            )
    late = [
        Figure(
            name=f"dispatched at {RATE}/s while another shard is rebuilt, {name}",
            unit="ms",
            values=[lateness.quantile(found, share) for found, _ in beside],
            better="less",
            notes={"timers of that shard": count // len(site.shards)},
        )
        for name, share in lateness.SHARES.items()
    ]
    return [
        Figure(
            name=f"rebuild of {len(site.shards)} shards",
            unit="timers/s",
            values=[count / each for each in took],
            notes={
                "timers": count,
                "seconds, with up to 1 s until it is noticed": took,
                "processor": spent,
            },
        ),
        *late,
    ]


async def _beside(site: Site, bench: Bench, world: World) -> lateness.Late:
    """Shard 0 is rebuilt again and again while timers fall due in all the others."""
    async with beside(_again_and_again(site)):
        return await lateness.once(site, world, RATE, bench.of(20, 6), spared=[0])


async def _again_and_again(site: Site) -> None:
    while True:
        before = (await site.wheel.size(0)).gen
        await site.wheel.forget(0)
        while (await site.wheel.size(0)).gen in (None, before):  # noqa: ASYNC110 (it is a server)
            await asyncio.sleep(0.02)
