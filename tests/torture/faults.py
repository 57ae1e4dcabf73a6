"""What can go wrong at a site. Each fault does its harm, mends it again, and says what it did.

A fault takes the lock of what it has in its hands, so that two of them do not undo one another; all
else may overlap. It returns False where it found no occasion.
"""

import asyncio
import random
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from redis.exceptions import RedisError

from pod_automation.stack.errors import StackError
from pod_automation.stack.ports import HOST
from pod_automation.stack.running import RunningPart
from tests.torture import points
from tests.torture.evidence import Shard, wheels
from tests.torture.processes import Process
from tests.torture.site import SESSION_S, Site

Fault = Callable[[Site, random.Random], Awaitable[bool]]

POSTS = "post-detected"

ARMED_S = 6.0
"""How long a named point is waited for, and as long before that the start of its process."""

OVERLAP_S = 0.7
"""How long a former owner has, to commit what it had begun."""


# Processes


async def kill(site: Site, rng: random.Random) -> bool:
    """kill -9 at whatever moment."""
    process = rng.choice(site.of("worker", "dispatcher", "executor"))
    async with process.lock:
        site.note("kill", slot=process.slot)
        await process.kill(rng.choice((0.0, 0.0, 0.5, SESSION_S + 1)))
    return True


async def _kill_at(site: Site, rng: random.Random, kind: str, point: str) -> bool:
    """kill -9 at a named point."""
    process = rng.choice(site.of(kind))
    async with process.lock:
        if not await _armed(process, point, signal.SIGKILL):
            return False
        return await _dies(site, process, point)


async def _kill_in_takeover(site: Site, rng: random.Random, point: str) -> bool:
    """A dispatcher dies, and the one that takes its shards dies in the midst of that."""
    first, second = rng.sample(site.of("dispatcher"), 2)
    # `both`: who holds one lock and waits for another must be alone.
    async with site.both, first.lock, second.lock:
        if not await _armed(second, point, signal.SIGKILL):
            return False
        site.note("kill", slot=first.slot, because=f"{second.slot} shall take over")
        downed = asyncio.create_task(first.kill(SESSION_S + 2))
        died = await _dies(site, second, point)
        await downed
    return died


async def _kill_in_rebuild(site: Site, rng: random.Random, point: str) -> bool:
    """Redis loses everything, and who rebuilds a wheel dies in the midst of that."""
    process = rng.choice(site.of("dispatcher"))
    async with site.locks["redis"], process.lock:
        if not await _armed(process, point, signal.SIGKILL):
            return False
        site.note("flush", because=f"{process.slot} shall rebuild")
        await _flush(site)
        return await _dies(site, process, point)


async def _armed(process: Process, point: str, what: signal.Signals) -> bool:
    """Whether it runs, and will die or freeze at its next passing of `point`."""
    return await process.listening(ARMED_S) and process.arm(point, what)


async def _dies(site: Site, process: Process, point: str) -> bool:
    """Whether the armed process passes `point`, and so dies."""
    died = await process.dies_within(ARMED_S)
    site.note("kill at point", slot=process.slot, point=point, died=died)
    if not died:
        # Never to die of it later, in another fault's hands.
        process.arm("none", signal.SIGKILL)
    return died


async def zombie(site: Site, rng: random.Random) -> bool:
    """SIGSTOP for longer than the session, then SIGCONT: at whatever moment."""
    process = rng.choice(site.of("worker", "dispatcher", "executor"))
    async with process.lock:
        if not process.alive:
            return False
        site.note("stop", slot=process.slot)
        process.send(signal.SIGSTOP)
        await asyncio.sleep(SESSION_S + rng.uniform(0.7, 2.5))
        process.send(signal.SIGCONT)
        site.note("continue", slot=process.slot)
    return True


async def _freeze_at(site: Site, rng: random.Random, kind: str, point: str) -> bool:
    """A process freezes at a named point, others take over and go on, then it comes back."""
    process = rng.choice(site.of(kind))
    async with process.lock:
        if not await _frozen(site, process, point, ARMED_S):
            return False
        # Long enough for likes that it was about to add to be added, and fired, by others.
        await asyncio.sleep(SESSION_S + rng.uniform(1.5, 4.0))
        process.send(signal.SIGCONT)
        site.note("continue", slot=process.slot)
    return True


