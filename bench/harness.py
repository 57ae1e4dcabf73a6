"""What every benchmark gets: servers, sites on them, and how much to do."""

import asyncio
import logging
import os
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import psutil  # type: ignore[import-untyped]
from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.meter import Meter
from bench.results import Figure
from bench.site import Process, Site, site
from pod_automation.stack import EmbeddedStack
from scheduler.errors import StoreUnavailableError
from scheduler.settings import ENV_PREFIX
from scheduler.tasks import ended

SERVERS = tuple(ENV_PREFIX + name for name in ("KAFKA_BOOTSTRAP", "REDIS_URL", "POSTGRES_DSN"))

GROWN = "auto-aof-rewrite-percentage"
"""By so much the append-only file grows until it is rewritten; 0 for never."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Bench:
    """One run: where, and how much."""

    servers: Mapping[str, str]
    pids: Mapping[str, int]
    folder: Path
    quick: bool
    repeats: int
    say: Callable[[str], None]

    def of(self, full: _T, quick: _T) -> _T:
        """How much to do."""
        return quick if self.quick else full

    def site(self) -> AbstractAsyncContextManager[Site]:
        """A new engine, removed afterwards."""
        return site(self.servers, self.folder)

    def meter(self, process: Process | None = None) -> Meter:
        """A meter of the servers, as far as they are ours, and of `process`."""
        return Meter({**self.pids, **({process.command: process.pid} if process else {})})

    @asynccontextmanager
    async def no_rewrite(self) -> AsyncIterator[None]:
        """The append-only file of our own server is rewritten before, and not meanwhile: a rewrite
        falls due by what was written before, and takes half of the machine while it lasts."""
        if not self.pids:
            yield
            return
        async with Redis.from_url(self.servers[SERVERS[1]]) as redis:
            await _rewritten(redis)
            await redis.bgrewriteaof()
            await _rewritten(redis)
            before = await redis.config_get(GROWN)
            await redis.config_set(GROWN, 0)
            try:
                yield
            finally:
                await redis.config_set(GROWN, str(before[GROWN]))

    async def each_repeat(self, what: str, once: Callable[[], Awaitable[_T]]) -> list[_T]:
        """What `once` gives, a few times."""
        results: list[_T] = []
        for number in range(self.repeats):
            load = os.getloadavg()[0]
            self.say(f"{what}, {number + 1} of {self.repeats} (load average {load:.1f})")
            results.append(await once())
        return results

    async def versions(self) -> dict[str, str]:
        """Of the servers, as they tell it. Raises `StoreUnavailableError`."""
        try:
            connection = await asyncpg.connect(self.servers[SERVERS[2]])
        except (OSError, asyncpg.PostgresError) as error:
            raise StoreUnavailableError("PostgreSQL", str(error)) from error
        try:
            postgres = str(await connection.fetchval("show server_version"))
        finally:
            await connection.close()
        try:
            async with Redis.from_url(self.servers[SERVERS[1]]) as redis:
                title, redis_version = server_of(await redis.info("server"))
        except RedisError as error:
            raise StoreUnavailableError("Redis", str(error)) from error
        found = {"PostgreSQL": postgres.split()[0], title: redis_version}
        if kafka := self.pids.get("Kafka"):
            # A broker does not tell; its class path does.
            jar = re.search(
                r"kafka_2\.\d+-([\d.]+)\.jar", " ".join(psutil.Process(kafka).cmdline())
            )
            found["Kafka"] = jar[1] if jar else "unknown"
        return found


Benchmark = Callable[[Bench], Awaitable[Sequence[Figure]]]


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Endless work, done while something is measured. Raises what it was ended by before, if it
    was: then nothing was measured."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        early = task.done()
        await ended(task)
    if early:
        task.result()


async def _rewritten(redis: Redis) -> None:
    states = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    while any(map((await redis.info("persistence")).get, states)):  # noqa: ASYNC110
        await asyncio.sleep(0.1)


def server_of(info: Mapping[str, object]) -> tuple[str, str]:
    """Name and version, out of Redis's or Valkey's INFO."""
    if "valkey_version" in info:
        return "Valkey", str(info["valkey_version"])
    return "Redis", str(info["redis_version"])


@asynccontextmanager
async def prepared(quick: bool, say: Callable[[str], None]) -> AsyncIterator[Bench]:
    """A run on the servers that POD_AUTOMATION_* name, or else on a stack of our own."""
    # New topics without a leader yet, told of partition by partition.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    repeats = 3
    with tempfile.TemporaryDirectory(prefix="pod-automation-bench-") as name:
        folder = Path(name)
        named = {each: os.environ[each] for each in SERVERS if os.environ.get(each)}
        if named:
            if missing := set(SERVERS) - named.keys():
                raise SystemExit(f"name all three servers or none: {', '.join(missing)} is missing")
            yield Bench(named, {}, folder, quick, repeats, say)
            return
        async with EmbeddedStack(folder / "stack", lasting=not quick, on_progress=say) as stack:
            pids = {part.title: part.pid for part in stack.parts.values() if part.pid is not None}
            yield Bench(stack.environment, pids, folder, quick, repeats, say)
