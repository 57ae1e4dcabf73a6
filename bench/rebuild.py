"""How fast the wheels come back after Redis has lost all of them."""

import time
from collections.abc import Sequence

from bench.harness import Bench
from bench.load import World, far_away, insert
from bench.meter import Spent
from bench.results import Figure


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
        )
    ]
