"""Keeps libraries from filling the log while a server is away."""

import asyncio
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

LIBRARIES = ("aiokafka", "faust", "mode")

REPEATS = 3
WINDOW_S = 60.0
"""Three lines of a kind a minute. Without a limit a broker that is away for half a minute makes
4,400 lines."""

_FORGET_AT = 1000

_ARGUMENT = re.compile(r"TP\([^)]*\)|[0-9]+")

log = structlog.get_logger(__name__)


class RepeatLimit(logging.Filter):
    """Lets a few lines of each kind through in each window; other loggers it leaves alone.

    Goes on handlers: a filter on a logger does not see what its children log.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._kinds: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line may pass; the first of a window tells how many have not."""
        if record.name.partition(".")[0] not in LIBRARIES:
            return True
        text = str(record.msg)
        # The message without its arguments, which differ each time; Faust writes some in itself.
        kind = (record.name, record.levelno, _ARGUMENT.sub("", text)[:80])
        now_s = self._clock()
        start_s, count = self._kinds.get(kind, (now_s, 0))
        if now_s - start_s >= WINDOW_S:
            if count > REPEATS:
                record.msg = f"{record.msg} ({count - REPEATS} more of these were left out)"
            start_s, count = now_s, 0
        if len(self._kinds) >= _FORGET_AT:
            self._kinds.clear()
        self._kinds[kind] = (start_s, count + 1)
        _without_trace(record)
        return count < REPEATS


def _without_trace(record: logging.LogRecord) -> None:
    """A broker that is away is no bug: its error is told, without the way it took."""
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, OSError) or type(error).__module__ == "aiokafka.errors":
        record.msg, record.args = f"{record.getMessage()}: {error}", ()
        record.exc_info = record.exc_text = None


def _thread_ended(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_type is asyncio.CancelledError:
        # Of a Faust that is stopped while its broker is away; the watchdog ends the process.
        log.warning("a thread was cut off in its stop", thread=getattr(ended.thread, "name", None))
    elif ended.exc_value is not None:
        log.error(
            "a thread has failed",
            thread=getattr(ended.thread, "name", None),
            exc_info=(ended.exc_type, ended.exc_value, ended.exc_traceback),
        )


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Limits what the libraries may log through the handlers that are set up at present, and has
    what ends their threads logged as all else is."""
    limit = RepeatLimit()
    before, threading.excepthook = threading.excepthook, _thread_ended
    handlers = list(logging.getLogger().handlers)
    for handler in handlers:
        handler.addFilter(limit)
    try:
        yield
    finally:
        threading.excepthook = before
        for handler in handlers:
            handler.removeFilter(limit)
