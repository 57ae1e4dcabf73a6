"""The long-running processes, each wired in one place."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any
from uuid import uuid4

import structlog

from pod_automation.loop import run_to_the_end
from pod_automation.metrics import Applying, Differences, Firing, served
from pod_automation.reconciling import quick_look
from pod_automation.tracing import opened
from scheduler.adapters.kafka_acked import acked
from scheduler.adapters.kafka_shard_group import KafkaShardGroup
from scheduler.adapters.kafka_shard_log import Fired, KafkaShardLog
from scheduler.adapters.kafka_status_log import KafkaStatusLog
from scheduler.adapters.postgres_lease import PostgresLease
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.adapters.postgres_retention import PostgresRetention
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.chores import Chore, Chores
from scheduler.dispatch import ShardDispatcher
from scheduler.dispatcher import Dispatcher
from scheduler.errors import EngineError
from scheduler.project import LINGER_S, Projection
from scheduler.rebuild import Rebuild
from scheduler.retention import Acked, Limits, Retention, settled
from scheduler.settings import Settings
from scheduler.tasks import ended
from streams.quiet import quiet_libraries
from streams.watchdog import Watchdog

log = structlog.get_logger(__name__)

DRAIN_LOOK_S = 1.0
"""How soon a dispatcher hears that it is to have no shards."""


def acked_of(settings: Settings) -> Acked:
    """Asks how far the workers have acked the topics that end activities."""
    topics = (settings.topics.engagement_executed, settings.topics.pod_commands)
    return partial(acked, settings.kafka, settings.worker_group, topics)


def token() -> str:
    """A unique string, for epochs, nonces and generations."""
    return uuid4().hex


@asynccontextmanager
async def dispatcher(
    settings: Settings, firing: Firing | None = None, fired: Fired | None = None
) -> AsyncIterator[Dispatcher]:
    """The dispatcher over the stores that `settings` names, observed by `firing`; for `fired` see
    `KafkaShardLog`."""
    topics = settings.topics
    async with AsyncExitStack() as stack:
        wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
        stack.push_async_callback(wheel.close)
        record = await PostgresRecord.connect(settings.postgres_dsn)
        stack.push_async_callback(record.close)
        statuses = KafkaStatusLog(settings.kafka, topics.engagement_status)
        group = KafkaShardGroup(
            settings.kafka,
            topics.wheel_cursor,
            settings.dispatcher_group,
            settings.session_timeout_ms,
            settings.instance_of("dispatcher"),
        )
        stack.push_async_callback(group.close)
        rebuild = Rebuild(
            wheel,
            record,
            input_topics=topics.inputs,
            commands=topics.pod_commands,
            token=token,
            await_ms=settings.result_timeout_ms,
        )

        if firing is not None:
            looking = asyncio.create_task(firing.look(wheel), name="metrics")
            stack.push_async_callback(ended, looking)

        encoding = asyncio.Lock()

        def open_shard(shard: int) -> ShardDispatcher:
            return ShardDispatcher(
                shard,
                wheel,
                KafkaShardLog(
                    settings.kafka,
                    topics,
                    shard,
                    f"{settings.topic_prefix}dispatcher-{shard}",
                    settings.result_timeout_ms,
                    encoding,
                    fired,
                ),
                Projection(shard, topics.engagement_status, record, statuses, linger_s=LINGER_S),
                rebuild,
                token=token,
                limit=settings.dispatch_batch,
                await_ms=settings.result_timeout_ms,
                overdue=settings.overdue,
            )

        yield Dispatcher(
            group,
            wheel,
            open_shard,
            partitions=settings.partitions,
            fenced_wait_s=settings.session_timeout_ms / 1000,
            observer=firing,
        )


async def run_dispatcher(settings: Settings, stop: asyncio.Event) -> None:
    """Fire timers until `stop` is set; stores may be away at the start as at any other time."""
    firing = Firing()
    with served(settings, firing):
        await _dispatch(settings, stop, firing)


async def _dispatch(settings: Settings, stop: asyncio.Event, firing: Firing) -> None:
    # Its own bounds add up to less; this is for what hangs all the same, and for a blocked loop.
    watchdog = Watchdog(settings.stall_timeout_ms / 1000, settings.shutdown_grace_ms / 1000)
    watchdog.start(asyncio.get_running_loop())
    stopping = asyncio.create_task(stop.wait(), name="grace")
    stopping.add_done_callback(lambda _: watchdog.stop_within_grace())
    try:
        with quiet_libraries():
            observer = firing if settings.metrics_port else None
            async with opened(settings, "dispatcher") as tracing, _drain(settings) as drain:
                fired = None if tracing is None else tracing.fired
                while not stop.is_set():
                    async with drain.ending(stop) as ending:
                        if not ending.is_set():
                            async with dispatcher(settings, observer, fired) as running:
                                await running.run(ending)
                    await drain.over(stop)
    finally:
        stopping.cancel()
        watchdog.stop()


@asynccontextmanager
async def _drain(settings: Settings) -> AsyncIterator["_Drain"]:
    record = await PostgresRecord.connect(settings.postgres_dsn, max_connections=1)
    try:
        yield _Drain(record, settings.instance_id)
    finally:
        await record.close()


class _Drain:
    """Whether this dispatcher is to have no shards, by the record. One without an instance id
    cannot be meant."""

    def __init__(self, record: PostgresRecord, instance_id: str) -> None:
        self._record = record
        self._instance_id = instance_id
        self._is_on = False

    @asynccontextmanager
    async def ending(self, stop: asyncio.Event) -> AsyncIterator[asyncio.Event]:
        """An event that is set with `stop`, or as soon as a drain is on."""
        if not self._instance_id:
            yield stop
            return
        ending = asyncio.Event()
        if await self._on():
            ending.set()
        looking = asyncio.create_task(self._look(stop, ending), name="drain")
        try:
            yield ending
        finally:
            await ended(looking)

    async def over(self, stop: asyncio.Event) -> None:
        """Wait until no drain is on any more, or for `stop`."""
        while not stop.is_set() and self._is_on and await self._on():
            await _passed(stop)

    async def _look(self, stop: asyncio.Event, ending: asyncio.Event) -> None:
        while not stop.is_set() and not await self._on():
            await _passed(stop)
        if not stop.is_set():
            log.info("drained: its shards are given away", instance=self._instance_id)
        ending.set()

    async def _on(self) -> bool:
        # A record that is away says what it has said last.
        try:
            self._is_on = await self._record.drained(self._instance_id)
        except EngineError as error:
            log.debug("drains cannot be seen", reason=str(error))
        except Exception:
            # Whatever it is: without this look no drain would be seen any more.
            log.exception("drains cannot be seen")
        return self._is_on


async def _passed(stop: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_LOOK_S):
            await stop.wait()


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Apply inputs until `stop` is set; stores may be away at the start as at any other time."""
    applying, differences = Applying(settings.topics.inputs), _differences(settings)
    with served(settings, applying, differences):
        await _apply(settings, stop, applying, differences)


