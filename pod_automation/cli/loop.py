"""The event loop of commands that end by themselves."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pod_automation import loop
from scheduler.errors import StoreUnavailableError

_T = TypeVar("_T")

ANSWER_S = 15.0
"""How long a command waits for one answer of a store, which counts as away after that."""


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """The result of `main`; Ctrl-C cancels it and raises `KeyboardInterrupt`."""
    return loop.run(main)


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
