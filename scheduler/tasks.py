"""Ending tasks for good."""

import asyncio

AGAIN_S = 0.2


async def ended(*tasks: "asyncio.Task[None]") -> None:
    """Cancel `tasks` until they have ended, and return then; what they raise is dropped.

    Once is not enough: drivers use `asyncio.wait_for`, and in Python 3.11 that one swallows a
    cancellation that comes together with the result (gh-86296). A task that loops for ever over a
    store would go on, and whoever waits for it would wait for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()
