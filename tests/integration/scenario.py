"""The whole engine as its users run it, and a judge that shares no code with it.

Workers and dispatchers are processes of the command line; the publisher and the reader are plain
aiokafka. What ought to have happened is computed here from the events alone.
"""

import asyncio
import contextlib
import os
import random
import signal
import sys
import time
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from redis.asyncio import Redis

from scheduler.settings import Settings
from tests.integration.worker_bench import broken_records, send_raw, until
from tests.tied import tied

CHECKOUT = Path(__file__).parents[2]
CAP, CAP_WINDOW_MS = 3, 1000

# Hours become seconds; the clocks stay true.
POLICY = {
    "POD_AUTOMATION_LIKE_MIN_DELAY_MS": "300",
    "POD_AUTOMATION_LIKE_MAX_DELAY_MS": "2500",
    "POD_AUTOMATION_LIKE_CAP_WINDOW_MS": str(CAP_WINDOW_MS),
    "POD_AUTOMATION_COMMENT_MIN_DELAY_MS": "1000",
    "POD_AUTOMATION_COMMENT_MAX_DELAY_MS": "8000",
    # A machine that stands still for a moment loses nobody: events would be announced twice.
    "POD_AUTOMATION_SESSION_TIMEOUT_MS": "30000",
}

QUICK_SESSION = {"POD_AUTOMATION_SESSION_TIMEOUT_MS": "1500"}
"""For tests that kill: so soon others take over."""

Key = tuple[str, str, str, str]  # pod, post, member, type


