"""Ending tasks for good."""

import asyncio

AGAIN_S = 3.0
"""Longer than what any task of ours takes to clean up, which a second cancellation would break."""


async def ended(*tasks: "asyncio.Task[None]", again_s: float = AGAIN_S) -> None:
    """Cancel `tasks`, every `again_s` until they have ended; what they raise is dropped.

    Once is not enough: drivers use `asyncio.wait_for`, and in Python 3.11 that one swallows a
    cancellation that comes together with the result (gh-86296). A task that loops for ever over a
    store would go on, and whoever waits for it would wait for ever.
    """
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)
    for task in tasks:
        if not task.cancelled():
            task.exception()


def asked_to_end() -> bool:
    """Whether somebody has cancelled the current task, and not merely something that it awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
