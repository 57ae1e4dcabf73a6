"""`pod-automation worker`, `dispatcher` and `run`: the long-running processes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable

    from scheduler.settings import Settings

    Process = Callable[[Settings, asyncio.Event], Awaitable[None]]


def worker() -> None:
    """Apply inputs: plan each post-detected event, put its timers into the wheel.

    Start as many as wanted: Kafka shares the partitions out. Stores that are away are waited for,
    at the start as at any other time. SIGTERM or Ctrl-C ends it in order, with exit code 0; it
    ends by itself, for its supervisor to start it again, on a bug or when it makes no progress.

    \b
    Example:
      pod-automation worker
    """
    from pod_automation.processes import run_worker

    _serve("worker", run_worker)


def dispatcher() -> None:
    """Fire timers that are due, each exactly once, as execute-engagement events.

    Also brings the statuses into PostgreSQL. Start as many as wanted: they share the shards, and
    take over from one that dies. SIGTERM or Ctrl-C ends it in order, with exit code 0.

    \b
    Example:
      pod-automation dispatcher
    """
    from pod_automation.processes import run_dispatcher

    _serve("dispatcher", run_dispatcher, without_record=True)


def run() -> None:
    """Run worker and dispatcher in one process, for a small site.

    The same as `worker` and `dispatcher` side by side; one may be added to it at any time.

    \b
    Example:
      pod-automation init && pod-automation run
    """
    from pod_automation.processes import run_both

    _serve("worker and dispatcher", run_both)


def _serve(name: str, process: "Process", *, without_record: bool = False) -> None:
    import structlog

    from pod_automation import logs
    from pod_automation.cli.readiness import until_ready
    from pod_automation.processes import serve
    from scheduler.settings import load_settings

    settings = load_settings()
    logs.configure(settings.log_level)
    log = structlog.get_logger("pod_automation")

    async def main(stop: "asyncio.Event") -> None:
        log.info("starting", process=name, partitions=settings.partitions)
        if await until_ready(settings, stop, without_record=without_record):
            await process(settings, stop)
        log.info("stopped", process=name)

    serve(main)
