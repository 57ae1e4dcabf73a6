"""Patience with stores that are away: try again, with back-off, until it passes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from scheduler.errors import TransientError
from scheduler.tasks import end_if_cancelled

FIRST_WAIT_S = 0.05
LONGEST_WAIT_S = 2.0
"""A store that is back is noticed within this time; shorter, and a hundred waiting shards would
keep a starting server from starting."""

log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Patience:
    """Retries transient errors for ever. Everything else is a bug and goes through at once."""

    def __init__(
        self, name: str, *, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    ) -> None:
        """`name` says in the logs who waits; `sleep` takes seconds."""
        self._name = name
        self._sleep = sleep
        self._waits_for: str | None = None

    async def rest(self, seconds: float) -> None:
        """Wait so long."""
        await self._sleep(seconds)

    @property
    def waits_for(self) -> str | None:
        """What is being waited for, None when nothing is."""
        return self._waits_for

    async def until_done(
        self,
        attempt: Callable[[], Awaitable[_T]],
        *,
        forget: Callable[[], None] = lambda: None,
    ) -> _T:
        """The result of `attempt`, called until it raises no `TransientError`.

        `forget` runs after each failure, to drop what the failure has made doubtful. May be
        cancelled at any time.
        """
        wait_s = FIRST_WAIT_S
        while True:
            try:
                result = await attempt()
            except TransientError as error:
                forget()
                # The failure may be what has become of a cancellation: a pool that waits for the
                # server to take back a statement raises its own time-out in its place.
                end_if_cancelled()
                self._note(str(error))
                await self._sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
            else:
                self._note(None)
                return result

    def _note(self, waits_for: str | None) -> None:
        # One line for each change of state: an hour without a store is two lines, not thousands.
        if waits_for is not None and self._waits_for is None:
            log.warning("waiting", who=self._name, reason=waits_for)
        elif waits_for is None and self._waits_for is not None:
            log.info("going on", who=self._name)
        self._waits_for = waits_for
