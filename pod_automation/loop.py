"""The event loop of a long-running process."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

LEFT_S = 5.0
"""How long what `main` has left behind may take to end."""

AGAIN_S = 0.5

log = structlog.get_logger(__name__)


def run_to_the_end(main: Coroutine[Any, Any, None], *, left_s: float = LEFT_S) -> None:
    """Run `main`, then end whatever it has left running; raises what `main` raises.

    `asyncio.run` waits for such tasks for ever, and those of a library that has crashed may never
    end: the process would keep its place and do nothing. After `left_s` they are left behind.
    """
    runner = asyncio.Runner(loop_factory=_loop_factory())
    try:
        runner.run(main)
    finally:
        left = runner.run(_end_others(left_s))
        if left:
            log.warning("some tasks do not end; the process ends without them", tasks=left)
        else:
            runner.close()


async def _end_others(left_s: float) -> list[str]:
    """Cancel all other tasks; returns the names of those that have not ended in time."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + left_s
    # Again and again: what ends may have begun another, and one cancellation may be swallowed.
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        remaining_s = deadline_s - loop.time()
        if remaining_s <= 0:
            return sorted(task.get_name() for task in others)
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=min(AGAIN_S, remaining_s))
    return []


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # not published for this platform; slower, and nothing else
        return asyncio.new_event_loop
    return uvloop.new_event_loop
