"""Processes with an instance id, and restarts of all of them, on real parts."""

import asyncio
import signal

import pytest
from aiokafka.protocol.group import LeaveGroupRequest

from pod_automation.cli.exit_codes import ExitCode
from scheduler.adapters.kafka_shard_group import KafkaShardGroup
from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.errors import InstanceReplacedError
from scheduler.settings import Settings
from tests.integration.scenario import (
    POLICY,
    QUICK_SESSION,
    EngineProcess,
    judge,
    publish,
    running,
    settled,
)

pytestmark = pytest.mark.timeout(240)


NEVER_MS = 600_000
"""A session that no test waits for."""


def group_of(
    settings: Settings, instance_id: str | None, session_ms: int = NEVER_MS
) -> KafkaShardGroup:
    return KafkaShardGroup(
        settings.kafka_bootstrap,
        settings.topics.wheel_cursor,
        settings.dispatcher_group,
        session_ms,
        instance_id,
    )


def generation_of(group: KafkaShardGroup) -> int:
    assert group._consumer is not None
    return int(group._consumer._coordinator.generation)


async def balanced(one: KafkaShardGroup, other: KafkaShardGroup, shards: int) -> None:
    """Wait until both have some of the shards, and each of them is one's."""
    changing = {group: asyncio.create_task(group.changed()) for group in (one, other)}

    def shared_out() -> bool:
        # One that had all of them may not have heard yet that some are the other's.
        sizes = len(one.assigned), len(other.assigned)
        return min(sizes) > 0 and sum(sizes) == len(one.assigned | other.assigned) == shards

    while not shared_out():
        done, _ = await asyncio.wait(changing.values(), return_when=asyncio.FIRST_COMPLETED)
        for group, task in list(changing.items()):
            if task in done:
                task.result()
                changing[group] = asyncio.create_task(group.changed())
    for task in changing.values():
        task.cancel()


async def test_who_comes_back_under_its_id_gets_its_shards_and_nobody_else_notices(
    settings: Settings,
) -> None:
    await ensure_topics(settings)
    other, old, new = (group_of(settings, each) for each in ("b", "a", "a"))
    try:
        await balanced(other, old, settings.partitions)
        shards, generation = old.assigned, generation_of(old)
        assert await new.changed() == shards
        # The group has not moved: whoever else is in it has heard of nothing.
        assert generation_of(new) == generation_of(other) == generation
        with pytest.raises(InstanceReplacedError, match="another process has started as a"):
            await old.changed()
        # And what is thrown out does not come back: the new one is still in its place.
        await old.close()
        assert generation_of(new) == generation
    finally:
        for group in (other, old, new):
            await group.close()


async def test_a_static_member_that_is_closed_leaves(settings: Settings) -> None:
    await ensure_topics(settings)
    other, leaver = group_of(settings, "b"), group_of(settings, "a")
    try:
        await balanced(other, leaver, settings.partitions)
        await leaver.close()
        assert await other.changed() == frozenset(range(settings.partitions))
    finally:
        await other.close()
        await leaver.close()


async def test_a_static_member_whose_session_was_over_joins_again(settings: Settings) -> None:
    await ensure_topics(settings)
    group = group_of(settings, "a")
    everything = frozenset(range(settings.partitions))
    try:
        assert await group.changed() == everything
        assert group._consumer is not None
        # What becomes of one that is silent for too long: it is out, and nobody is in its place.
        coordinator = group._consumer._coordinator
        await coordinator._send_req(LeaveGroupRequest(coordinator.group_id, coordinator.member_id))
        assert await group.changed() == everything
    finally:
        await group.close()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["worker", "dispatcher", "executor"])
async def test_of_two_with_one_id_the_older_ends_and_says_so(
    environment: dict[str, str], settings: Settings, command: str
) -> None:
    await ensure_topics(settings)
    environment = environment | POLICY | QUICK_SESSION | {"POD_AUTOMATION_INSTANCE_ID": "one"}
    older, newer = EngineProcess(command, environment), EngineProcess(command, environment)
    try:
        # In this order they may reach the group in the other one: one of them ends, one stays.
        for process in (older, newer):
            await process.start()
        ends = {asyncio.create_task(process.ended()): process for process in (older, newer)}
        done, pending = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result() for task in done} == {int(ExitCode.REPLACED)}
        (stays,) = pending
        assert await ends[stays].stop() == 0
        await stays
    finally:
        for process in (older, newer):
            await process.kill()


@pytest.mark.slow
async def test_all_restart_one_after_the_other_under_load(
    environment: dict[str, str], settings: Settings
) -> None:
    async with running(environment | POLICY | QUICK_SESSION, workers=2, dispatchers=2) as processes:
        publishing = asyncio.create_task(publish(settings, 300, seed=5, over_s=12))
        for process in processes:
            await asyncio.sleep(2.5)  # paces the story, waits for nothing
            # One that is told before it has begun has nothing to give away.
            assert await process.stop() in (0, -signal.SIGTERM)
            await process.start()
        published = await publishing
        await settled(settings, published)
        await judge(settings, published)


@pytest.mark.nightly
@pytest.mark.slow
async def test_all_are_killed_one_after_the_other_and_come_back_under_their_ids(
    environment: dict[str, str], settings: Settings
) -> None:
    named = [
        EngineProcess(
            command, environment | POLICY | QUICK_SESSION | {"POD_AUTOMATION_INSTANCE_ID": name}
        )
        for command in ("worker", "dispatcher")
        for name in ("a", "b")
    ]
    try:
        for process in named:
            await process.start()
        publishing = asyncio.create_task(publish(settings, 300, seed=6, over_s=12))
        for process in named:
            await asyncio.sleep(2.5)  # paces the story, waits for nothing
            await process.kill()
            await process.start()
        published = await publishing
        await settled(settings, published)
        await judge(settings, published)
    finally:
        for process in named:
            await process.kill()
