"""Whether `init` has been run: asked by the long-running processes before they begin."""

import asyncio

import structlog

from scheduler.adapters.kafka_topics import check_topics
from scheduler.errors import TransientError
from scheduler.migrations import check_schema
from scheduler.patience import Patience
from scheduler.settings import Settings

log = structlog.get_logger(__name__)


async def until_ready(
    settings: Settings, stop: asyncio.Event, *, without_record: bool = False
) -> bool:
    """Wait until the stores answer, and see that they are set up for `settings`.

    Stores that are away are waited for, in the logs; with `without_record` not for PostgreSQL,
    since timers that are in the wheel can fire without it. Returns False when `stop` was set
    meanwhile. Raises `PermanentError` when topics or schema are not what they must be.
    """
    checking = asyncio.create_task(_check(settings, without_record), name="readiness")
    stopped = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([checking, stopped], return_when=asyncio.FIRST_COMPLETED)
        if not checking.done():
            return False
        checking.result()
        return True
    finally:
        for task in (checking, stopped):
            task.cancel()
        await asyncio.gather(checking, stopped, return_exceptions=True)


async def _check(settings: Settings, without_record: bool) -> None:
    patience = Patience("start")
    await patience.until_done(lambda: check_topics(settings))
    if not without_record:
        await patience.until_done(lambda: check_schema(settings.postgres_dsn))
        return
    try:
        await check_schema(settings.postgres_dsn)
    except TransientError as error:
        log.warning("firing without the record for now", reason=str(error))
