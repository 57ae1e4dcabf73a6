"""No answer of a store is waited for without a limit."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pod_automation.client.errors import StoreAwayError, translated

_T = TypeVar("_T")

TIMEOUT_S = 15.0
"""How long one answer of a store may take; after that it counts as away."""

CLEAN_UP_S = 3.0
"""How long a request that was given up may take to clean up; after that it is left alone."""


async def answered(store: str, asked: Coroutine[Any, Any, _T], within_s: float) -> _T:
    """What `asked` gives, in the client's errors; `StoreAwayError` when that takes too long.

    In a task of its own: drivers may swallow a cancellation (gh-86296) or hang while they clean up,
    and the caller must go on all the same.
    """
    task = asyncio.create_task(asked, name=f"ask-{store}")
    try:
        await asyncio.wait({task}, timeout=within_s)
        if not task.done():
            raise StoreAwayError(store, f"no answer within {within_s:g} s")
        with translated():
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=CLEAN_UP_S)
            # Fetched, or the garbage collector would complain of it much later.
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
