"""The event loop of commands that end by themselves."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from scheduler.errors import StoreUnavailableError

_T = TypeVar("_T")

ANSWER_S = 15.0
"""How long a command waits for one answer of a store, which counts as away after that."""


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """The result of `main`; Ctrl-C cancels it and raises `KeyboardInterrupt`."""
    try:
        import uvloop
    except ImportError:  # not published for this platform; slower, and nothing else
        return asyncio.run(main)
    return uvloop.run(main)


def cancelled() -> bool:
    """Whether the current task was asked to end: what an endless loop over a store has to look at.

    Drivers use `asyncio.wait_for`, which in Python 3.11 drops a cancellation that comes together
    with the result (gh-86296). Measured: 79 of 284 on a redis-py call that opens its connection.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def end_if_cancelled() -> None:
    """Raises `asyncio.CancelledError` where a driver has swallowed it (see `cancelled`)."""
    if cancelled():
        raise asyncio.CancelledError


async def answer(store: str, asked: Coroutine[Any, Any, _T], within_s: float = ANSWER_S) -> _T:
    """What `asked` gives. Raises `StoreUnavailableError` when that takes too long: a host that
    drops packets says nothing for minutes."""
    limit = asyncio.timeout(within_s)
    try:
        # Not wait_for: in Python 3.11 that one can swallow a cancellation.
        async with limit:
            return await asked
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise StoreUnavailableError(store, f"no answer within {within_s:.0f} s") from error
