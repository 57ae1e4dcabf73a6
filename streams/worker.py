"""The worker process, wired in one place: Faust in front, the stores behind, pumps between."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from scheduler.adapters.kafka_outbox import KafkaOutbox
from scheduler.adapters.kafka_records import missing_codecs, read_foreign_headers
from scheduler.adapters.kafka_topics import check_topics
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.apply import PostDetectedApplier
from scheduler.errors import EngineError, PermanentError, TransientError
from scheduler.migrations import check_schema
from scheduler.patience import Patience
from scheduler.ports import Outbox, Record, SourceRecord, Wheel
from scheduler.settings import Settings
from streams.app import Token, build_app, check_faust, press
from streams.guard import GuardedApplier
from streams.intake import Intake
from streams.pump import Pump, PumpLimits
from streams.quiet import quiet_libraries
from streams.source_log import SourceLog
from streams.stall import Progress, StallDetector
from streams.watchdog import EXIT_CRASHED, EXIT_STALLED, Watchdog, end_process

LOOKS_PER_STALL = 6
STOP_S = 0.6
"""Share of the grace that the pumps may take for the batch in hand; the rest is for Faust."""

log = structlog.get_logger(__name__)


class WorkerCrashedError(EngineError):
    """Faust has given up; start the worker again. Nothing is lost."""


class Worker:
    """Applies `post-detected`, for the partitions that Kafka assigns to this process.

    What is applied goes to `record`, `wheel` and `outbox`, exactly once and in this order; see
    `scheduler.apply`. A bug in applying ends the process at once, through `end`: an event that
    nobody has applied must not be acked by whatever would still run.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        record: Record,
        wheel: Wheel,
        outbox: Outbox,
        source: SourceLog,
        end: Callable[[int, str, BaseException | None], None] = end_process,
    ) -> None:
        self._settings = settings
        self._record = record
        self._wheel = wheel
        self._outbox = outbox
        self._source = source
        self._end = end
        self._topic = settings.topics.post_detected
        self._limits = PumpLimits(settings.ingest_batch_events, settings.ingest_linger_ms / 1000)
        self._intake: Intake[Token] = Intake(self._open_pump, self._died)
        self._next_offsets: dict[int, int] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then end in order: what is in hand is applied and acked.

        Raises `WorkerCrashedError` when Faust gives up. Ends the process by itself after
        `settings.shutdown_grace_ms` of stopping, after `settings.stall_timeout_ms` without
        progress, and when applying fails for other reasons than a store that is away.
        """
        stall_s = self._settings.stall_timeout_ms / 1000
        watchdog = Watchdog(stall_s, self._settings.shutdown_grace_ms / 1000)
        watchdog.start(asyncio.get_running_loop())
        try:
            await self._run_app(stop, watchdog)
        finally:
            watchdog.stop()

    async def _run_app(self, stop: asyncio.Event, watchdog: Watchdog) -> None:
        self._app = app = build_app(
            self._settings,
            deliver=self._deliver,
            on_assigned=self._assigned,
            on_revoked=self._intake.end,
            on_death=self._died,
        )
        tasks = [
            asyncio.create_task(app.start(), name="faust"),
            asyncio.create_task(app._crashed.wait(), name="faust-crash"),
            asyncio.create_task(self._watch_lag(), name="lag"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        starting, crashed, _, stopping = tasks
        try:
            await asyncio.wait([starting, stopping, crashed], return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and (error := starting.exception()) is not None:
                raise WorkerCrashedError(f"Faust cannot start: {error!r}") from error
            await asyncio.wait([stopping, crashed], return_when=asyncio.FIRST_COMPLETED)
            if not stop.is_set():
                raise WorkerCrashedError(f"Faust has given up: {app.crash_reason!r}")
        finally:
            watchdog.stop_within_grace()
            for task in tasks[2:]:
                task.cancel()
            await self._stop_app(starting)

    async def _stop_app(self, starting: "asyncio.Task[object]") -> None:
        log.info("worker stops")
        try:
            async with asyncio.timeout(STOP_S * self._settings.shutdown_grace_ms / 1000):
                await self._intake.finish()
        except TimeoutError:
            log.warning("a batch in hand is left unacked: it will come again")
        await self._intake.end()
        starting.cancel()
        await self._app.stop()
        log.info("worker has stopped")

    async def _deliver(self, record: SourceRecord, generation: int, token: Token) -> bool:
        return await self._intake.put(record.partition, generation, record, token)

    async def _assigned(self, partitions: frozenset[int], generation: int) -> None:
        log.info("partitions assigned", partitions=sorted(partitions), generation=generation)
        self._next_offsets.clear()
        await self._intake.begin(partitions, generation)

    def _open_pump(self, partition: int) -> Pump[Token]:
        settings = self._settings
        applier = PostDetectedApplier(
            partition,
            self._topic,
            policy=settings.policy,
            record=self._record,
            wheel=self._wheel,
            outbox=self._outbox,
        )
        return Pump(
            GuardedApplier(applier, partition, self._topic, self._record, self._source),
            Token.ack,
            self._limits,
            lambda on: press(self._app, self._topic, partition, on),
        )

    def _died(self, error: BaseException) -> None:
        if isinstance(error, PermanentError):
            # It says what to do, which a traceback would hide.
            self._end(EXIT_CRASHED, f"the worker ends, unacked: {error}", None)
        self._end(EXIT_CRASHED, "the worker ends, unacked: applying has failed", error)

    async def _watch_lag(self) -> None:
        """Ends the process when records wait and Faust delivers none."""
        stall_s = self._settings.stall_timeout_ms / 1000
        detector = StallDetector(stall_s)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(stall_s / LOOKS_PER_STALL)
            try:
                progress = await self._progress()
                for partition in detector.stalled(loop.time(), progress):
                    seen = progress[partition]
                    if await self._source.has_record(partition, seen.next_offset, seen.end):
                        self._end(EXIT_STALLED, f"partition {partition} has stalled: {seen}", None)
                    detector.acquit(partition)
            except TransientError as error:
                log.debug("lag cannot be seen", reason=str(error))

    async def _progress(self) -> dict[int, Progress]:
        pumps = dict(self._intake.pumps)
        if not pumps:
            return {}
        ends = await self._source.ends(pumps)
        progress: dict[int, Progress] = {}
        for partition, pump in pumps.items():
            next_offset = pump.taken + 1
            if pump.taken < 0:
                if partition not in self._next_offsets:
                    self._next_offsets[partition] = await self._source.next_of_group(partition)
                next_offset = self._next_offsets[partition]
            progress[partition] = Progress(ends[partition], next_offset, pump.busy)
        return progress


@asynccontextmanager
async def worker(settings: Settings) -> AsyncIterator[Worker]:
    """A worker over the stores that `settings` names, once all of them answer.

    Raises `PermanentError` when topics or tables are not what they must be; the message says what
    to do. Stores that are away are waited for.
    """
    check_faust()
    read_foreign_headers()
    if missing := missing_codecs():
        log.warning(
            "records compressed with these cannot be read, and would stop their partition:"
            " install cramjam",
            codecs=missing,
        )
    async with AsyncExitStack() as stack:
        patience = Patience("worker")
        await patience.until_done(lambda: check_topics(settings))
        await patience.until_done(lambda: check_schema(settings.postgres_dsn))
        record = await patience.until_done(lambda: PostgresRecord.connect(settings.postgres_dsn))
        stack.push_async_callback(record.close)
        wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
        stack.push_async_callback(wheel.close)
        await patience.until_done(wheel.ping)
        outbox = KafkaOutbox(settings.kafka_bootstrap, settings.topics)
        stack.push_async_callback(outbox.close)
        source = SourceLog(
            settings.kafka_bootstrap, settings.topics.post_detected, settings.worker_group
        )
        stack.push_async_callback(source.close)
        yield Worker(settings, record=record, wheel=wheel, outbox=outbox, source=source)


async def run_worker(settings: Settings, stop: asyncio.Event) -> None:
    """Apply events until `stop` is set; stores may be away at the start as at any other time."""
    async with AsyncExitStack() as stack:
        stack.enter_context(quiet_libraries())
        boot = asyncio.create_task(stack.enter_async_context(worker(settings)), name="boot")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait([boot, stopping], return_when=asyncio.FIRST_COMPLETED)
            if boot.done():
                await boot.result().run(stop)
        finally:
            for task in (boot, stopping):
                task.cancel()
            await asyncio.gather(boot, stopping, return_exceptions=True)
