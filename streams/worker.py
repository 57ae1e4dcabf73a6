"""The worker process, wired in one place: Faust in front, the stores behind, pumps between."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from scheduler.adapters.kafka_outbox import KafkaOutbox
from scheduler.adapters.kafka_records import missing_codecs, read_foreign_headers
from scheduler.adapters.kafka_topics import check_topics
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.apply import PostDetectedApplier
from scheduler.commands import CommandApplier
from scheduler.errors import EngineError, InstanceReplacedError, PermanentError, TransientError
from scheduler.migrations import check_schema
from scheduler.patience import Patience
from scheduler.ports import Outbox, Record, SourceRecord, Wheel
from scheduler.results import ResultApplier
from scheduler.settings import Settings
from scheduler.turns import Turns
from streams.app import (
    Token,
    build_app,
    check_alive,
    check_faust,
    check_replaced,
    generation,
    leave,
    press,
)
from streams.commands_first import CommandsFirst
from streams.lane import Lane
from streams.pump import Applier, PumpLimits
from streams.quiet import quiet_libraries
from streams.source_log import SourceLog
from streams.stall import Progress, StallDetector
from streams.watchdog import EXIT_CRASHED, EXIT_STALLED, Watchdog, end_process

LOOKS_PER_STALL = 6
LEAVE_S = 1.0
"""For the last commit and the group's answer. Without them its session has to run out."""

GROUP_LOOK_S = 0.5
"""How soon a worker notices that another one has its instance id, or that it is cut off."""

STOP_S = 0.6
"""Share of the grace that the pumps may take for the batch in hand; the rest is for Faust."""

log = structlog.get_logger(__name__)


class WorkerCrashedError(EngineError):
    """Faust has given up; start the worker again. Nothing is lost."""


def appliers(
    settings: Settings,
    record: Record,
    wheel: Wheel,
    outbox: Outbox,
    sources: Mapping[str, SourceLog],
) -> Mapping[str, Callable[[int], Applier]]:
    """For each input topic: what makes an applier of one of its partitions."""
    inputs = posts, results, commands = settings.topics.inputs
    turns, planning = Turns(), asyncio.Lock()
    return {
        posts: lambda partition: CommandsFirst(
            PostDetectedApplier(
                partition,
                posts,
                policy=settings.policy,
                record=record,
                wheel=wheel,
                outbox=outbox,
                planning=planning,
            ),
            partition,
            commands,
            wheel,
            sources[commands],
        ),
        results: lambda partition: ResultApplier(
            partition,
            results,
            inputs=inputs,
            retries=settings.retries,
            record=record,
            wheel=wheel,
            outbox=outbox,
        ),
        commands: lambda partition: CommandApplier(
            partition,
            commands,
            inputs=inputs,
            policy=settings.policy,
            record=record,
            wheel=wheel,
            outbox=outbox,
            overdue=settings.overdue,
            turns=turns,
        ),
    }


