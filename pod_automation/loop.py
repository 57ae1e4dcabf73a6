"""Event loops: uvloop's where there is one, and an end for what has been left running."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import structlog

from scheduler.tasks import ended

_T = TypeVar("_T")

LEFT_S = 5.0
"""How long what `main` has left behind may take to end."""

AGAIN_S = 0.5

log = structlog.get_logger(__name__)


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """As `asyncio.run`: the result of `main`, once all that it has left running has ended."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def run_to_the_end(main: Coroutine[Any, Any, None], *, left_s: float = LEFT_S) -> None:
    """Run `main`, then end whatever it has left running; raises what `main` raises.

    `run` waits for such tasks for ever, and those of a library that has crashed may never end: the
    process would keep its place and do nothing. After `left_s` they are left behind.
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
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(left_s):
            # What ends may have begun another.
            while others := _others():
                await ended(*others, again_s=AGAIN_S)
    return sorted(task.get_name() for task in _others())


def _others() -> set["asyncio.Task[Any]"]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # not published for this platform; slower, and nothing else
        return asyncio.new_event_loop
    return uvloop.new_event_loop
