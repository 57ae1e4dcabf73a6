"""The whole life of engagements on real parts: each comes to one end, whatever is killed."""

import asyncio
import random
from collections import Counter, defaultdict
from typing import Any

import asyncpg
import orjson
import pytest
from aiokafka import AIOKafkaProducer

from scheduler.settings import Settings
from schemas.codec import decode
from schemas.events import EngagementStatus
from tests.integration import life_handler
from tests.integration.scenario import (
    POLICY,
    QUICK_SESSION,
    EngineProcess,
    Published,
    fired,
    publish,
    read,
    running,
    wheel_is_empty,
)
from tests.integration.worker_bench import send_raw, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

LIFE = (
    POLICY
    | QUICK_SESSION
    | {
        "POD_AUTOMATION_RESULT_TIMEOUT_MS": "12000",
        "POD_AUTOMATION_BACKOFF_INITIAL_DELAY_MS": "200",
        "POD_AUTOMATION_QUEUE_CONCURRENCY": "200",
    }
)
# The engine's deadline comes first.
EXECUTOR = ("--handler", "tests.integration.life_handler:handle", "--time-limit", "18")
FINAL = ("executed", "failed")


async def ended(settings: Settings, published: Published) -> None:
    """Wait until every activity has come to its end."""
    connection = await asyncpg.connect(settings.postgres_dsn)

    async def done() -> bool:
        count = await connection.fetchval(
            "select count(*) from pod_activities where status = any($1)", FINAL
        )
        return bool(count >= len(published.due))

    try:
        await until(done, f"{len(published.due)} activities ended", every_s=0.2)
    finally:
        await connection.close()


async def judge(settings: Settings, published: Published, *, killed: bool) -> None:
    """What was promised, from all three stores."""
    # First: what is still in a slot would be sent when all has been read.
    await wheel_is_empty(settings)
    events = await fired(settings)
    attempts: dict[str, list[int]] = defaultdict(list)
    for event in events:
        attempts[event["activity_id"]].append(event["attempt"])
        assert event["dispatched_at"] >= event["scheduled_for"], "early"
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        rows = await connection.fetch("select * from pod_activities")
        found = await connection.fetch(
            "select member_id, engagement_count from member_engagement where engagement_count > 0"
        )
    finally:
        await connection.close()
    counts = {row["member_id"]: row["engagement_count"] for row in found}
    assert len(rows) == len(published.due) == len(attempts)
    told: dict[str, set[str]] = defaultdict(set)
    for record in await read(settings, settings.topics.engagement_status):
        status = decode(EngagementStatus, record.value)
        told[status.activity_id].add(status.status)
    for row in rows:
        name = str(row["id"])
        made = sorted(attempts[name])
        assert made == list(range(1, len(made) + 1)), "an attempt twice, or left out"
        assert row["status"] in FINAL
        assert len(told[name] & {"executed", "failed", "cancelled", "expired"}) == 1, "two ends"
        assert row["status"] in told[name]
        assert row["dispatched_at"] is not None
        if killed:
            # An executor that died has lost an attempt, and a late `executed` may have won.
            assert len(made) - 1 <= row["attempt"] <= len(made)
        else:
            assert (row["status"], row["attempt"]) == life_handler.end(name)
            assert row["attempt"] == len(made)
    done = Counter(row["member_id"] for row in rows if row["status"] == "executed")
    assert counts == dict(done), "members counted wrongly"
    letters: Counter[str] = Counter()
    for record in await read(settings, settings.topics.dead_letter):
        headers = dict(record.headers)
        if headers["reason"].startswith(b"failed"):
            letters[orjson.loads(record.value)["activity_id"]] += 1
            assert orjson.loads(headers["history"])
    assert letters.keys() == {str(row["id"]) for row in rows if row["status"] == "failed"}


async def test_each_comes_to_its_end(environment: dict[str, str], settings: Settings) -> None:
    async with running(environment | LIFE, workers=1, dispatchers=1) as processes:
        processes.append(EngineProcess("executor", environment | LIFE, *EXECUTOR))
        await processes[-1].start()
        published = await publish(settings, 100, seed=11, over_s=3, most_members=12)
        await ended(settings, published)
        await judge(settings, published, killed=False)
        assert [await process.stop() for process in processes] == [0, 0, 0]