class Worker:
    """Applies the input topics, for the partitions that Kafka assigns to this process.

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
        sources: Mapping[str, SourceLog],
        end: Callable[[int, str, BaseException | None], None] = end_process,
        watched: Callable[[str, Applier], Applier] | None = None,
    ) -> None:
        """`sources` has each input topic as the broker sees it; `watched` makes of a topic's
        applier the one that is used."""
        self._settings = settings
        self._end = end
        self._begun = -1
        limits = PumpLimits(settings.ingest_batch_events, settings.ingest_linger_ms / 1000)
        self._lanes: dict[str, Lane[Token]] = {
            topic: Lane(
                topic,
                open_applier if watched is None else _watching(watched, topic, open_applier),
                record=record,
                source=sources[topic],
                ack=Token.ack,
                limits=limits,
                press=self._press,
                on_death=self._died,
            )
            for topic, open_applier in appliers(settings, record, wheel, outbox, sources).items()
        }

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
            tuple(self._lanes),
            deliver=self._deliver,
            on_assigned=self._assigned,
            on_revoked=self._end_lanes,
            on_death=self._died,
        )
        tasks = [
            asyncio.create_task(app.start(), name="faust"),
            asyncio.create_task(app._crashed.wait(), name="faust-crash"),
            asyncio.create_task(self._watch_lag(), name="lag"),
            asyncio.create_task(self._watch_group(), name="group"),
            asyncio.create_task(stop.wait(), name="stop"),
        ]
        starting, crashed, _, alive, stopping = tasks
        ends = [stopping, crashed, alive]
        try:
            await asyncio.wait([starting, *ends], return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and (error := starting.exception()) is not None:
                raise WorkerCrashedError(f"Faust cannot start: {error!r}") from error
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            check_replaced(app)
            cut_off = alive.exception() if alive.done() else None
            if not stop.is_set():
                if cut_off is not None and not crashed.done():
                    raise WorkerCrashedError(f"Faust is cut off: {cut_off!r}") from cut_off
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
                # Together: one that waits for a store must not take the time of the others.
                await asyncio.gather(*(lane.finish() for lane in self._lanes.values()))
        except TimeoutError:
            log.warning("a batch in hand is left unacked: it will come again")
        await self._end_lanes()
        await self._leave()
        starting.cancel()
        await self._app.stop()
        # What was being assigned when the end began has begun meanwhile.
        await self._end_lanes()
        log.info("worker has stopped")

    async def _leave(self) -> None:
        # A task of its own: where Faust has crashed, its thread may end under this, which cancels
        # what it was asked for. That is no cancellation of ours, and must not end the stop.
        leaving = asyncio.create_task(leave(self._app), name="leave")
        try:
            await asyncio.wait([leaving], timeout=LEAVE_S)
            if not leaving.done():
                reason = f"no answer within {LEAVE_S:g} s"
            elif leaving.cancelled():
                reason = "Faust's thread has ended"
            elif (error := leaving.exception()) is not None:
                reason = str(error) or type(error).__name__
            else:
                return
        finally:
            leaving.cancel()
        log.warning("the group could not be left; it will miss this worker", reason=reason)

    async def _deliver(self, record: SourceRecord, generation: int, token: Token) -> bool:
        return await self._lanes[record.topic].put(record, generation, token)

    async def _assigned(self, assigned: Mapping[str, frozenset[int]], generation: int) -> None:
        posts, results, commands = (sorted(assigned[topic]) for topic in self._lanes)
        log.info(
            "partitions assigned",
            partitions=posts,
            results=results,
            commands=commands,
            generation=generation,
        )
        for topic, lane in self._lanes.items():
            await lane.begin(assigned[topic], generation)
        self._begun = generation

    async def _end_lanes(self, generation: int | None = None) -> None:
        await asyncio.gather(*(lane.end(generation) for lane in self._lanes.values()))

    def _press(self, topic: str, partition: int, on: bool) -> None:
        press(self._app, topic, partition, on)

    def _died(self, error: BaseException) -> None:
        if isinstance(error, PermanentError):
            # It says what to do, which a traceback would hide.
            self._end(EXIT_CRASHED, f"the worker ends, unacked: {error}", None)
        self._end(EXIT_CRASHED, "the worker ends, unacked: applying has failed", error)

    async def _watch_group(self) -> None:
        """Returns when another worker has started under our instance id, and raises what has cut
        Faust off from the group."""
        try:
            while True:
                await asyncio.sleep(GROUP_LOOK_S)
                check_alive(self._app)
        except InstanceReplacedError:
            return

    def _begins(self) -> Mapping[str, Progress]:
        """By generations of the group: what has come, and what is missing."""
        at = generation(self._app)
        return {} if at is None else {"group": Progress(at, self._begun, busy=False)}

    async def _watch_lag(self) -> None:
        """Ends the process when records wait and Faust delivers none."""
        stall_s = self._settings.stall_timeout_ms / 1000
        detector: StallDetector[tuple[str, int]] = StallDetector(stall_s)
        assignments: StallDetector[str] = StallDetector(stall_s)
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(stall_s / LOOKS_PER_STALL)
            try:
                # Where no lane has begun there is none that lags.
                if assignments.stalled(loop.time(), self._begins()):
                    self._end(EXIT_STALLED, "partitions were assigned, and have not begun", None)
                progress = {
                    (lane.topic, partition): seen
                    for lane in self._lanes.values()
                    for partition, seen in (await lane.progress()).items()
                }
                for place in detector.stalled(loop.time(), progress):
                    topic, partition = place
                    seen = progress[place]
                    if await self._lanes[topic].has_waiting(partition, seen):
                        name = f"partition {partition} of {topic}"
                        self._end(EXIT_STALLED, f"{name} has stalled: {seen}", None)
                    detector.acquit(place)
            except TransientError as error:
                log.debug("lag cannot be seen", reason=str(error))
            except Exception:
                # Whatever it is: without this watch a Faust that delivers nothing is not noticed.
                log.exception("lag cannot be seen")


def _watching(
    watched: Callable[[str, Applier], Applier], topic: str, opened: Callable[[int], Applier]
) -> Callable[[int], Applier]:
    return lambda partition: watched(topic, opened(partition))


@asynccontextmanager
async def worker(
    settings: Settings,
    counting: Callable[[Outbox], Outbox] | None = None,
    watched: Callable[[str, Applier], Applier] | None = None,
) -> AsyncIterator[Worker]:
    """A worker over the stores that `settings` names, once all of them answer. Its output goes
    through what `counting` makes of the outbox, and its input through what `watched` makes of each
    topic's appliers.

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
        kafka_outbox = KafkaOutbox(settings.kafka, settings.topics)
        stack.push_async_callback(kafka_outbox.close)
        outbox: Outbox = kafka_outbox if counting is None else counting(kafka_outbox)
        sources: dict[str, SourceLog] = {}
        for topic in settings.topics.inputs:
            # One each: a long read of one topic must not hold up another.
            source = SourceLog(settings.kafka, topic, settings.worker_group)
            stack.push_async_callback(source.close)
            sources[topic] = source
        yield Worker(
            settings, record=record, wheel=wheel, outbox=outbox, sources=sources, watched=watched
        )


async def run_worker(
    settings: Settings,
    stop: asyncio.Event,
    *,
    counting: Callable[[Outbox], Outbox] | None = None,
    watched: Callable[[str, Applier], Applier] | None = None,
) -> None:
    """Apply events until `stop` is set; stores may be away at the start as at any other time. For
    `counting` and `watched` see `worker`.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(quiet_libraries())
        boot = asyncio.create_task(
            stack.enter_async_context(worker(settings, counting, watched)), name="boot"
        )
        stopping = asyncio.create_task(stop.wait(), name="stop")
        try:
            await asyncio.wait([boot, stopping], return_when=asyncio.FIRST_COMPLETED)
            if boot.done():
                await boot.result().run(stop)
        finally:
            for task in (boot, stopping):
                task.cancel()
            await asyncio.gather(boot, stopping, return_exceptions=True)
