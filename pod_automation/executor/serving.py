"""An executor as a process: waits for Kafka, ends in order on a signal, and never hangs."""

import asyncio
import contextlib
import inspect
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from types import FrameType

import structlog

from pod_automation import logs, tracing
from pod_automation.executor.done import DoneStore
from pod_automation.executor.engagement import Handler, dry_run
from pod_automation.executor.executor import Executor, StuckHandlersError
from pod_automation.loop import run
from scheduler.adapters.kafka_topics import check_topics
from scheduler.patience import Patience
from scheduler.settings import Settings, load_settings
from scheduler.tasks import ended
from streams.quiet import quiet_libraries
from streams.watchdog import EXIT_STALLED, Watchdog, end_process

log = structlog.get_logger(__name__)


async def run_executor(
    settings: Settings,
    handle: Handler,
    stop: asyncio.Event,
    *,
    concurrency: int | None = None,
    ordered: bool = False,
    done: DoneStore | None = None,
    time_limit_s: float | timedelta | None = None,
) -> None:
    """Work until `stop` is set (see `Executor`); Kafka may be away at the start as at any time.

    Raises as `Executor` does, and `PermanentError` when topics are missing. The process ends with
    code 75 when handlers cannot be ended, for its supervisor to start it again.
    """
    async with AsyncExitStack() as stack:
        executor = Executor(
            settings,
            handle,
            concurrency=concurrency,
            ordered=ordered,
            done=done,
            time_limit_s=time_limit_s,
            tracing=await stack.enter_async_context(tracing.opened(settings, "executor")),
        )
        if handle is dry_run:
            log.warning("dry run: nothing is done for real, and everything is reported as executed")
        stack.enter_context(quiet_libraries())
        # Before anything asks for a topic by name, which creates it on some brokers.
        if not await _topics_are_there(settings, stop):
            return
        try:
            await executor.run(stop)
        except StuckHandlersError as error:
            # Waiting for the loop to close would be waiting for them.
            end_process(EXIT_STALLED, str(error))


def serve(
    handle: Handler,
    *,
    settings: Settings | None = None,
    concurrency: int | None = None,
    ordered: bool = False,
    done: DoneStore | None = None,
    time_limit_s: float | timedelta | None = None,
) -> None:
    """Be an executor until SIGTERM or Ctrl-C: the whole of a program of your own.

    The first signal ends it in order, within `settings.shutdown_grace_ms`; a second one at once.
    Settings come from the environment unless given, logs go to standard error. Call it from the
    main thread. At the end it closes `done`, if that has a `close`. For the rest see `Executor`;
    raises as that does, `SettingsError` and `PermanentError`.
    """
    settings = settings or load_settings()
    logs.configure(settings.log_level)
    watchdog = Watchdog(settings.stall_timeout_ms / 1000, settings.shutdown_grace_ms / 1000)

    async def main() -> None:
        with _stopped_by_signals(watchdog) as stop:
            watchdog.start(asyncio.get_running_loop())
            log.info("starting", process="executor", partitions=settings.partitions)
            async with _closing(done):
                try:
                    await run_executor(
                        settings,
                        handle,
                        stop,
                        concurrency=concurrency,
                        ordered=ordered,
                        done=done,
                        time_limit_s=time_limit_s,
                    )
                finally:
                    # Whatever ended it: handlers and threads that go on would hold up the end.
                    watchdog.stop_within_grace()
            log.info("stopped", process="executor")

    try:
        run(main())
    finally:
        # Not before the loop is closed: that waits for handlers that do not let themselves end.
        watchdog.stop()


async def _topics_are_there(settings: Settings, stop: asyncio.Event) -> bool:
    async def check() -> None:
        await Patience("executor").until_done(lambda: check_topics(settings))

    async def stopped() -> None:
        await stop.wait()

    checking = asyncio.create_task(check(), name="topics")
    stopping = asyncio.create_task(stopped(), name="stop")
    try:
        await asyncio.wait([checking, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not checking.done():
            return False
        checking.result()
        return True
    finally:
        await ended(checking, stopping)


@contextlib.contextmanager
def _stopped_by_signals(watchdog: Watchdog) -> Iterator[asyncio.Event]:
    # Not the loop's own handlers: these say nothing while a handler blocks the loop.
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}

    def told(_signum: int, _frame: FrameType | None) -> None:
        for signum in before:
            signal.signal(signum, signal.SIG_DFL)
        watchdog.stop_within_grace()
        loop.call_soon_threadsafe(stop.set)

    for signum in before:
        signal.signal(signum, told)
    try:
        yield stop
    finally:
        if not stop.is_set():
            for signum, handler in before.items():
                signal.signal(signum, handler)


@contextlib.asynccontextmanager
async def _closing(done: DoneStore | None) -> AsyncIterator[None]:
    try:
        yield
    finally:
        # No part of `DoneStore`: one of a user may have it or not, and async or not.
        store: object = done
        if not isinstance(store, type) and callable(close := getattr(store, "close", None)):
            closing: object = close()
            if inspect.isawaitable(closing):
                await closing
