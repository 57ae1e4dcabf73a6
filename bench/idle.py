"""What a dispatcher costs that has nothing to do."""

import asyncio
import time
from collections.abc import Sequence

import psutil  # type: ignore[import-untyped]

from bench.harness import Bench
from bench.load import World, far_away
from bench.results import MIB, Figure

GOAL_PERCENT = 2
SETTLED_S = 5


async def run(bench: Bench) -> Sequence[Figure]:
    """Eight shards with timers that are hours away."""
    count = bench.of(1_000_000, 100_000)
    seconds = bench.of(20, 8)
    async with bench.site() as site:
        bench.say(f"filling the wheels with {count:,} timers")
        await site.open_wheels(World().timers(count, len(site.shards), *far_away()))
        async with site.process("dispatcher") as dispatcher:
            await dispatcher.said("shard taken", len(site.shards))
            await asyncio.sleep(SETTLED_S)
            process = psutil.Process(dispatcher.pid)

            async def share() -> float:
                used, began = process.cpu_times(), time.monotonic()
                await asyncio.sleep(seconds)
                now = process.cpu_times()
                spent = now.user + now.system - used.user - used.system
                return float(100 * spent / (time.monotonic() - began))

            shares = await bench.each_repeat(f"idle dispatcher over {seconds} s", share)
            memory = process.memory_info().rss / MIB
        # None was lost, and none fired early.
        assert await site.pending() == count
    return [
        Figure(
            name="idle dispatcher",
            unit="% of a core",
            values=shares,
            goal=GOAL_PERCENT,
            better="less",
            notes={"seconds": seconds, "pending": count},
        ),
        Figure(
            name="idle dispatcher, resident memory",
            unit="MiB",
            values=[memory],
            notes={"pending": count},
        ),
    ]
