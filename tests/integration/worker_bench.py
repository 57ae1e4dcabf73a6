"""What the worker's tests do to its world: publish, kill, look."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.settings import Settings
from tests.tied import tied

EPOCH = "test"
DETECTED_AT = "2026-11-24T08:00:00.000Z"
PATIENCE_S = 60.0

Broken = tuple[bytes | None, bytes | None, list[tuple[str, Any]]]  # key, value, headers


def event(number: int, members: Iterable[str], **fields: Any) -> bytes:
    """A `post-detected` event as a foreign system would write it."""
    return orjson.dumps(
        {
            "event_id": f"event-{number}",
            "pod_id": "pod",
            "post_id": f"post-{number}",
            "member_ids": list(members),
            "detected_at": DETECTED_AT,
            "a field of theirs": {"nested": [1, 2.5, None]},
        }
        | fields
    )


def broken_records() -> list[Broken]:
    """Fifty records that are no event, each in its own way."""
    good = orjson.loads(event(0, ["a"]))
    values: list[bytes | None] = [
        None,
        b"",
        b" ",
        b"not json",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"17",
        b"\xff\xfe\x00",
        b"{}" * 3,
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"y" * 900_000,
        orjson.dumps({"padding": "p" * 900_000}),
        b"\xef\xbb\xbf" + event(0, ["a"]),
        event(0, ["a"]).decode().encode("utf-16"),
        event(0, ["a"])[:-1],
        event(0, ["a"]) + b"}",
        b'{"event_id":NaN}',
    ]
    values += [
        orjson.dumps({name: value for name, value in good.items() if name != gone})
        for gone in ("event_id", "pod_id", "post_id", "member_ids", "detected_at")
    ]
    changes: list[dict[str, Any]] = [
        {"event_id": 7},
        {"event_id": ""},
        {"pod_id": None},
        {"pod_id": "p" * 201},
        {"post_id": ["x"]},
        {"post_id": "nul\x00"},
        {"post_id": "new\nline"},
        {"member_ids": "abc"},
        {"member_ids": {"a": 1}},
        {"member_ids": [1, 2]},
        {"member_ids": [""]},
        {"member_ids": ["a", None]},
        {"member_ids": [f"m{i}" for i in range(10_001)]},
        {"detected_at": "yesterday"},
        {"detected_at": 1_795_507_200},
        {"detected_at": "2026-11-24"},
        {"detected_at": "2026-11-24T08:00:00"},
        {"detected_at": "9999-12-31T23:59:59Z"},
        {"detected_at": "1869-01-01T00:00:00Z"},
        {"engagement_types": ["share"]},
        {"engagement_types": "like"},
        {"engagement_types": [["like"]]},
        {"author_id": 5},
        {"post_url": "u" * 5000},
        {"author_id": "\x7f"},
    ]
    values += [orjson.dumps(good | change) for change in changes]
    assert len(values) == 50
    keys: list[bytes | None] = [b"key", None, b"\xff\xfe", b"", b"k" * 10_000]
    headers: list[list[tuple[str, Any]]] = [
        [],
        [("ce_id", b"theirs"), ("ce_id", b"twice")],
        [("", b""), ("null", None), ("\N{SNOWMAN}", b"\xff")],
        [("reason", b"theirs"), ("source_offset", b"-1")],
        [(f"h{i}", b"x" * 100) for i in range(100)],
    ]
    return [
        (keys[i % len(keys)], value, headers[(i // 2) % len(headers)])
        for i, value in enumerate(values)
    ]


@asynccontextmanager
async def producing(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that knows nothing of us."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, max_batch_size=1_000_000
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def send_raw(producer: AIOKafkaProducer, topic: str, partition: int, record: Broken) -> int:
    """Send one record, whatever it is; returns its offset."""
    key, value, headers = record
    batch = producer.create_batch()
    assert batch.append(timestamp=None, key=key, value=value, headers=headers) is not None
    return int((await (await producer.send_batch(batch, topic, partition=partition))).offset)


@asynccontextmanager
async def transactional(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that writes in transactions, and knows nothing of us either."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap,
        transactional_id=f"{settings.topic_prefix}theirs",
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def leave_marker(producer: AIOKafkaProducer, topic: str, partition: int) -> None:
    """A transaction of `producer` that has died before its first record: a marker alone."""
    await producer.begin_transaction()
    await producer.client._wait_on_metadata(topic)
    producer._txn_manager.maybe_add_partition_to_txn(TopicPartition(topic, partition))
    await producer.commit_transaction()


class WorkerProcess:
    """A worker in a process that ends with this one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *tied(sys.executable, "-m", "tests.integration.run_worker"), env=self._environment
        )

    @property
    def started(self) -> bool:
        return self._process is not None

    @property
    def running(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    def signal(self, signum: signal.Signals) -> None:
        self.running.send_signal(signum)

    async def ended(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.running.wait()

    async def kill(self) -> None:
        # One that has ended by itself says so in its log.
        with contextlib.suppress(ProcessLookupError):
            self.signal(signal.SIGKILL)
        await self.ended()


@asynccontextmanager
async def workers(
    environment: Mapping[str, str], count: int = 1
) -> AsyncIterator[list[WorkerProcess]]:
    """Started workers, killed at the end where they have not ended."""
    processes = [WorkerProcess(environment) for _ in range(count)]
    try:
        for process in processes:
            await process.start()
        yield processes
    finally:
        for process in processes:
            if process.started:
                await process.kill()


async def joined(settings: Settings, group: str, count: int) -> None:
    """Wait until `group` has `count` members that have settled who gets what."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()

    async def stable() -> bool:
        try:
            (answer,) = await admin.describe_consumer_groups([group])
        except KafkaError:
            return False  # the broker has had no group yet
        _, _, state, _, _, members, *_ = answer.groups[0]
        return state == "Stable" and len(members) == count

    try:
        await until(stable, f"{count} members of {group}")
    finally:
        await admin.close()


async def until(condition: Callable[[], Awaitable[bool]], what: str, every_s: float = 0.05) -> None:
    """Wait until `condition` holds; fails after a generous time."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():  # noqa: ASYNC110 - other processes set no events
                await asyncio.sleep(every_s)
    except TimeoutError:
        raise AssertionError(f"in {PATIENCE_S:.0f} s not: {what}") from None


class Bench:
    """The stores, looked at from outside."""

    def __init__(
        self,
        settings: Settings,
        database: "asyncpg.Pool[asyncpg.Record]",
        record: PostgresRecord,
    ) -> None:
        self.settings = settings
        self.database = database
        self.record = record
        self.wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)

    async def open_wheels(self) -> None:
        """Stand in for the dispatcher: a first life for every shard."""
        for shard in range(self.settings.partitions):
            await self.wheel.take(shard, EPOCH)
            await self.wheel.wipe(shard, EPOCH)
            await self.wheel.open(shard, EPOCH, "gen", (0, ""), {})

    async def members(self, count: int) -> None:
        """Wait until so many workers have settled who gets what."""
        await joined(self.settings, self.settings.worker_group, count)

    async def rows(self) -> int:
        return int(await self.database.fetchval("select count(*) from pod_activities"))

    async def watermarks(
        self, store: PostgresRecord | RedisWheel, topic: str | None = None
    ) -> dict[int, int]:
        """How far each partition of `topic` (default: posts) has been applied, if it has been."""
        topic = topic or self.settings.topics.post_detected
        found = {}
        for shard in range(self.settings.partitions):
            if isinstance(store, PostgresRecord):
                at = await store.watermark(topic, shard)
            else:
                at = await store.watermark(shard, topic)
            if at >= 0:
                found[shard] = at
        return found

    async def timers(self) -> int:
        shards = range(self.settings.partitions)
        return sum([(await self.wheel.size(shard)).pending for shard in shards])

    async def applied(self, ends: Mapping[int, int], topic: str | None = None) -> None:
        """Wait until both stores have applied all before `ends`, and the group has committed it."""
        wanted = {partition: end - 1 for partition, end in ends.items() if end}
        topic = topic or self.settings.topics.post_detected
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap)
        await admin.start()

        async def done() -> bool:
            stores = (self.record, self.wheel)
            if not all([await self.watermarks(store, topic) == wanted for store in stores]):
                return False
            offsets = await admin.list_consumer_group_offsets(self.settings.worker_group)
            # Committed is what has been acked, and acked what has been announced too.
            return all(
                (at := offsets.get(TopicPartition(topic, partition))) and at.offset == end
                for partition, end in ends.items()
                if end
            )

        try:
            await until(done, f"applied up to {wanted}")
        finally:
            await admin.close()

    async def ends(self, topic: str) -> dict[int, int]:
        async with self._consumer() as consumer:
            tps = [TopicPartition(topic, each) for each in range(self.settings.partitions)]
            return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}

    async def read(self, topic: str) -> list[ConsumerRecord]:
        """All that is in `topic` at present."""
        records: list[ConsumerRecord] = []
        async with self._consumer() as consumer:
            tps = [TopicPartition(topic, each) for each in range(self.settings.partitions)]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            ends = await consumer.end_offsets(tps)
            while any([await consumer.position(tp) < end for tp, end in ends.items()]):
                for got in (await consumer.getmany(timeout_ms=200)).values():
                    records += got
        return records

    async def statuses(self) -> Counter[str]:
        """How often each status event was sent, by its id."""
        records = await self.read(self.settings.topics.engagement_status)
        return Counter(orjson.loads(record.value)["event_id"] for record in records)

    async def verify(self, activities: int) -> None:
        """`activities` rows with as many timers, and each announced."""
        assert await self.rows() == activities
        assert await self.timers() == activities
        ids = await self.database.fetch("select id from pod_activities")
        statuses = await self.statuses()
        assert set(statuses) == {f"{row[0]}:scheduled:1" for row in ids}

    @asynccontextmanager
    async def _consumer(self) -> AsyncIterator[AIOKafkaConsumer]:
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self.settings.kafka_bootstrap,
            auto_offset_reset="earliest",
            fetch_max_bytes=64 << 20,
        )
        await consumer.start()
        try:
            yield consumer
        finally:
            await consumer.stop()


@asynccontextmanager
async def bench(settings: Settings) -> AsyncIterator[Bench]:
    """The stores of `settings`, with open wheels."""
    record = await PostgresRecord.connect(settings.postgres_dsn)
    async with asyncpg.create_pool(settings.postgres_dsn, min_size=1, max_size=2) as database:
        made = Bench(settings, database, record)
        try:
            await made.open_wheels()
            yield made
        finally:
            await made.wheel.close()
            await record.close()
