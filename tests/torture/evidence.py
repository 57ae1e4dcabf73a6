"""What a tortured site has left behind in its three stores, read from the start, as plain data."""

import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from scheduler.settings import Settings

Where = tuple[str, int]
"""Topic without its prefix, and partition."""


@dataclass(frozen=True)
class Record:
    """A record of Kafka. `value` is None where it is no JSON object."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: dict[str, Any] | None
    headers: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class Shard:
    """A shard's wheel: its meta, and what is left in each of its keys, by the key's last part."""

    meta: dict[str, str]
    left: dict[str, int]


@dataclass
class Evidence:
    """All of it."""

    posts: Sequence[Record] = ()
    commands: Sequence[Record] = ()
    executes: Sequence[Record] = ()
    statuses: Sequence[Record] = ()
    results: Sequence[Record] = ()
    """Committed ones."""
    letters: Sequence[Record] = ()
    cursors: Sequence[Record] = ()
    last: Mapping[Where, int] = field(default_factory=dict)
    """Of each partition that a worker reads, the offset of the last record, committed or not."""
    acked: Mapping[Where, int] = field(default_factory=dict)
    """Likewise, the offset behind the last one that the worker group has acked."""
    rows: Sequence[Mapping[str, Any]] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    watermarks: Mapping[Where, int] = field(default_factory=dict)
    """PostgreSQL's."""
    shards: Mapping[int, Shard] = field(default_factory=dict)


INPUTS = ("post-detected", "engagement-executed", "pod-commands")


async def gather(settings: Settings) -> Evidence:
    """Read all of it."""
    topics = settings.topics
    uncommitted = [
        record
        for topic in topics.inputs
        for record in await read_topic(settings, topic, "read_uncommitted")
    ]
    last: dict[Where, int] = {}
    for record in uncommitted:
        where = record.topic, record.partition
        last[where] = max(last.get(where, -1), record.offset)
    rows, counts, watermarks = await _record(settings)
    return Evidence(
        posts=[record for record in uncommitted if record.topic == "post-detected"],
        commands=[record for record in uncommitted if record.topic == "pod-commands"],
        executes=await read_topic(settings, topics.execute_engagement),
        statuses=await read_topic(settings, topics.engagement_status),
        results=await read_topic(settings, topics.engagement_executed),
        letters=await read_topic(settings, topics.dead_letter),
        cursors=await read_topic(settings, topics.wheel_cursor),
        last=last,
        acked=await _acked(settings),
        rows=rows,
        counts=counts,
        watermarks=watermarks,
        shards=await wheels(settings),
    )


async def read_topic(
    settings: Settings, topic: str, isolation: str = "read_committed"
) -> list[Record]:
    """All records of `topic` up to its end as it is now."""
    partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
    async with _consumer(settings, "read_uncommitted") as consumer:
        ends = await consumer.end_offsets(partitions)
    found: list[Record] = []
    async with _consumer(settings, isolation) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=200)).values():
                found += [_record_of(settings, each) for each in batch]
    return found


async def wheels(settings: Settings) -> dict[int, Shard]:
    """What is in Redis."""
    prefix = f"{settings.topic_prefix}wheel:"
    shards: dict[int, Shard] = {}
    async with Redis.from_url(settings.redis_url, decode_responses=True) as redis:
        async for key in redis.scan_iter(f"{prefix}*", count=1000):
            found = re.fullmatch(rf"{re.escape(prefix)}\{{(\d+)\}}:(.+)", key)
            assert found, key
            shard = shards.setdefault(int(found[1]), Shard({}, {}))
            if found[2] == "meta":
                meta = await redis.hgetall(key)
                shard.meta = {str(name): str(value) for name, value in meta.items()}
            elif found[2] != "paused":  # who is paused: no timers
                kind = str(await redis.type(key))
                if kind == "none":
                    continue  # emptied since the scan: a slot that has fired
                sizes = {"zset": redis.zcard, "set": redis.scard, "string": redis.strlen}
                shard.left[found[2]] = await sizes[kind](key)
    return shards


@asynccontextmanager
async def _consumer(settings: Settings, isolation: str) -> AsyncIterator[AIOKafkaConsumer]:
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        isolation_level=isolation,
        fetch_max_bytes=64 << 20,
        max_partition_fetch_bytes=16 << 20,
    )
    await consumer.start()
    try:
        yield consumer
    finally:
        await consumer.stop()


def _record_of(settings: Settings, record: Any) -> Record:
    try:
        value = orjson.loads(record.value or b"")
    except orjson.JSONDecodeError:
        value = None
    return Record(
        topic=record.topic.removeprefix(settings.topic_prefix),
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp,
        value=value if isinstance(value, dict) else None,
        headers=dict(record.headers),
    )


async def _record(
    settings: Settings,
) -> tuple[list[Mapping[str, Any]], dict[str, int], dict[Where, int]]:
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        rows = await connection.fetch("select * from pod_activities")
        counts = await connection.fetch("select * from member_engagement")
        offsets = await connection.fetch("select * from ingested_offsets")
    finally:
        await connection.close()
    prefix = settings.topic_prefix
    return (
        [{**row, "id": str(row["id"])} for row in rows],
        {row["member_id"]: row["engagement_count"] for row in counts},
        {
            (row["topic"].removeprefix(prefix), row["partition"]): row["last_offset"]
            for row in offsets
        },
    )


async def _acked(settings: Settings) -> dict[Where, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        offsets = await admin.list_consumer_group_offsets(settings.worker_group)
    finally:
        await admin.close()
    prefix = settings.topic_prefix
    return {
        (at.topic.removeprefix(prefix), at.partition): found.offset for at, found in offsets.items()
    }