async def two_owners(site: Site, rng: random.Random) -> bool:
    """A dispatcher freezes in mid-transaction, and the one that takes its shards just when it has
    read how far that one came; then the first goes on, and may commit."""
    first, second = rng.sample(site.of("dispatcher"), 2)
    async with site.both, first.lock, second.lock:
        if not await second.listening(ARMED_S):
            return False
        if not await _frozen(site, first, "mid-transaction", ARMED_S):
            return False
        met = await _frozen(site, second, "cursor-read", SESSION_S + ARMED_S)
        first.send(signal.SIGCONT)
        await asyncio.sleep(OVERLAP_S)
        second.send(signal.SIGCONT)
        site.note("continue", slots=[first.slot, second.slot])
    return met


async def _frozen(site: Site, process: Process, point: str, within_s: float) -> bool:
    """Whether it passes `point` so soon, and so freezes."""
    if not await _armed(process, point, signal.SIGSTOP):
        return False
    until = time.monotonic() + within_s
    while not process.stopped() and time.monotonic() < until:
        await asyncio.sleep(0.02)
    if not process.stopped():
        # Never to freeze of it later, in another fault's hands.
        process.arm("none", signal.SIGKILL)
        return False
    site.note("frozen at point", slot=process.slot, point=point)
    return True


async def join(site: Site, rng: random.Random) -> bool:
    """One more of a kind comes, and goes in order: two rebalances."""
    process = site.processes[rng.choice(("worker-3", "dispatcher-3"))]
    async with process.lock:
        site.note("join", slot=process.slot)
        process.begin()
        await asyncio.sleep(rng.uniform(2.0, 4.0))
        await process.leave()
        site.note("left", slot=process.slot)
    return True


async def leave(site: Site, rng: random.Random) -> bool:
    """An orderly stop, and a start."""
    process = rng.choice(site.of("worker", "dispatcher", "executor"))
    async with process.lock:
        site.note("leave", slot=process.slot)
        await process.leave()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        process.begin()
    return True


async def wrong_clock(site: Site, rng: random.Random) -> bool:
    """A worker whose clock is five minutes off, for the rest of the round."""
    process = rng.choice(site.of("worker"))
    seconds = rng.choice((-300.0, 300.0))
    async with process.lock:
        site.note("clock", slot=process.slot, seconds=seconds)
        process.set_clock(seconds)
        await process.kill(0.0)
    return True


# The network


async def cut(site: Site, rng: random.Random) -> bool:
    """One process is cut off from one store: connections break, new ones are refused."""
    return await _wire(site, rng, "cut")


async def silent(site: Site, rng: random.Random) -> bool:
    """One process is cut off from one store, and hears nothing of it: packets are lost."""
    return await _wire(site, rng, "silent")


async def slow(site: Site, rng: random.Random) -> bool:
    """The way of one process to one store is slow."""
    return await _wire(site, rng, "slow")


async def _wire(site: Site, rng: random.Random, how: str) -> bool:
    slot = rng.choice(site.of("worker", "dispatcher", "executor")).slot
    stores = ["kafka"] if slot.startswith("executor") else ["kafka", "redis", "postgres"]
    store = rng.choice(stores)
    links = site.servers.links[slot][store]
    site.note(how, slot=slot, store=store)
    for link in links:
        if how == "cut":
            link.cut()
        elif how == "silent":
            link.silence()
        else:
            link.slow(rng.uniform(0.03, 0.2))
    await asyncio.sleep(rng.uniform(1.0, SESSION_S + 2.5))
    for link in links:
        link.heal()
    site.note("healed", slot=slot, store=store)
    return True


# Kafka


async def kafka_restart(site: Site, rng: random.Random) -> bool:
    """A broker stops in order, and starts again."""
    return await _broker(site, rng, rng.randrange(len(site.servers.brokers)), kill=False)


async def kafka_kill(site: Site, rng: random.Random) -> bool:
    """A broker is killed: the only one, or one of three."""
    return await _broker(site, rng, rng.randrange(len(site.servers.brokers)), kill=True)


async def kafka_coordinator(site: Site, rng: random.Random) -> bool:
    """The broker that coordinates a group is killed."""
    group = rng.choice((site.settings.worker_group, site.settings.dispatcher_group))
    admin = AIOKafkaAdminClient(bootstrap_servers=site.servers.bootstrap)
    try:
        await admin.start()
        node = await admin.find_coordinator(group)
    except (KafkaError, OSError):
        return False
    finally:
        await admin.close()
    return await _broker(site, rng, node - 1, kill=True)


