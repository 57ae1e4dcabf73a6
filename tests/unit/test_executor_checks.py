"""What an executor is made with: refused at once where every attempt would fail by it."""

import asyncio
import functools
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from redis.exceptions import AuthenticationError, NoPermissionError
from redis.exceptions import ConnectionError as RedisConnectionError

from pod_automation.executor import Engagement, Executor, MemoryDone, RedisDone, run_executor, serve
from pod_automation.executor.attempt import Attempts
from scheduler.errors import EngineError, StoreUnavailableError
from scheduler.settings import load_settings
from tests.unit.test_executor_attempt import nothing

pytestmark = pytest.mark.timeout(30)


def sync(_: Engagement) -> None: ...


async def greeting(text: str, _: Engagement) -> None:
    assert text


@functools.wraps(nothing)
def wrapped(engagement: Engagement) -> Any:
    return nothing(engagement)


class Called:
    async def __call__(self, engagement: Engagement) -> None: ...

    async def method(self, engagement: Engagement) -> None: ...


class CalledSync:
    def __call__(self, engagement: Engagement) -> None: ...


GOOD = (nothing, functools.partial(greeting, "hi"), wrapped, Called(), Called().method)
WRONG = {
    "sync": (sync, "the handler is not async: write `async def handle(engagement)`"),
    "partial": (functools.partial(sync), "the handler is not async"),
    "lambda": (lambda _: None, "the handler is not async"),
    "object": (CalledSync(), "the handler is not async"),
    "class": (Called, "the handler is no function"),
    "coroutines": (greeting, "the handler must take one argument, the engagement"),
    "nothing": (None, "the handler is no function"),
}


def executor(handle: Any = nothing, **options: Any) -> Executor:
    return Executor(load_settings(), handle, **options)


@pytest.mark.parametrize("handle", GOOD, ids=range(len(GOOD)))
def test_handlers(handle: Any) -> None:
    executor(handle)


@pytest.mark.parametrize(("handle", "said"), WRONG.values(), ids=WRONG)
def test_what_is_no_handler_is_refused(handle: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said.partition(":")[0]):
        executor(handle)


def by_run_executor(handle: Any) -> None:
    asyncio.run(run_executor(load_settings(), handle, asyncio.Event()))


def by_serve(handle: Any) -> None:
    serve(handle, settings=load_settings())


@pytest.mark.parametrize("begun", [by_run_executor, by_serve])
def test_however_it_is_begun(begun: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pod_automation.executor.serving.logs.configure", lambda _: None)
    with pytest.raises(TypeError, match="not async"):
        begun(sync)


@pytest.mark.parametrize(
    ("limit", "seconds"), [(0.5, 0.5), (3, 3.0), (timedelta(minutes=2), 120.0)]
)
def test_time_limits(limit: Any, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    class Noted(Attempts):
        def __init__(self, *args: Any, time_limit_s: float, **more: Any) -> None:
            given.append(time_limit_s)
            super().__init__(*args, time_limit_s=time_limit_s, **more)

    monkeypatch.setattr("pod_automation.executor.executor.Attempts", Noted)
    executor(time_limit_s=limit)
    assert given == [seconds]


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf"), timedelta(0)], ids=str)
def test_a_time_limit_is_above_0(limit: Any) -> None:
    with pytest.raises(ValueError, match="time_limit_s must be above 0"):
        executor(time_limit_s=limit)


@pytest.mark.parametrize("limit", ["30", True, b"1", [3]], ids=repr)
def test_a_time_limit_is_a_time(limit: Any) -> None:
    with pytest.raises(TypeError, match="a number of seconds, or a timedelta"):
        executor(time_limit_s=limit)


class SyncStore:
    def is_done(self, key: str) -> bool:
        return False

    def mark_done(self, key: str) -> None: ...


class HalfAStore:
    async def is_done(self, key: str) -> bool:
        return False


@pytest.mark.parametrize(
    ("done", "said"),
    [
        (SyncStore(), "no `async def is_done"),
        (HalfAStore(), "no `async def mark_done"),
        (MemoryDone, r"write MemoryDone\("),
        ("redis", "no `async def is_done"),
    ],
    ids=["sync", "half", "class", "text"],
)
def test_what_is_no_store_is_refused(done: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        executor(done=done)


class Closed(MemoryDone):
    closed = False

    def close(self) -> None:
        self.closed = True


class ClosedLater(MemoryDone):
    closed = False

    async def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "done", [Closed(), ClosedLater(), MemoryDone()], ids=lambda each: str(type(each))
)
def test_a_store_is_closed_as_it_wants_to_be(done: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def over(*_: object, **__: object) -> None: ...

    monkeypatch.setattr("pod_automation.executor.serving.logs.configure", lambda _: None)
    monkeypatch.setattr("pod_automation.executor.serving.run_executor", over)
    serve(nothing, settings=load_settings(), done=done)
    assert getattr(done, "closed", True)


@pytest.mark.parametrize(
    ("raised", "meant"),
    [
        (AuthenticationError("WRONGPASS"), EngineError),
        (NoPermissionError("NOPERM"), EngineError),
        (RedisConnectionError("refused"), StoreUnavailableError),
    ],
    ids=lambda each: each.__name__ if isinstance(each, type) else type(each).__name__,
)
async def test_a_redis_that_refuses_is_none_that_is_away(
    raised: Exception, meant: type[EngineError], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*_: object, **__: object) -> None:
        raise raised

    done = RedisDone("redis://127.0.0.1:1/0")
    for name in ("exists", "set"):
        monkeypatch.setattr(done._redis, name, refused)
    for call in (done.is_done, done.mark_done):
        with pytest.raises(meant) as told:
            await call("key")
        assert type(told.value) is meant
    await done.close()
