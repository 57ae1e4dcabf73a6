"""What a pending timer costs in memory, on each server that can be had."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from uuid import uuid4

from redis.asyncio import Redis

from bench.harness import SERVERS, Bench, server_of
from bench.load import Shards, World, far_away, total
from bench.results import OLD_REDIS, Figure, size_at
from bench.site import remove_keys
from pod_automation.processes import token
from pod_automation.stack import EmbeddedStack, MissingPackageError
from scheduler.adapters.redis_wheel import MAX_LOAD, RedisWheel

GOAL = 80
SHARDS = 8


async def run(bench: Bench) -> Sequence[Figure]:
    """Wheels of eight shards, their timers spread over six hours."""
    sizes = bench.of([100_000, 1_000_000], [100_000])
    figures: list[Figure] = []
    for size in sizes:
        bench.say(f"making {size:,} timers")
        timers = World().timers(size, SHARDS, *far_away())
        figures += [await _on(bench, timers, size_at(size))]
        async with on_old_redis(bench) as old:
            if old is not None:
                figures += [await _on(old, timers, size_at(size, OLD_REDIS))]
    return figures


@asynccontextmanager
async def on_old_redis(bench: Bench) -> AsyncIterator[Bench | None]:
    """The same run on the oldest Redis that the engine supports: what others say of their size
    is said of a Redis. None where that cannot be had, or the servers are not ours."""
    if not bench.pids:
        yield None
        return
    folder = bench.folder / "redis"
    stack = EmbeddedStack(folder, fresh=True, parts=["redis"], redis_server="redis")
    try:
        await stack.start()
    except MissingPackageError:
        bench.say(f"memory: {OLD_REDIS} is not to be had here")
        yield None
        return
    try:
        yield replace(bench, servers={**bench.servers, **stack.environment})
    finally:
        await stack.stop()


async def _on(bench: Bench, timers: Shards, quantity: str) -> Figure:
    async with Redis.from_url(bench.servers[SERVERS[1]]) as redis:
        server = " ".join(server_of(await redis.info("server")))
    what = f"memory of {total(timers):,} timers in {server}"
    return Figure(
        name=f"{total(timers):,} pending, {server}",
        quantity=quantity,
        unit="bytes/timer",
        values=await bench.each_repeat(what, partial(bytes_a_timer, bench, timers)),
        goal=GOAL,
        better="less",
    )


async def bytes_a_timer(bench: Bench, shards: Shards) -> float:
    """What a timer takes in wheels of these shards."""
    url = bench.servers[SERVERS[1]]
    # Where there are no others the keys are those of a site that sets none: six timers share one.
    prefix = "" if bench.pids else f"bench{uuid4().hex[:12]}-"
    wheel = RedisWheel(url, prefix=prefix)
    async with Redis.from_url(url) as redis:
        before = await used_memory(redis)
        try:
            for shard, timers in shards.items():
                epoch = token()
                await wheel.take(shard, epoch)
                await wheel.wipe(shard, epoch)
                for start in range(0, len(timers), MAX_LOAD):
                    await wheel.load(shard, epoch, timers[start : start + MAX_LOAD])
            return (await used_memory(redis) - before) / total(shards)
        finally:
            await wheel.close()
            await remove_keys(redis, f"{prefix}wheel:*")


async def used_memory(redis: Redis) -> int:
    """Bytes, without what is only passing through, once all that was deleted is gone."""
    while (memory := await redis.info("memory"))["lazyfree_pending_objects"]:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    passing = int(memory["mem_clients_normal"]) + int(memory["mem_aof_buffer"])
    return int(memory["used_memory"]) - passing