class EngineProcess:
    """`pod-automation worker`, `dispatcher` or any other, in a process that ends with this one.

    `log` gets what it says, else it goes where this process's goes. `program` is the folder that
    holds it: that of another release, or this checkout.
    """

    def __init__(
        self,
        command: str,
        environment: Mapping[str, str],
        *options: str,
        log: Path | None = None,
        program: Path = CHECKOUT,
    ) -> None:
        self.command = command
        self.log = log
        self._options = options
        self._folder = program
        # Python looks in the current folder first, then in this one.
        self._environment = {**os.environ, **environment, "PYTHONPATH": str(program)}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with contextlib.ExitStack() as stack:
            log = None if self.log is None else stack.enter_context(self.log.open("ab"))
            self._process = await asyncio.create_subprocess_exec(
                *tied(sys.executable, "-m", "pod_automation", self.command, *self._options),
                env=self._environment,
                cwd=self._folder,
                stderr=log,
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    async def ended(self) -> int:
        """Wait until it ends by itself; returns the exit code."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self._process is not None
        # One that has ended says so by its exit code.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        return await self._process.wait()


@asynccontextmanager
async def running(
    environment: Mapping[str, str], workers: int, dispatchers: int, executors: int = 0
) -> AsyncIterator[list[EngineProcess]]:
    """Started processes, workers first and executors last; killed at the end where they have not
    ended."""
    processes = [EngineProcess("worker", environment) for _ in range(workers)]
    processes += [EngineProcess("dispatcher", environment) for _ in range(dispatchers)]
    processes += [EngineProcess("executor", environment) for _ in range(executors)]
    try:
        for process in processes:
            await process.start()
        yield processes
    finally:
        for process in processes:
            await process.kill()


@dataclass
class Published:
    """What was sent, and what must come of it."""

    due: dict[Key, datetime] = field(default_factory=dict)
    """For each activity, the detection time of the event that first asked for it."""
    broken: set[str] = field(default_factory=set)
    """The `ce_id` of each record that is no event."""
    events: int = 0


async def publish(
    settings: Settings,
    events: int,
    *,
    seed: int,
    over_s: float,
    most_members: int = 40,
    first: int = 0,
) -> Published:
    """Send `events` events over about `over_s` seconds, some twice, and 50 broken records. They are
    numbered from `first` on: others than those of another call."""
    rng = random.Random(seed)
    topic = settings.topics.post_detected
    members = [f"member-{number}" for number in range(100)]
    published = Published()
    broken = broken_records()
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, max_batch_size=1_000_000, acks="all"
    )
    await producer.start()
    try:
        began = time.monotonic()
        sent = []
        every = max(1, events // len(broken))
        for number in range(events):
            # A schedule, so that what is killed meanwhile is killed in mid-run.
            await asyncio.sleep(max(0.0, began + over_s * number / events - time.monotonic()))
            value, key = _event(rng, first + number, members, published, most_members)
            sent.append(await producer.send(topic, value, key=key))
            if rng.random() < 0.1:
                sent.append(await producer.send(topic, value, key=key))
            if number % every == 0 and broken:
                partition = rng.randrange(settings.partitions)
                offset = await send_raw(producer, topic, partition, broken.pop())
                published.broken.add(f"{topic}/{partition}/{offset}")
        await asyncio.gather(*sent)
    finally:
        await producer.stop()
    published.events = events
    return published


def _event(
    rng: random.Random, number: int, members: list[str], published: Published, most: int
) -> tuple[bytes, bytes]:
    pod, post = f"pod-{number % 7}", f"post-{number}"
    chosen = rng.sample(members, rng.randint(1, most))
    detected_at = datetime.now(UTC).replace(microsecond=0)
    fields: dict[str, Any] = {
        "event_id": f"event-{number}",
        "pod_id": pod,
        "post_id": post,
        "member_ids": chosen + chosen[:2],
        "detected_at": detected_at.isoformat(),
    }
    types = ["like", "comment"]
    if rng.random() < 0.2:
        types = [rng.choice(types)]
        fields["engagement_types"] = types
    author = rng.choice(chosen) if rng.random() < 0.5 else None
    if author:
        fields["author_id"] = author
    for member in chosen:
        if member != author:
            for kind in types:
                published.due[pod, post, member, kind] = detected_at
    return orjson.dumps(fields), post.encode()


async def fired(settings: Settings) -> list[dict[str, Any]]:
    """All committed `execute-engagement` events."""
    return [orjson.loads(r.value) for r in await read(settings, settings.topics.execute_engagement)]


async def read(settings: Settings, topic: str) -> list[ConsumerRecord]:
    """All committed records of `topic`, from the beginning to the end as it is now."""
    partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
    ends_by = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await ends_by.start()
    try:
        ends = await ends_by.end_offsets(partitions)
    finally:
        await ends_by.stop()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap,
        isolation_level="read_committed",
        fetch_max_bytes=64 << 20,
        max_partition_fetch_bytes=16 << 20,
    )
    await consumer.start()
    records: list[ConsumerRecord] = []
    try:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for found in (await consumer.getmany(timeout_ms=200)).values():
                records += found
    finally:
        await consumer.stop()
    return records


async def settled(settings: Settings, published: Published) -> None:
    """Wait until all that was asked for has fired and the record knows it."""
    connection = await asyncpg.connect(settings.postgres_dsn)

    async def done() -> bool:
        count = await connection.fetchval(
            "select count(*) from pod_activities where status = 'dispatched'"
        )
        return bool(count >= len(published.due))

    try:
        await until(done, f"{len(published.due)} activities dispatched", every_s=0.2)
    finally:
        await connection.close()


async def executed(dsn: str, count: int) -> None:
    """Wait until so many activities are executed."""
    connection = await asyncpg.connect(dsn)

    async def done() -> bool:
        sql = "select count(*) from pod_activities where status = 'executed'"
        return bool(await connection.fetchval(sql) == count)

    try:
        await until(done, f"{count} activities executed")
    finally:
        await connection.close()


async def judge(settings: Settings, published: Published) -> None:
    """Everything that was promised, checked from outside."""
    # First: what is still in a slot would be sent when all has been read.
    await wheel_is_empty(settings, but=("meta", "awaited"))
    events = await fired(settings)
    times = Counter(_key(event) for event in events)
    assert {key: count for key, count in times.items() if count > 1} == {}, "twice"
    assert set(published.due) - set(times) == set(), "lost"
    assert set(times) - set(published.due) == set(), "never asked for"
    for event in events:
        assert _time(event["dispatched_at"]) >= _time(event["scheduled_for"]), "early"
        assert event["attempt"] == 1
    _caps(events)
    await _rows(settings, {_key(event): event for event in events})
    letters = Counter(
        value.decode()
        for record in await read(settings, settings.topics.dead_letter)
        for name, value in record.headers
        if name == "ce_id"
    )
    assert set(letters) == published.broken, "dead letters"


async def wheel_is_empty(settings: Settings, *, but: tuple[str, ...] = ("meta",)) -> None:
    """Wait until the wheels have nothing but their numbers: a dispatcher settles what it has fired
    with its next look. `but` names the keys that may be there."""
    async with Redis.from_url(settings.redis_url) as redis:

        async def empty() -> bool:
            keys = redis.scan_iter(f"{settings.topic_prefix}wheel:*")
            return all([key.decode().rpartition(":")[2] in but async for key in keys])

        await until(empty, "an empty wheel", every_s=0.1)


def _caps(events: list[dict[str, Any]]) -> None:
    likes: dict[str, list[datetime]] = defaultdict(list)
    for event in events:
        if event["engagement_type"] == "like":
            insort(likes[event["post_id"]], _time(event["scheduled_for"]))
    window = timedelta(milliseconds=CAP_WINDOW_MS)
    for times in likes.values():
        for first, beyond in zip(times, times[CAP:], strict=False):
            assert beyond - first >= window, "more likes in a window than the cap"


async def _rows(settings: Settings, events: Mapping[Key, dict[str, Any]]) -> None:
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        rows = await connection.fetch("select * from pod_activities")
    finally:
        await connection.close()
    assert len(rows) == len(events)
    for row in rows:
        event = events[row["pod_id"], row["post_id"], row["member_id"], row["engagement_type"]]
        assert row["id"] == UUID(event["activity_id"])
        assert row["status"] == "dispatched"
        assert row["scheduled_for"] == _time(event["scheduled_for"])
        assert row["dispatched_at"] == _time(event["dispatched_at"])


def _key(event: Mapping[str, Any]) -> Key:
    return event["pod_id"], event["post_id"], event["member_id"], event["engagement_type"]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
