"""How fast timers go into the wheel and out of it, with nothing else beside, and how that grows."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from uuid import uuid4

from redis.asyncio import Redis

from bench.harness import SERVERS, Bench
from bench.load import HOUR_MS, Shards, World, far_away, total
from bench.results import WHEEL_SCHEDULE, Figure
from bench.site import remove_keys
from pod_automation.processes import token
from scheduler.adapters.redis_wheel import MAX_LOAD, RedisWheel
from scheduler.timer import Timer, pack

SHARDS = 8
TOPIC = "post-detected"

ADD = 5_000
"""Timers of one add: 125 posts of 20 members."""

FILLED_AT_ONCE = 200_000
AWAIT_MS = HOUR_MS

COMPARED = 100_000
"""Timers that wait where others are measured beside it."""

QUANTITIES = {("schedule", COMPARED): WHEEL_SCHEDULE}

GROWTH = 1.3
"""How much slower it may be with the most timers than with the fewest, or the other way round."""


async def run(bench: Bench) -> Sequence[Figure]:
    """Eight shards in one client, each adding and claiming in turn."""
    sizes = bench.of((10_000, COMPARED, 1_000_000, 5_000_000), (10_000, COMPARED))
    figures = [await _limit(bench)]
    rates: dict[str, list[Figure]] = {"schedule": [], "claim": []}
    for size in sizes:
        for what, found in (await _with(bench, size)).items():
            rates[what].append(found)
    for what, found_all in rates.items():
        figures += found_all
        medians = [median(each.values) for each in found_all]
        figures.append(
            Figure(
                name=f"wheel {what}, most to least from {sizes[0]:,} to {sizes[-1]:,} pending",
                unit="times",
                values=[max(medians) / min(medians)],
                goal=GROWTH,
                better="less",
            )
        )
    return figures


async def compared(bench: Bench) -> Sequence[Figure]:
    """Only what stands beside others, and its limit."""
    return [await _limit(bench), *(await _with(bench, COMPARED)).values()]


@asynccontextmanager
async def filled(url: str, size: int) -> AsyncIterator["Wheels"]:
    """Wheels with so many timers that are hours away."""
    wheels = Wheels(url)
    try:
        await wheels.fill(size)
        yield wheels
    finally:
        await wheels.close()


class Wheels:
    """The wheels of eight shards, and nobody else in them."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._prefix = f"bench{uuid4().hex[:12]}-"
        self._wheel = RedisWheel(url, prefix=self._prefix)
        self._epochs = {shard: token() for shard in range(SHARDS)}
        self._gen = token()
        self._done: dict[int, tuple[int, str]] = {}
        self._at = dict.fromkeys(range(SHARDS), -1)

    async def close(self) -> None:
        """Leave nothing behind."""
        await self._wheel.close()
        async with Redis.from_url(self._url) as redis:
            await remove_keys(redis, f"{self._prefix}*")

    async def fill(self, size: int) -> None:
        """With timers that are hours away, as an owner does that rebuilds them."""
        world = World()
        for shard, epoch in self._epochs.items():
            await self._wheel.take(shard, epoch)
            await self._wheel.wipe(shard, epoch)
        for start in range(0, size, FILLED_AT_ONCE):
            some = world.timers(min(FILLED_AT_ONCE, size - start), SHARDS, *far_away())
            for shard, timers in some.items():
                await self._wheel.load(shard, self._epochs[shard], timers)
        for shard, epoch in self._epochs.items():
            self._done[shard] = (0, token())
            await self._wheel.open(shard, epoch, self._gen, self._done[shard], {})

    async def schedule(self, count: int) -> float:
        """Timers a second, from timers to all of them in the wheel, as a worker adds them."""
        shards = World(time.time_ns()).timers(count, SHARDS, *far_away())
        began = time.perf_counter()
        await self._add(shards)
        return total(shards) / (time.perf_counter() - began)

    async def claim(self, count: int) -> float:
        """Timers a second, from the first claim until the last batch is settled."""
        now_ms = time.time_ns() // 1_000_000
        shards = World(now_ms).timers(count, SHARDS, now_ms - HOUR_MS, now_ms)
        await self._add(shards)
        began = time.perf_counter()
        claimed = await asyncio.gather(*map(self._drain, shards))
        taken = time.perf_counter() - began
        assert sum(claimed) == total(shards)
        return total(shards) / taken

    async def _add(self, shards: Shards) -> None:
        await asyncio.gather(*(self._add_to(shard, some) for shard, some in shards.items()))

    async def _add_to(self, shard: int, timers: Sequence[Timer]) -> None:
        for start in range(0, len(timers), ADD):
            at = self._at[shard]
            some = timers[start : start + ADD]
            self._at[shard] = await self._wheel.add(shard, TOPIC, at, at + 1, some, planned=True)

    async def _drain(self, shard: int) -> int:
        claimed = 0
        while True:
            batch = await self._wheel.claim(
                shard, self._epochs[shard], self._gen, self._done[shard], token(), ADD, AWAIT_MS
            )
            if batch.empty:
                return claimed
            claimed += len(batch.timers)
            self._done[shard] = (batch.seq, batch.nonce)


async def _with(bench: Bench, size: int) -> dict[str, Figure]:
    """Schedule and claim, while so many wait."""
    bench.say(f"filling the wheels with {size:,} timers")
    made = {}
    async with filled(bench.servers[SERVERS[1]], size) as wheels:
        some = min(_count(bench), max(size, 40_000))
        for what, rate in (("schedule", wheels.schedule), ("claim", wheels.claim)):
            name = f"wheel {what}, {size:,} pending"
            made[what] = Figure(
                name=name,
                quantity=QUANTITIES.get((what, size), ""),
                unit="timers/s",
                values=await bench.each_repeat(name, partial(_once, bench, rate, some)),
                notes={"timers": some, "pending": size},
            )
    return made


async def _once(bench: Bench, rate: Callable[[int], Awaitable[float]], count: int) -> float:
    async with bench.no_rewrite():
        return await rate(count)


def _count(bench: Bench) -> int:
    return bench.of(200_000, 40_000)


async def _limit(bench: Bench) -> Figure:
    """What the server takes at best: packed beforehand, in plain pipelines of ZADD."""
    url, count = bench.servers[SERVERS[1]], _count(bench)
    from_ms, until_ms = far_away()
    timers = World().timers(count, SHARDS, from_ms, until_ms)
    prefix = f"bench{uuid4().hex[:12]}-"
    commands: list[tuple[str, list[object]]] = []
    for shard, some in timers.items():
        for start in range(0, len(some), 1000):
            fields: list[object] = []
            for each in some[start : start + 1000]:
                fields += (each.due_ms, pack(each))
            commands.append((f"{prefix}{shard}", fields))

    async def once() -> float:
        async with Redis.from_url(url) as redis:
            await remove_keys(redis, f"{prefix}*")
            began = time.perf_counter()
            for start in range(0, len(commands), MAX_LOAD // 1000):
                pipeline = redis.pipeline(transaction=False)
                for key, fields in commands[start : start + MAX_LOAD // 1000]:
                    pipeline.execute_command("ZADD", key, *fields)
                await pipeline.execute()
            taken = time.perf_counter() - began
            await remove_keys(redis, f"{prefix}*")
        return total(timers) / taken

    return Figure(
        name="limit: ZADD in pipelines",
        unit="timers/s",
        values=await bench.each_repeat("limit: ZADD in pipelines", once),
        notes={"timers": count},
    )
