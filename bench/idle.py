"""What a dispatcher and a worker cost that have nothing to do."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import psutil  # type: ignore[import-untyped]

from bench.harness import Bench
from bench.load import World, far_away
from bench.meter import memory_of, seconds_of
from bench.results import IDLE, MIB, RESIDENT, Figure

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
            async with site.process("worker") as worker:
                await worker.said("partitions assigned")
                await asyncio.sleep(SETTLED_S)
                parts = {"dispatcher": dispatcher.pid, "worker": worker.pid, **bench.pids}

                async def share() -> dict[str, float]:
                    used, began = _seconds(parts), time.monotonic()
                    await asyncio.sleep(seconds)
                    now, over = _seconds(parts), time.monotonic() - began
                    return {name: 100 * (now[name] - used[name]) / over for name in parts}

                shares = await bench.each_repeat(f"idle for {seconds} s", share)
                memory = memory_of(dispatcher.pid, worker.pid) / MIB
            alone = psutil.Process(dispatcher.pid).memory_info().rss / MIB
        # None was lost, and none fired early.
        assert await site.pending() == count
    notes = {"seconds": seconds, "pending": count}
    return [
        Figure(
            name="idle dispatcher",
            unit="% of a core",
            values=[each["dispatcher"] for each in shares],
            goal=GOAL_PERCENT,
            better="less",
            notes=notes,
        ),
        Figure(
            name="idle, all processes and servers",
            quantity=IDLE,
            unit="% of a core",
            values=[sum(each.values()) for each in shares],
            better="less",
            notes={**notes, "parts": shares},
        ),
        Figure(
            name="idle, worker and dispatcher, resident memory",
            quantity=RESIDENT,
            unit="MiB",
            values=[memory],
            better="less",
            notes=notes,
        ),
        Figure(
            name="idle dispatcher, resident memory",
            unit="MiB",
            values=[alone],
            better="less",
            notes=notes,
        ),
    ]


def _seconds(parts: Mapping[str, int]) -> dict[str, float]:
    return {name: seconds_of(pid) for name, pid in parts.items()}