async def _broker(site: Site, rng: random.Random, index: int, *, kill: bool) -> bool:
    async with site.locks["kafka"]:
        broker = site.servers.brokers[index]
        site.note("broker kill" if kill else "broker stop", node=index + 1)
        await (broker.kill() if kill else broker.stop())
        await asyncio.sleep(rng.uniform(0.0, 1.5))
        await broker.start()
        site.note("broker is back", node=index + 1)
        if len(site.servers.brokers) > 1:
            # Two of three must have what is confirmed: let it catch up before the next one goes.
            await asyncio.sleep(2.0)
    return True


# PostgreSQL


async def postgres_restart(site: Site, rng: random.Random) -> bool:
    """PostgreSQL stops in order, and starts again."""
    async with site.locks["postgres"]:
        site.note("postgres stop")
        await site.servers.postgres.stop()
        await asyncio.sleep(rng.uniform(0.0, 1.5))
        await site.servers.postgres.start()
        site.note("postgres is back")
    return True


async def postgres_kill(site: Site, rng: random.Random) -> bool:
    """PostgreSQL is killed, and recovers from its log."""
    async with site.locks["postgres"]:
        site.note("postgres kill")
        await site.servers.postgres.kill()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        await site.servers.postgres.start()
        site.note("postgres is back")
    return True


async def postgres_cut(site: Site, rng: random.Random) -> bool:
    """All connections to PostgreSQL are cut, several times."""
    async with site.locks["postgres"]:
        for _ in range(5):
            connection = await asyncpg.connect(site.servers.dsn)
            try:
                cut = await connection.fetchval(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where pid <> pg_backend_pid() and application_name = 'pod-automation'"
                )
            finally:
                await connection.close()
            site.note("postgres cut", connections=cut)
            await asyncio.sleep(rng.uniform(0.1, 0.4))
    return True


# Redis


async def redis_restart(site: Site, rng: random.Random) -> bool:
    """Redis stops in order, and starts from its append-only file."""
    async with site.locks["redis"]:
        site.note("redis stop")
        await site.servers.redis.stop()
        await asyncio.sleep(rng.uniform(0.0, 1.5))
        await _start(site, site.servers.redis)
    return True


async def redis_kill(site: Site, rng: random.Random) -> bool:
    """Redis is killed, and starts from its append-only file (everysec)."""
    async with site.locks["redis"]:
        # A slow disk holds up what it appends to its file, for two seconds at most.
        site.redis_goes_back()
        site.note("redis kill")
        await site.servers.redis.kill()
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        await _start(site, site.servers.redis)
    return True


async def redis_lost(site: Site, rng: random.Random) -> bool:
    """Redis is killed and had no persistence."""
    async with site.locks["redis"]:
        site.note("redis lost")
        await site.servers.redis.kill()
        site.servers.forget_redis(site.servers.redis)
        await asyncio.sleep(rng.uniform(0.0, 1.0))
        await _start(site, site.servers.redis)
    return True


async def redis_flush(site: Site, rng: random.Random) -> bool:
    """FLUSHALL."""
    async with site.locks["redis"]:
        site.note("flush")
        await _flush(site)
    return True


async def redis_snapshot(site: Site, rng: random.Random) -> bool:
    """Redis goes back to what it was a moment ago: claims, settles and adds since are lost."""
    async with site.locks["redis"]:
        part = site.servers.redis
        kept = part.data.with_name("snapshot")
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(part.data, kept)
        await asyncio.sleep(rng.uniform(0.1, 2.0))
        site.redis_goes_back()
        site.note("redis goes back")
        await part.kill()
        site.servers.forget_redis(part)
        shutil.copytree(kept, part.data, dirs_exist_ok=True)
        await _start(site, part)
    return True


async def redis_failover(site: Site, rng: random.Random) -> bool:
    """A replica that lags takes over."""
    async with site.locks["redis"]:
        servers = site.servers
        replica = servers.stand_in
        await replica.stop()
        servers.forget_redis(replica)
        await replica.start()
        async with servers.redis_client(replica) as client:
            await client.replicaof(HOST, servers.replication.port)
            async with asyncio.timeout(20):
                while (await client.info("replication"))["master_link_status"] != "up":
                    await asyncio.sleep(0.05)
            servers.replication.silence()
            lag_s = rng.uniform(0.1, 1.5)
            await asyncio.sleep(lag_s)
            site.redis_goes_back()
            site.note("redis fails over", lag_s=round(lag_s, 2))
            await servers.redis.kill()
            servers.replication.cut()
            await client.replicaof("NO", "ONE")
        servers.switch_over()
        servers.replication.heal()
    return True


