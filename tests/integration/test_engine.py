"""The main job on real parts: each engagement exactly once, whatever is killed meanwhile."""

import asyncio

import pytest
from redis.asyncio import Redis

from scheduler.settings import Settings, load_settings
from tests.integration.scenario import POLICY, QUICK_SESSION, judge, publish, running, settled

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.mark.nightly
async def test_two_of_each_with_one_of_each_killed_in_mid_run(
    environment: dict[str, str], settings: Settings
) -> None:
    async with running(environment | POLICY | QUICK_SESSION, workers=2, dispatchers=2) as processes:
        publishing = asyncio.create_task(publish(settings, 300, seed=1, over_s=10))
        for victim in (processes[0], processes[2]):
            await asyncio.sleep(3)  # paces the story, waits for nothing
            await victim.kill()
            await victim.start()
        published = await publishing
        await settled(settings, published)
        await judge(settings, published)


@pytest.mark.nightly
async def test_redis_is_flushed_in_mid_run(environment: dict[str, str], settings: Settings) -> None:
    async with running(environment | POLICY, workers=1, dispatchers=1) as processes:
        publishing = asyncio.create_task(publish(settings, 200, seed=2, over_s=6))
        await asyncio.sleep(3)  # paces the story, waits for nothing
        async with Redis.from_url(settings.redis_url) as redis:
            await redis.flushall()
        published = await publishing
        await settled(settings, published)
        await judge(settings, published)
        assert [await process.stop() for process in processes] == [0, 0]


async def test_worker_and_dispatcher_in_one_process(
    environment: dict[str, str], settings: Settings
) -> None:
    async with running(environment | POLICY, workers=0, dispatchers=0) as processes:
        from tests.integration.scenario import EngineProcess

        # Both within the grace that they have by default.
        by_default = {"POD_AUTOMATION_SHUTDOWN_GRACE_MS": str(load_settings().shutdown_grace_ms)}
        both = EngineProcess("run", environment | POLICY | by_default)
        processes.append(both)
        await both.start()
        published = await publish(settings, 100, seed=3, over_s=1)
        await settled(settings, published)
        await judge(settings, published)
        assert await both.stop() == 0
