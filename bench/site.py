"""One engine of its own on the servers: a topic prefix, a database, and nothing left of either."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from bench.load import Shards
from pod_automation.demo.child import Child, clean_environment
from pod_automation.processes import token
from scheduler.adapters.kafka_consumer import reading
from scheduler.adapters.kafka_shard_log import KafkaShardLog
from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.adapters.redis_wheel import MAX_LOAD, RedisWheel
from scheduler.migrations import migrate
from scheduler.ports import WheelSize
from scheduler.settings import ENV_PREFIX, Settings, load_settings
from schemas.events import WheelCursor

PATIENCE_S = 120.0
LOOK_S = 0.02
UNLINKED = 5000


class Site:
    """The engine under test, of the default settings and eight shards."""

    def __init__(
        self,
        settings: Settings,
        wheel: RedisWheel,
        database: "asyncpg.Connection[asyncpg.Record]",
        folder: Path,
    ) -> None:
        self.settings = settings
        self.wheel = wheel
        self._database = database
        self._folder = folder

    @property
    def shards(self) -> range:
        """All shards."""
        return range(self.settings.partitions)

    @asynccontextmanager
    async def process(self, command: str, **settings: object) -> AsyncIterator["Process"]:
        """`pod-automation <command>` as a process, with further settings by their field names."""
        ours = self.settings.model_dump(exclude_defaults=True) | settings
        environment = clean_environment() | {
            ENV_PREFIX + name.upper(): str(value) for name, value in ours.items()
        }
        child = Process(command, environment, self._folder / f"{command}-{uuid4().hex}.log")
        try:
            await child.start()
            yield child
        finally:
            await child.stop()

    async def open_wheels(self, shards: Shards) -> None:
        """Give each shard a wheel that holds its timers, as a dispatcher would have left it."""
        await asyncio.gather(*(self._open(shard, shards) for shard in self.shards))

    async def _open(self, shard: int, shards: Shards) -> None:
        settings, epoch = self.settings, token()
        log = KafkaShardLog(
            settings.kafka_bootstrap,
            settings.topics,
            shard,
            f"{settings.topic_prefix}dispatcher-{shard}",
        )
        cursor = WheelCursor(seq=0, nonce=token(), gen=token())
        try:
            await self.wheel.take(shard, epoch)
            await self.wheel.wipe(shard, epoch)
            await log.fence()
            await log.commit((), await self.wheel.now_ms(), cursor)
        finally:
            await log.close()
        timers = shards.get(shard, ())
        for start in range(0, len(timers), MAX_LOAD):
            await self.wheel.load(shard, epoch, timers[start : start + MAX_LOAD])
        await self.wheel.open(shard, epoch, cursor.gen, (cursor.seq, cursor.nonce), {})

    async def add(self, shards: Shards) -> None:
        """Add timers to open wheels, as a worker does."""
        topic = self.settings.topics.post_detected
        for shard, timers in shards.items():
            at = await self.wheel.watermark(shard, topic)
            for start in range(0, len(timers), MAX_LOAD):
                some = timers[start : start + MAX_LOAD]
                at = await self.wheel.add(shard, topic, at, at + 1, some)

    async def pending(self) -> int:
        """Timers in all wheels."""
        return sum(size.pending + size.in_flight for size in await self.sizes())

    async def sizes(self) -> Sequence[WheelSize]:
        """Of the wheels, in the order of their shards."""
        return await asyncio.gather(*map(self.wheel.size, self.shards))

    async def lose_wheels(self) -> None:
        """What FLUSHALL does, to our own keys alone."""
        async with Redis.from_url(self.settings.redis_url) as redis:
            await remove_keys(redis, f"{self.settings.topic_prefix}*")

    async def read(self, topic: str) -> list[ConsumerRecord]:
        """All that a reader of committed records finds in `topic`."""
        records: list[ConsumerRecord] = []
        await self.each(topic, records.append)
        return records

    async def each(self, topic: str, take: Callable[[ConsumerRecord], None]) -> None:
        """Have `take` take each record that a reader of committed records finds in `topic`."""
        partitions = [TopicPartition(topic, shard) for shard in self.shards]
        async with reading(self.settings.kafka_bootstrap, partitions) as consumer:
            ends = await consumer.end_offsets(partitions)
            await consumer.seek_to_beginning(*partitions)
            while not await _at_end(consumer, ends):
                for found in (await consumer.getmany(timeout_ms=500)).values():
                    for record in found:
                        take(record)

    async def fetch(self, sql: str, *arguments: object) -> "Sequence[asyncpg.Record]":
        """Rows out of the database."""
        return await self._database.fetch(sql, *arguments)

    async def rows(self, sql: str, *arguments: object) -> int:
        """One number out of the database."""
        return int(await self._database.fetchval(sql, *arguments))

    async def remove(self) -> None:
        """Delete topics and keys; the database is its maker's."""
        await self.lose_wheels()
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.kafka_bootstrap)
        try:
            await admin.start()
            await admin.delete_topics(list(self.settings.topics))
        finally:
            await admin.close()


