"""One round's site: its topics and database on the servers, and its processes."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.migrations import migrate
from scheduler.settings import ENV_PREFIX, Settings, load_settings
from tests.torture.evidence import INPUTS, Evidence, gather
from tests.torture.process import BUG
from tests.torture.processes import Process
from tests.torture.servers import SLOTS, Servers
from tests.torture.verdict import FINAL, Policy

PARTITIONS = 4
POLICY = Policy(
    like=(300, 2500),
    comment=(1000, 8000),
    cap=3,
    window_ms=1000,
    attempts=3,
    result_timeout_ms=4000,
)
SESSION_S = 1.5
SETTINGS = {
    "LIKE_MIN_DELAY_MS": POLICY.like[0],
    "LIKE_MAX_DELAY_MS": POLICY.like[1],
    "LIKE_MAX_MEMBERS_PER_HOUR": POLICY.cap,
    "LIKE_CAP_WINDOW_MS": POLICY.window_ms,
    "COMMENT_MIN_DELAY_MS": POLICY.comment[0],
    "COMMENT_MAX_DELAY_MS": POLICY.comment[1],
    "QUEUE_ATTEMPTS": POLICY.attempts,
    "RESULT_TIMEOUT_MS": POLICY.result_timeout_ms,
    "BACKOFF_INITIAL_DELAY_MS": 200,
    "QUEUE_CONCURRENCY": 200,
    "SESSION_TIMEOUT_MS": round(SESSION_S * 1000),
    # Small batches: more transactions, more moments to die at.
    "DISPATCH_BATCH": 50,
    "INGEST_BATCH_EVENTS": 20,
    "PARTITIONS": PARTITIONS,
}
EXECUTOR = ("--handler", "tests.integration.life_handler:handle", "--time-limit", "6")
HOME = ("worker-1", "worker-2", "dispatcher-1", "dispatcher-2", "executor-1", "executor-2")
"""The slots that are manned from the start; the others join now and then."""

CALM_S = 120.0


class Site:
    """What faults act upon."""

    def __init__(
        self,
        servers: Servers,
        settings: Settings,
        processes: Mapping[str, Process],
        note: Callable[..., None],
    ) -> None:
        self.servers = servers
        self.settings = settings
        self.processes = processes
        self.note = note
        """Writes a line of the round's log: what, and details."""
        self.locks = {name: asyncio.Lock() for name in ("kafka", "redis", "postgres")}
        """Held by a fault that has this server in its hands."""
        self.both = asyncio.Lock()
        """Held by a fault that takes the locks of two processes."""
        self.set_back_ms = inf
        """When Redis first went back in time, however little."""

    def redis_goes_back(self) -> None:
        """A fault is about to have it forget what it has done last."""
        self.set_back_ms = min(self.set_back_ms, time.time() * 1000)

    def current_settings(self) -> Settings:
        """The settings of judge and feeder; Redis may have been replaced by its stand-in."""
        return self.settings.model_copy(update={"redis_url": self.servers.redis_url})

    def of(self, *kinds: str) -> list[Process]:
        """The home processes of these kinds."""
        return [self.processes[slot] for slot in HOME if slot.partition("-")[0] in kinds]


@asynccontextmanager
async def site(
    servers: Servers, folder: Path, name: str, note: Callable[..., None], bug: str | None
) -> AsyncIterator[Site]:
    """A site of its own; its topics, keys and database are gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    admin = await asyncpg.connect(servers.dsn)
    await admin.execute(f"create database {name}")
    dsn = servers.dsn.rpartition("/")[0] + f"/{name}"
    common: dict[str, Any] = {**SETTINGS, "TOPIC_PREFIX": f"{name}."}
    settings = load_settings(
        kafka_bootstrap=servers.bootstrap,
        redis_url=servers.redis_url,
        postgres_dsn=dsn,
        **{key.lower(): value for key, value in common.items()},
    )
    await migrate(dsn)
    await ensure_topics(settings)
    environment = {ENV_PREFIX + key: str(value) for key, value in common.items()}
    if bug:
        environment[BUG] = bug
    processes = {
        slot: Process(
            slot,
            folder,
            environment | servers.environment(slot, name),
            *(EXECUTOR if slot.startswith("executor") else ()),
        )
        for slot in SLOTS
    }
    try:
        for slot in HOME:
            processes[slot].begin()
        yield Site(servers, settings, processes, note)
    finally:
        await asyncio.gather(*(process.end() for process in processes.values()))
        await admin.close()
        await _remove(servers, settings, name)


async def ready(torn: Site) -> None:
    """Wait until every home process can be armed, so until all of its code is loaded."""
    for slot in HOME:
        if not await torn.processes[slot].listening(60):
            raise RuntimeError(f"{slot} does not start: see {torn.processes[slot].log}")


async def calm(torn: Site, rng: random.Random) -> tuple[Evidence, float]:
    """Mend everything, wait until all has come to its end (or long enough), and gather evidence.

    Returns it with the seconds that it took.
    """
    torn.servers.heal()
    for slot in HOME:
        torn.processes[slot].set_clock(0)
        torn.processes[slot].begin()
    began = time.monotonic()
    while True:
        if time.monotonic() - began > CALM_S or await _quiet(torn):
            found = await gather(torn.current_settings())
            if time.monotonic() - began > CALM_S or _whole(found):
                return found, time.monotonic() - began
        await asyncio.sleep(0.3)


async def _quiet(torn: Site) -> bool:
    """Whether the cheap signs say that nothing is under way."""
    settings = torn.current_settings()
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        open_rows = await connection.fetchval(
            "select count(*) from pod_activities where status <> all($1)", FINAL
        )
    finally:
        await connection.close()
    if open_rows:
        return False
    async with Redis.from_url(settings.redis_url) as redis:
        async for key in redis.scan_iter(f"{settings.topic_prefix}wheel:*", count=1000):
            if not key.endswith(b":meta"):
                return False
    return True


def _whole(found: Evidence) -> bool:
    """Whether the workers have applied and acked all that there is."""
    for (topic, partition), end in found.last.items():
        if topic in INPUTS:
            where = topic, partition
            if found.watermarks.get(where, -1) < end or found.acked.get(where, 0) < end + 1:
                return False
            shard = found.shards.get(partition)
            if shard is None or not any(
                name.endswith(topic) and int(at) >= end
                for name, at in shard.meta.items()
                if name.startswith("at:")
            ):
                return False
    return all(row["status"] in FINAL for row in found.rows)


async def _remove(servers: Servers, settings: Settings, name: str) -> None:
    connection = await asyncpg.connect(servers.dsn)
    try:
        await connection.execute(f"drop database if exists {name} with (force)")
    finally:
        await connection.close()
    async with Redis.from_url(servers.redis_url) as redis:
        await redis.flushall()
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        await admin.delete_topics(
            [topic for topic in await admin.list_topics() if topic.startswith(f"{name}.")]
        )
    finally:
        await admin.close()
