"""The last resort: a thread that ends the process when the event loop cannot.

A process that ends without acking loses nothing: its records come again. One that hangs keeps its
partitions to itself. So in doubt it ends, and whatever supervises it starts another.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable

import structlog

EXIT_CRASHED = 70
"""A bug: a pump or the agent has ended (EX_SOFTWARE)."""
EXIT_GRACE_OVER = 74
"""An orderly stop took longer than the grace, mostly since a store is away (EX_IOERR)."""
EXIT_STALLED = 75
"""Records wait, and nothing is delivered; or the event loop hangs (EX_TEMPFAIL)."""

BEAT_S = 1.0

log = structlog.get_logger(__name__)


def end_process(code: int, reason: str, error: BaseException | None = None) -> None:
    """Say why, and end at once: no handlers, no acks, no waiting for anything."""
    log.critical(
        reason,
        exit_code=code,
        exc_info=(type(error), error, error.__traceback__) if error else None,
    )
    for stream in (sys.stderr, sys.stdout):
        stream.flush()
    logging.shutdown()
    os._exit(code)


class Watchdog:
    """Ends the process when the loop has been blocked, or an orderly stop has taken, too long."""

    def __init__(
        self,
        stall_s: float,
        grace_s: float,
        *,
        end: Callable[[int, str], None] = end_process,
        beat_s: float = BEAT_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`stall_s`: how long the loop may be blocked. `grace_s`: how long a stop may take."""
        self._stall_s = stall_s
        self._grace_s = grace_s
        self._end = end
        self._beat_s = beat_s
        self._clock = clock
        self._beaten_s = clock()
        self._deadline_s: float | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch `loop`."""
        self._loop = loop
        self._beaten_s = self._clock()
        self._thread.start()

    def stop_within_grace(self) -> None:
        """An orderly stop has begun: from here on the grace runs."""
        if self._deadline_s is None:
            self._deadline_s = self._clock() + self._grace_s

    def stop(self) -> None:
        """The orderly stop is done: watch no more."""
        self._over.set()

    def _beat(self) -> None:
        self._beaten_s = self._clock()

    def _watch(self) -> None:
        while not self._over.wait(self._beat_s):
            now_s = self._clock()
            if self._deadline_s is not None and now_s >= self._deadline_s:
                self._end(EXIT_GRACE_OVER, "the stop takes too long; ending unacked")
                return
            if now_s - self._beaten_s >= self._stall_s:
                self._end(EXIT_STALLED, "the event loop hangs")
                return
            try:
                self._loop.call_soon_threadsafe(self._beat)
            except RuntimeError:
                return  # the loop is closed
