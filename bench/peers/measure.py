"""The same work for every peer, measured from outside: figures like those of the engine."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from redis.asyncio import Redis

from bench.harness import SERVERS, Bench
from bench.lateness import RATES, SHARES, quantile
from bench.load import far_away
from bench.memory import on_old_redis, used_memory
from bench.meter import memory_of, seconds_of
from bench.peers.catalogue import MILLION, PEERS, Peer, Setup
from bench.peers.install import NotInstalledError, installed
from bench.peers.protocol import Driver, DriverError, Fired, driver
from bench.results import (
    FIRE,
    IDLE,
    IN_POSTGRES,
    MIB,
    OLD_REDIS,
    RESIDENT,
    SCHEDULE,
    Figure,
    lateness_at,
    size_at,
)

DATABASE = "bench_peer"

COUNT, FEW = 100_000, 10_000
"""Timers of one repeat, and of one of a quick run."""

SCHEDULE_S = 10
"""A peer that is slower than that at scheduling them gets fewer."""

FIRE_S = 20
"""A setup that is slower than that at firing them fires fewer."""

MANY_A_SECOND = 10_000
"""A peer that schedules so many is given a million to wait beside the others."""

LEAD_S = 3.0
SETTLED_S = 3.0
PATIENCE_S = 300.0


async def run(bench: Bench) -> Sequence[Figure]:
    """Every peer that can be had here, in both of its configurations."""
    figures: list[Figure] = []
    if not bench.pids:
        bench.say("peers are left out: they want servers of their own, to be emptied")
        return figures
    for peer in PEERS:
        bench.say(f"{peer.title} {peer.version}: is it here?")
        try:
            command, folder = await installed(peer)
        except NotInstalledError as error:
            bench.say(f"{peer.title} is left out: {error}")
            continue
        for setup in peer.setups:
            trial = _Trial(bench, peer, setup, command, folder)
            try:
                figures += await trial.figures()
                figures += await trial.sizes_on_old_redis()
            except (DriverError, TimeoutError) as error:
                bench.say(f"{peer.title}, {setup.name}, is left out from here on: {error!r}")
    return figures


@dataclass(frozen=True, slots=True)
class _Trial:
    """One configuration of one peer."""

    bench: Bench
    peer: Peer
    setup: Setup
    command: Sequence[str]
    folder: Path
    server: str = ""
    """Another one than the rest is measured on."""

    async def figures(self) -> list[Figure]:
        count = self._count
        scheduling = await self._scheduling(count)
        fired = count if self.setup.fires is None else min(count, self.setup.fires * FIRE_S)
        return [
            *scheduling,
            await self._firing(fired, fired / scheduling[0].median),
            *await self._waiting(count),
        ]

    async def sizes_on_old_redis(self) -> list[Figure]:
        """What a timer of a peer whose store is Redis takes there."""
        if not self._redis:
            return []
        async with on_old_redis(self.bench) as old:
            if old is None:
                return []
            return await replace(self, bench=old, server=OLD_REDIS)._sizes()

    async def _sizes(self) -> list[Figure]:
        _, size = await self._scheduling(self._count)
        if not self._many:
            return [size]
        async with self._driver() as made:
            _, most = await self._filled(made, MILLION)
        return [size, self._size(MILLION, [most], MILLION)]

    async def _scheduling(self, count: int) -> list[Figure]:
        rates: list[float] = []
        sizes: list[float] = []

        async def once() -> None:
            async with self._driver() as made, self._no_rewrite():
                rate, size = await self._filled(made, count)
            rates.append(rate)
            sizes.append(size)

        await self._repeat("schedule", once)
        return [
            self._figure(SCHEDULE, "timers/s", rates, "more", timers=count),
            # Of a slow one with fewer: it takes the same for each.
            self._size(COUNT, sizes, count),
        ]

    async def _filled(self, made: Driver, count: int) -> tuple[float, float]:
        """Timers a second, and bytes of each."""
        before = await self._bytes()
        seconds = await made.schedule(count, *far_away())
        return count / seconds, (await self._bytes() - before) / count

    def _size(self, at: int, values: Sequence[float], count: int) -> Figure:
        if self._redis:
            what = quantity = size_at(at, self.server or "Redis")
        else:
            # A row takes what it takes, however many: the less of the two counts.
            what, quantity = f"{IN_POSTGRES} at {at:,}", IN_POSTGRES
        return self._figure(what, "bytes", values, "less", quantity, timers=count)

    async def _firing(self, count: int, seconds: float) -> Figure:
        """`seconds` is what scheduling them takes."""
        found: list[Fired] = []

        async def once() -> None:
            async with self._driver() as made, self._no_rewrite():
                # All due at one moment, when they should all be there; what is late by then is
                # scheduled as due, which does not slow anybody down.
                due_ms = _in(1.5 * seconds + 1)
                await made.schedule(count, due_ms, due_ms)
                await self._vacuumed()
                await asyncio.sleep(max(0.0, due_ms / 1000 - time.time()))
                await made.work()
                found.append(await self._fired(made, count))

        await self._repeat("fire", once)
        rates = [each.a_second for each in found]
        return self._figure(FIRE, "timers/s", rates, "more", timers=count)

    async def _waiting(self, count: int) -> list[Figure]:
        """Idle, and punctual, beside timers that are hours away, and that another process has made:
        what is left of a million in the memory of the one that made them is no worker's."""
        pending = MILLION if self._many else count
        async with self._driver() as made:
            self.bench.say(f"{self.peer.title}, {self.setup.name}: filling with {pending:,}")
            _, size = await self._filled(made, pending)
        async with self._driver(emptied=False) as made:
            await made.work()
            await asyncio.sleep(SETTLED_S)
            idle = await self._idle(made, pending)
            late = [each for rate in RATES for each in await self._punctuality(made, rate, pending)]
        sizes = [self._size(MILLION, [size], pending)] if self._many else []
        return [*sizes, *idle, *late]

    async def _idle(self, made: Driver, pending: int) -> list[Figure]:
        seconds = self.bench.of(10, 5)
        pids = [made.pid, self.bench.pids["Valkey" if self._redis else "PostgreSQL"]]
        shares: list[float] = []

        async def once() -> None:
            used, began = sum(map(seconds_of, pids)), time.monotonic()
            await asyncio.sleep(seconds)
            spent = sum(map(seconds_of, pids)) - used
            shares.append(100 * spent / (time.monotonic() - began))

        await self._repeat("idle", once)
        memory = memory_of(made.pid) / MIB
        return [
            self._figure(IDLE, "% of a core", shares, "less", pending=pending),
            self._figure(RESIDENT, "MiB", [memory], "less", pending=pending),
        ]

    async def _punctuality(self, made: Driver, rate: int, pending: int) -> list[Figure]:
        seconds = self.bench.of(10, 4)
        count = rate * seconds
        found: list[list[int]] = []

        async def once() -> None:
            from_ms = _in(2 * count / self.peer.a_second + LEAD_S)
            await made.schedule(count, from_ms, from_ms + 1000 * seconds)
            found.append(sorted((await self._fired(made, count)).lateness_ms))

        if rate > self.peer.a_second:
            return []
        await self._repeat(f"lateness at {rate:,}/s", once)
        return [
            self._figure(
                lateness_at(rate, name),
                "ms",
                [quantile(each, share) for each in found],
                "less",
                pending=pending,
                **{"earliest, ms": [each[0] for each in found]},
            )
            for name, share in SHARES.items()
        ]

    async def _fired(self, made: Driver, count: int) -> Fired:
        async with asyncio.timeout(PATIENCE_S):
            return await made.fired(count)

    async def _repeat(self, what: str, once: Callable[[], Awaitable[None]]) -> None:
        where = f" on {self.server}" if self.server else ""
        await self.bench.each_repeat(f"{self.peer.title}, {self.setup.name}: {what}{where}", once)

    def _figure(
        self,
        what: str,
        unit: str,
        values: Sequence[float],
        better: str,
        quantity: str = "",
        /,
        **notes: object,
    ) -> Figure:
        return Figure(
            name=f"{self.peer.title} {self.peer.version}, {self.setup.name}: {what}",
            quantity=quantity or what,
            who=f"{self.peer.title}, {self.setup.name}",
            unit=unit,
            values=values,
            better="less" if better == "less" else "more",
            notes={"config": dict(self.setup.config), **notes},
        )

    @property
    def _count(self) -> int:
        most = int(self.peer.a_second * self.bench.of(SCHEDULE_S, 2))
        return min(self.bench.of(COUNT, FEW), most)

    @property
    def _many(self) -> bool:
        return self.peer.a_second >= MANY_A_SECOND and not self.bench.quick

    @property
    def _redis(self) -> bool:
        return self.peer.store == "Redis"

    @asynccontextmanager
    async def _driver(self, *, emptied: bool = True) -> AsyncIterator[Driver]:
        """One on an empty store, or on what the one before has left there."""
        if emptied:
            await self._empty()
        url = self._url
        config = {**self.setup.config, "url": url, "folder": str(self.bench.folder)}
        (self.bench.folder / "starts").unlink(missing_ok=True)
        log = self.bench.folder / f"{self.peer.folder}.log"
        async with driver(self.command, self.folder, config, log) as made:
            yield made

    def _no_rewrite(self) -> AbstractAsyncContextManager[None]:
        """As our wheel is measured: once emptied, a store would else rewrite its file as soon as
        that has 64 MB, which is in the midst of a repeat."""
        return self.bench.no_rewrite() if self._redis else nullcontext()

    @property
    def _url(self) -> str:
        if self._redis:
            return self.bench.servers[SERVERS[1]]
        dsn = urlsplit(self.bench.servers[SERVERS[2]])
        return urlunsplit(dsn._replace(path=f"/{DATABASE}"))

    async def _empty(self) -> None:
        if self._redis:
            async with Redis.from_url(self._url) as redis:
                await redis.flushall()
            return
        connection = await asyncpg.connect(self.bench.servers[SERVERS[2]])
        try:
            await connection.execute(f"drop database if exists {DATABASE} with (force)")
            await connection.execute(f"create database {DATABASE}")
        finally:
            await connection.close()

    async def _vacuumed(self) -> None:
        """As our rows are before they fire, and as autovacuum has long done it elsewhere."""
        if self._redis:
            return
        connection = await asyncpg.connect(self._url)
        try:
            await connection.execute("vacuum (analyze) river_job", timeout=PATIENCE_S)
        finally:
            await connection.close()

    async def _bytes(self) -> int:
        if self._redis:
            async with Redis.from_url(self._url) as redis:
                return await used_memory(redis)
        connection = await asyncpg.connect(self._url)
        try:
            size = await connection.fetchval("select pg_total_relation_size('river_job')")
            return int(size)
        finally:
            await connection.close()


def _in(seconds: float) -> int:
    return time.time_ns() // 1_000_000 + int(1000 * seconds)
