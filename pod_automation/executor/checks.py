"""What an executor is made with: a mistake there would fail every attempt, so it is looked for."""

import functools
import inspect
import math
from datetime import timedelta
from typing import Any, cast

from pod_automation.executor.engagement import Handler


class HandlerError(TypeError):
    """This is no handler; the message is one line that says why, and what to do."""


def check_handler(found: object, name: str = "the handler") -> None:
    """Raises `HandlerError` for what is no async function of an engagement."""
    try:
        _check(found, name)
    except HandlerError:
        raise
    except Exception as error:
        # An object that answers for itself what it is, and fails at it.
        raise HandlerError(f"{name} is no function: {told(error)}") from error


def check_store(done: object) -> None:
    """Raises `TypeError` for what is no `DoneStore`: it would count as one that is away."""
    if isinstance(done, type):
        raise TypeError(f"done= takes a store, not a class: write {done.__name__}(...)")
    for name in ("is_done", "mark_done"):
        method = getattr(done, name, None)
        if not callable(method) or not is_async(method):
            raise TypeError(f"the store of what is done has no `async def {name}(self, key)`")


def seconds(limit: float | timedelta, name: str = "time_limit_s") -> float:
    """`limit` in seconds. Raises `TypeError` or `ValueError` where it is no time above 0."""
    if isinstance(limit, timedelta):
        limit = limit.total_seconds()
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise TypeError(f"{name} is a number of seconds, or a timedelta: not {limit!r}")
    if not 0 < limit < math.inf:
        raise ValueError(f"{name} must be above 0, and no infinity: not {limit!r}")
    return float(limit)


def is_async(function: object) -> bool:
    """Whether calling it gives a coroutine, as far as can be told beforehand: objects with an async
    `__call__`, partials, and what says that it wraps such a function."""
    bare: Any = function.func if isinstance(function, functools.partial) else function
    called = bare if inspect.isroutine(bare) else bare.__call__
    return inspect.iscoroutinefunction(called) or inspect.iscoroutinefunction(
        inspect.unwrap(called)
    )


def told(error: BaseException) -> str:
    """`error` in one line; it is a user's class, and may do anything."""
    try:
        detail = " ".join(str(error).split())
    except Exception:
        detail = "(it cannot say why)"
    return f"{type(error).__name__}: {detail}"


def _check(found: object, name: str) -> None:
    bare: Any = found.func if isinstance(found, functools.partial) else found
    if isinstance(bare, type) or not callable(bare):
        raise HandlerError(f"{name} is no function: write `async def handle(engagement)`")
    if not is_async(found):
        raise HandlerError(
            f"{name} is not async: write `async def handle(engagement)`, or for a function that"
            " blocks `handle = threaded(function)`, of pod_automation.executor"
        )
    try:
        inspect.signature(cast(Handler, found)).bind(object())
    except TypeError:
        raise HandlerError(
            f"{name} must take one argument, the engagement; it takes"
            f" {inspect.signature(cast(Handler, found))}"
        ) from None
