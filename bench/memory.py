"""What a pending timer costs in memory, on each server that can be had."""

import asyncio
from collections.abc import Sequence
from functools import partial
from uuid import uuid4

from redis.asyncio import Redis

from bench.harness import SERVERS, Bench, server_of
from bench.load import Shards, World, far_away, total
from bench.results import Figure, size_at
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
        figures += [await _on(bench, bench.servers[SERVERS[1]], timers, size_at(size))]
        if not bench.pids:
            continue  # the servers are not ours
        stack = EmbeddedStack(bench.folder / "redis", parts=["redis"], redis_server="redis")
        try:
            async with stack:
                figures += [await _on(bench, stack.environment[SERVERS[1]], timers)]
        except MissingPackageError:
            bench.say("memory: Redis 6.2 is not to be had here")
    return figures


async def _on(bench: Bench, url: str, timers: Shards, quantity: str = "") -> Figure:
    async with Redis.from_url(url) as redis:
        server = " ".join(server_of(await redis.info("server")))
    what = f"memory of {total(timers):,} timers in {server}"
    return Figure(
        name=f"{total(timers):,} pending, {server}",
        quantity=quantity,
        unit="bytes/timer",
        values=await bench.each_repeat(what, partial(bytes_a_timer, url, timers)),
        goal=GOAL,
        better="less",
    )


async def bytes_a_timer(url: str, shards: Shards) -> float:
    """What a timer takes in wheels of these shards."""
    prefix = f"bench{uuid4().hex[:12]}-"
    wheel = RedisWheel(url, prefix=prefix)
    async with Redis.from_url(url) as redis:
        before = await used_memory(redis)
        try:
            for shard, timers in shards.items():
                epoch = token()
                await wheel.take(shard, epoch)
                for start in range(0, len(timers), MAX_LOAD):
                    await wheel.load(shard, epoch, timers[start : start + MAX_LOAD])
            return (await used_memory(redis) - before) / total(shards)
        finally:
            await wheel.close()
            await remove_keys(redis, f"{prefix}*")


async def used_memory(redis: Redis) -> int:
    """Bytes, without what is only passing through, once all that was deleted is gone."""
    while (memory := await redis.info("memory"))["lazyfree_pending_objects"]:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    passing = int(memory["mem_clients_normal"]) + int(memory["mem_aof_buffer"])
    return int(memory["used_memory"]) - passing