@pytest.mark.nightly
async def test_each_is_killed_in_mid_run(environment: dict[str, str], settings: Settings) -> None:
    async with running(environment | LIFE, workers=2, dispatchers=2) as processes:
        executors = [EngineProcess("executor", environment | LIFE, *EXECUTOR) for _ in range(2)]
        processes += executors
        for executor in executors:
            await executor.start()
        publishing = asyncio.create_task(
            publish(settings, 200, seed=12, over_s=14, most_members=12)
        )
        for victim in (processes[0], processes[2], executors[0], processes[1], executors[1]):
            await asyncio.sleep(2.5)  # paces the story, waits for nothing
            await victim.kill()
            await victim.start()
        published = await publishing
        await ended(settings, published)
        await judge(settings, published, killed=True)


@pytest.mark.nightly
async def test_hostile_results_change_nothing(
    environment: dict[str, str], settings: Settings
) -> None:
    rng = random.Random(13)
    async with running(environment | LIFE, workers=1, dispatchers=1) as processes:
        executor = EngineProcess("executor", environment | LIFE, *EXECUTOR)
        processes.append(executor)
        await executor.start()
        published = await publish(settings, 40, seed=13, over_s=2, most_members=12)
        await ended(settings, published)
        results = await read(settings, settings.topics.engagement_executed)
        broken = await send_nonsense(settings, rng, [record.value for record in results])
        # All of it has been applied once what was sent last has been.
        await applied(settings)
        await judge(settings, published, killed=False)
        reasons = [
            dict(record.headers)["reason"].decode()
            for record in await read(settings, settings.topics.dead_letter)
            if dict(record.headers)["source_topic"] == settings.topics.engagement_executed.encode()
        ]
        assert len([each for each in reasons if not each.startswith("failed")]) == broken


async def send_nonsense(settings: Settings, rng: random.Random, results: list[bytes]) -> int:
    """Results twice, in any order, of other attempts, of other activities, with others' ids, and
    bytes; returns how many of them belong on dead-letter."""
    topic = settings.topics.engagement_executed
    broken = 0
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, max_batch_size=1_000_000
    ) as producer:

        async def send(value: bytes) -> None:
            partition = rng.randrange(settings.partitions)
            await producer.send(topic, value, key=b"any", partition=partition)

        rng.shuffle(results)
        for value in results:
            await send(value)  # twice, and elsewhere than its shard
            event: dict[str, Any] = orjson.loads(value)
            await send(orjson.dumps(event | {"attempt": rng.randint(1, 255)}))
            await send(orjson.dumps(event | {"outcome": "executed", "attempt": 1}))
            await send(orjson.dumps(event | {"activity_id": "unknown"}))
            if rng.random() < 0.2:
                await send(orjson.dumps(event | {"pod_id": "another"}))
                broken += 1
        for _ in range(1000):
            fuzzed = bytearray(rng.choice(results))
            for _ in range(rng.randint(1, 4)):
                fuzzed[rng.randrange(len(fuzzed))] = rng.randrange(0x80, 0xC0)  # never UTF-8
            partition = rng.randrange(settings.partitions)
            await send_raw(producer, topic, partition, (b"any", bytes(fuzzed), []))
            broken += 1
    return broken


async def applied(settings: Settings) -> None:
    """Wait until the workers have applied all results that are there."""
    ends: dict[int, int] = {}
    for record in await read(settings, settings.topics.engagement_executed):
        ends[record.partition] = record.offset
    connection = await asyncpg.connect(settings.postgres_dsn)

    async def done() -> bool:
        rows = await connection.fetch(
            "select partition, last_offset from ingested_offsets where topic = $1",
            settings.topics.engagement_executed,
        )
        at = {row["partition"]: row["last_offset"] for row in rows}
        return all(at.get(partition, -1) >= end for partition, end in ends.items())

    try:
        await until(done, "all results applied", every_s=0.1)
    finally:
        await connection.close()