class Process(Child):
    """A process of the engine."""

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None
        return self._process.pid

    struck_ms = 0
    """When it was last told to end, or killed, in milliseconds UTC."""

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.returncode is None

    async def stop(self) -> None:
        """See `Child.stop`."""
        self.struck_ms = time.time_ns() // 1_000_000
        await super().stop()

    async def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self.struck_ms = time.time_ns() // 1_000_000
        self._process.kill()
        await self._process.wait()

    async def said(self, words: str, times: int = 1) -> None:
        """Wait until its log has `words` so many times."""

        await self.until(lambda: self.count(words), times, f"{words!r} in its log")

    async def count(self, words: str) -> int:
        """How often its log has `words`."""
        return (await asyncio.to_thread(self.log.read_text, "utf-8")).count(words)

    async def until(
        self, look: Callable[[], Awaitable[int]], enough: int, what: str, look_s: float = LOOK_S
    ) -> tuple[float, int]:
        """Wait until `look` gives `enough`; returns when (monotonic) and what it gave."""
        end = time.monotonic() + PATIENCE_S
        while (seen := await look()) < enough:
            assert self._process is not None
            if self._process.returncode is not None:
                raise RuntimeError(f"the {self.command} has ended:\n{self.last_lines()}")
            if time.monotonic() >= end:
                raise RuntimeError(
                    f"the {self.command} is at {seen} of {enough} ({what}) after"
                    f" {PATIENCE_S:.0f} s:\n{self.last_lines()}"
                )
            await asyncio.sleep(look_s)
        return time.monotonic(), seen


@asynccontextmanager
async def site(servers: Mapping[str, str], folder: Path) -> AsyncIterator[Site]:
    """A new site, with tables and topics, on the servers that the variables `servers` name."""
    name = f"bench{uuid4().hex[:12]}"
    base = servers[ENV_PREFIX + "POSTGRES_DSN"]
    dsn = urlunsplit(urlsplit(base)._replace(path=f"/{name}"))
    settings = load_settings(
        kafka_bootstrap=servers[ENV_PREFIX + "KAFKA_BOOTSTRAP"],
        redis_url=servers[ENV_PREFIX + "REDIS_URL"],
        postgres_dsn=dsn,
        topic_prefix=f"{name}-",
    )
    async with AsyncExitStack() as stack:
        admin = await asyncpg.connect(base)
        stack.push_async_callback(admin.close)
        await admin.execute(f"create database {name}")
        stack.push_async_callback(admin.execute, f"drop database {name} with (force)")
        await migrate(dsn)
        wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
        stack.push_async_callback(wheel.close)
        database = await asyncpg.connect(dsn)
        stack.push_async_callback(database.close)
        made = Site(settings, wheel, database, folder)
        stack.push_async_callback(made.remove)
        await ensure_topics(settings)
        yield made


async def remove_keys(redis: Redis, pattern: str) -> None:
    """Unlink all keys that match."""
    keys = [key async for key in redis.scan_iter(pattern, count=UNLINKED)]
    for start in range(0, len(keys), UNLINKED):
        await redis.unlink(*keys[start : start + UNLINKED])


async def _at_end(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
    return all([await consumer.position(each) >= end for each, end in ends.items()])