async def redis_full(site: Site, rng: random.Random) -> bool:
    """Redis has no memory left and evicts nothing: what is due goes out, what is new waits."""
    async with site.locks["redis"], site.servers.redis_client() as client:
        used = (await client.info("memory"))["used_memory"]
        await client.config_set("maxmemory", max(1, used - (1 << 16)))
        before = await wheels(site.current_settings())
        site.note("redis full", used=used)
        await asyncio.sleep(rng.uniform(1.5, 3.5))
        after = await wheels(site.current_settings())
        await client.config_set("maxmemory", 0)
        site.note(
            "redis has room",
            batches_fired=_sum(after, "seq") - _sum(before, "seq"),
            posts_added=_sum(after, POSTS) - _sum(before, POSTS),
        )
    return True


async def _start(site: Site, part: RunningPart) -> None:
    """Start Redis again. One whose disk was full can leave a file that it does not read any more:
    then its operator begins with nothing, and so do we."""
    try:
        await part.start()
    except StackError:
        site.note("redis does not read its file, and begins with nothing")
        site.servers.forget_redis(part)
        await part.start()


def _sum(shards: Mapping[int, Shard], field: str) -> int:
    return sum(
        int(value)
        for shard in shards.values()
        for name, value in shard.meta.items()
        if name.endswith(field)
    )


async def redis_disk_full(site: Site, rng: random.Random) -> bool:
    """Redis cannot write its append-only file any more, and refuses writes."""
    if not site.servers.disk_is_limited:
        return False
    async with site.locks["redis"]:
        filler = site.servers.redis.data / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(512))
        site.note("disk full")
        await asyncio.sleep(rng.uniform(1.5, 3.5))
        filler.unlink()
        site.note("disk has room")
        # It tries to write again once a second, and takes writes after that.
        await asyncio.sleep(1.5)
    return True


async def redis_lost_while_behind(site: Site, rng: random.Random) -> bool:
    """PostgreSQL cannot be told of what fires, the dispatchers die, and Redis loses everything."""
    async with site.locks["redis"]:
        dispatchers = site.of("dispatcher")
        wires = [site.servers.links[each.slot]["postgres"][0] for each in dispatchers]
        site.note("postgres silent for dispatchers")
        for wire in wires:
            wire.silence()
        await asyncio.sleep(rng.uniform(1.0, 2.0))
        site.note("kill", slots=[each.slot for each in dispatchers])
        for process in dispatchers:
            process.send(signal.SIGKILL)
        await _flush(site)
        site.note("flush")
        for wire in wires:
            wire.cut()
            wire.heal()
    return True


async def _flush(site: Site) -> None:
    with suppress(RedisError, OSError):
        async with site.servers.redis_client() as client:
            await client.flushall()


def _at(
    points_of: Mapping[str, object], name: str, do: Callable[..., Awaitable[bool]], **kind: str
) -> dict[str, Fault]:
    return {f"{name}@{point}": partial(do, point=point, **kind) for point in points_of}


KILLS: dict[str, Fault] = {
    "kill": kill,
    **_at(points.WORKER, "kill", _kill_at, kind="worker"),
    **_at(points.FIRING, "kill", _kill_at, kind="dispatcher"),
    **_at(points.EXECUTOR, "kill", _kill_at, kind="executor"),
    **_at(points.TAKEOVER, "kill", _kill_in_takeover),
    **_at(points.REBUILD, "kill", _kill_in_rebuild),
}
ZOMBIES: dict[str, Fault] = {
    "zombie": zombie,
    "two-owners": two_owners,
    **_at(points.WORKER, "freeze", _freeze_at, kind="worker"),
    **_at(points.FIRING, "freeze", _freeze_at, kind="dispatcher"),
}
OTHERS: dict[str, Fault] = {
    "join": join,
    "leave": leave,
    "wrong-clock": wrong_clock,
    "cut": cut,
    "silent": silent,
    "slow": slow,
    "kafka-restart": kafka_restart,
    "kafka-kill": kafka_kill,
    "postgres-restart": postgres_restart,
    "postgres-kill": postgres_kill,
    "postgres-cut": postgres_cut,
    "redis-restart": redis_restart,
    "redis-kill": redis_kill,
    "redis-lost": redis_lost,
    "redis-flush": redis_flush,
    "redis-snapshot": redis_snapshot,
    "redis-failover": redis_failover,
    "redis-full": redis_full,
    "redis-disk-full": redis_disk_full,
    "redis-lost-while-behind": redis_lost_while_behind,
}
OF_SEVERAL_BROKERS: dict[str, Fault] = {"kafka-coordinator": kafka_coordinator}
ALL = KILLS | ZOMBIES | OTHERS | OF_SEVERAL_BROKERS
