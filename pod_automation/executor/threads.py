"""A handler of a plain function: in a thread of its own, which is waited for to its very end."""

import asyncio
import contextlib
import contextvars
import functools
import inspect
import threading
from collections.abc import Callable

from pod_automation.executor.checks import HandlerError, is_async
from pod_automation.executor.engagement import Engagement, Handler, Permanent


def threaded(function: Callable[[Engagement], None]) -> Handler:
    """A handler that calls `function`, which may block, in a thread. Raises `HandlerError`.

    Not by `asyncio.to_thread`: a cancelled one ends at once while its thread goes on, so that
    nobody counts those that hang, and one attempt overtakes another; and when they fill the pool
    that all share, no later one begins. No thread can be ended from outside, so `function` has to
    give up by itself: each of its requests needs a time limit.
    """
    given: object = function
    if not callable(given) or isinstance(given, type):
        raise HandlerError("threaded() takes a function: write `def handle(engagement)`")
    if is_async(function):
        raise HandlerError("threaded() is for functions that are not async; this one is a handler")

    @functools.wraps(function)
    async def handle(engagement: Engagement) -> None:
        call = _Call(asyncio.get_running_loop(), functools.partial(function, engagement))
        while not call.ended.done():
            # Whoever cancels sees by it that this attempt goes on.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([call.ended])
        call.result()

    return handle


class _Call:
    """One call, in a daemon thread: as many as there are attempts, and none keeps the process from
    its end, as those of a pool would."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
        self.ended: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._call = call
        self._context = contextvars.copy_context()
        self._answer: object = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name="handler", daemon=True).start()

    def result(self) -> None:
        """Raises what the call did."""
        if self._error is not None:
            raise self._error
        if inspect.iscoroutine(self._answer):
            self._answer.close()
            raise Permanent("threaded() was given an async function: nothing was done")

    def _run(self) -> None:
        try:
            self._answer = self._context.run(self._call)
        except BaseException as error:
            self._error = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