def _differences(settings: Settings) -> Differences:
    return Differences(settings.reconcile_interval_ms / 1000)


async def _apply(
    settings: Settings, stop: asyncio.Event, applying: Applying, differences: Differences
) -> None:
    # Here, so that a process that only fires timers carries no Faust.
    from streams.worker import run_worker as run

    async with opened(settings, "worker") as tracing, _chores(settings, differences) as chores:
        beside = asyncio.create_task(chores.run(stop), name="chores")
        try:
            # Nothing is counted where nobody can look.
            counting = applying.counting if settings.metrics_port else None
            watched = None if tracing is None else tracing.watching(settings.topics)
            await run(settings, stop, counting=counting, watched=watched)
        finally:
            await ended(beside)


@asynccontextmanager
async def _chores(settings: Settings, differences: Differences) -> AsyncIterator[Chores]:
    """What one of all workers does now and then. Connects only when it is time to."""
    chores = []
    async with AsyncExitStack() as stack:
        if settings.retention_interval_ms:
            archive = await PostgresRetention.connect(settings.postgres_dsn)
            stack.push_async_callback(archive.close)
            wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
            stack.push_async_callback(wheel.close)
            retention = Retention(
                archive, Limits.of(settings), lambda: settled(wheel, acked_of(settings), settings)
            )

            async def prune() -> None:
                pruned = await retention.run_once()
                if pruned.total_removed:
                    log.info("pruned", pods=pruned.pods, removed=dict(pruned.removed))

            chores.append(Chore("retention", settings.retention_interval_ms / 1000, prune))
        if settings.sweep_interval_ms:

            async def sweep() -> None:
                from pod_automation.client.sweep import sweep

                await sweep(settings)

            chores.append(Chore("sweep", settings.sweep_interval_ms / 1000, sweep))
        if settings.reconcile_interval_ms:
            interval_s = settings.reconcile_interval_ms / 1000
            looking = await stack.enter_async_context(quick_look(settings))

            async def look() -> None:
                differences.tell(await looking.run_once())

            chores.append(Chore("reconcile", interval_s, look))
        lease = PostgresLease(settings.postgres_dsn, f"{settings.topic_prefix}chores")
        yield Chores(lease, chores)


async def run_both(settings: Settings, stop: asyncio.Event) -> None:
    """Worker and dispatcher in one event loop, until `stop` is set. A bug in one ends both."""
    applying, firing = Applying(settings.topics.inputs), Firing()
    differences = _differences(settings)
    with served(settings, applying, differences, firing):
        tasks = [
            asyncio.create_task(_apply(settings, stop, applying, differences), name="worker"),
            asyncio.create_task(_dispatch(settings, stop, firing), name="dispatcher"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await ended(*tasks)


def serve(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run `main` until it ends; SIGINT and SIGTERM set the event that it is given."""

    async def guarded() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, stop.set)
        # What exists by now lives as long as the process: no need to look at it ever again.
        gc.freeze()
        await main(stop)

    run_to_the_end(guarded())
