"""What a handler does, and what is reported of it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from pod_automation.executor import Engagement, MemoryDone, Permanent, Retry
from pod_automation.executor.attempt import MAX_ERROR_CHARS, Attempts, Outcome, error_text
from scheduler.errors import EngineError, SettingsError
from schemas.codec import InvalidEvent, decode, encode
from schemas.events import MAX_RETRY_AFTER_MS, EngagementExecuted, ExecuteEngagement
from schemas.examples import EXAMPLES

AT = datetime(2026, 11, 24, 8, 5, tzinfo=UTC)
TODO = Engagement(
    activity_id="activity",
    pod_id="pod",
    post_id="post",
    member_id="member",
    engagement_type="like",
    attempt=2,
    scheduled_for=AT,
    dispatched_at=AT,
)

pytestmark = pytest.mark.timeout(30)


class Shown(Exception):  # noqa: N818 - any error
    def __str__(self) -> str:
        raise RuntimeError("not even this works")


class Busy(Retry):
    """Of a user who calls no `super().__init__`."""

    def __init__(self, status: int) -> None:
        self.status = status


class Broken(Retry):
    def __init__(self) -> None: ...

    @property
    def after_ms(self) -> int:  # type: ignore[override]
        raise RuntimeError("not even this works")


class Mute(Permanent):
    def __str__(self) -> str:
        raise RuntimeError("not even this works")


def with_after_ms(after_ms: Any) -> Retry:
    error = Retry()
    error.after_ms = after_ms
    return error


def raising(error: BaseException) -> Callable[[Engagement], Awaitable[None]]:
    async def handle(_: Engagement) -> None:
        raise error

    return handle


async def nothing(_: Engagement) -> None:
    """Done at once."""


async def for_ever(_: Engagement) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Retry(), Outcome(False, "try again")),
        (Retry(30, "busy"), Outcome(False, "busy", retry_after_ms=30_000)),
        (Retry(timedelta(minutes=1)), Outcome(False, "try again", retry_after_ms=60_000)),
        (Retry(0), Outcome(False, "try again", retry_after_ms=0)),
        (Retry(-5), Outcome(False, "try again", retry_after_ms=0)),
        (Retry(float("inf")), Outcome(False, "try again", retry_after_ms=MAX_RETRY_AFTER_MS)),
        (Permanent("gone"), Outcome(False, "gone", retryable=False)),
        (Permanent(), Outcome(False, "refused for good", retryable=False)),
        (ValueError("a\x00b\nc"), Outcome(False, "ValueError: a\\x00b\\nc")),
        (KeyError(), Outcome(False, "KeyError")),
        (Shown(), Outcome(False, "Shown")),
        (ValueError("\ud800"), Outcome(False, "ValueError: \\ud800")),
        (asyncio.CancelledError(), Outcome(False, "CancelledError")),
        (Busy(429), Outcome(False, "429")),
        (Broken(), Outcome(False, "")),
        (Mute(), Outcome(False, "", retryable=False)),
        (with_after_ms("soon"), Outcome(False, "try again")),
        (with_after_ms(1e300), Outcome(False, "try again", retry_after_ms=MAX_RETRY_AFTER_MS)),
        (with_after_ms(-7), Outcome(False, "try again", retry_after_ms=0)),
    ],
    ids=lambda each: repr(each)[:40],
)
async def test_what_is_raised_says_what_is_reported(
    error: BaseException, expected: Outcome
) -> None:
    outcome = await Attempts(raising(error), time_limit_s=10)(TODO)
    assert (outcome.executed, outcome.error) == (expected.executed, expected.error)
    assert outcome.retryable == expected.retryable
    assert outcome.retry_after_ms == expected.retry_after_ms
    result = outcome.result(TODO, AT)
    assert decode(EngagementExecuted, encode(result)) == result
    assert result.event_id == "activity:failed:2"


async def test_returning_is_executed() -> None:
    outcome = await Attempts(nothing, time_limit_s=10)(TODO)
    result = outcome.result(TODO, AT)
    assert result == EngagementExecuted(
        event_id="activity:executed:2",
        activity_id="activity",
        pod_id="pod",
        post_id="post",
        member_id="member",
        engagement_type="like",
        attempt=2,
        outcome="executed",
        executed_at=AT,
    )
    assert decode(EngagementExecuted, encode(result)) == result


def test_errors_are_short() -> None:
    assert len(error_text(ValueError("x" * 10_000_000))) == MAX_ERROR_CHARS
    assert len(error_text(ValueError("\x00" * 10_000_000))) == MAX_ERROR_CHARS


def test_a_retry_needs_a_number() -> None:
    with pytest.raises(ValueError, match="not a number"):
        Retry(float("nan"))


async def test_what_is_no_exception_is_no_result() -> None:
    class End(BaseException):
        pass

    with pytest.raises(End):
        await Attempts(raising(End()), time_limit_s=10)(TODO)


async def test_a_handler_that_gives_nothing_to_wait_for_fails_for_good() -> None:
    calls = []

    def handle(engagement: Engagement) -> Any:
        calls.append(engagement)

    outcome = await Attempts(handle, time_limit_s=10)(TODO)
    assert calls == [TODO]
    assert outcome.error == "the handler is not async: it gave NoneType"
    assert (outcome.executed, outcome.retryable) == (False, False)


async def test_the_time_limit_cancels_and_reports() -> None:
    attempts = Attempts(for_ever, time_limit_s=0.01)
    outcome = await attempts(TODO)
    assert (outcome.executed, outcome.retryable) == (False, True)
    assert outcome.error == "the handler gave no answer within 0.01 s"
    assert not attempts.stuck


async def test_who_ends_while_being_cancelled_has_done_it() -> None:
    async def handle(_: Engagement) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    assert (await Attempts(handle, time_limit_s=0.01)(TODO)).executed


async def test_a_handler_that_goes_on_is_given_up() -> None:
    let_go = asyncio.Event()

    async def handle(_: Engagement) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    attempts = Attempts(handle, time_limit_s=0.01, cancel_s=0.01)
    outcome = await attempts(TODO)
    assert outcome.error == "the handler gave no answer within 0.01 s"
    (stuck,) = attempts.stuck
    let_go.set()
    await asyncio.wait([stuck])
    await asyncio.sleep(0)
    assert not attempts.stuck


async def test_the_next_attempt_waits_for_one_that_goes_on() -> None:
    let_go, running, most = asyncio.Event(), 0, 0

    async def handle(_: Engagement) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        while not let_go.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await let_go.wait()
        running -= 1

    attempts = Attempts(handle, time_limit_s=0.05, cancel_s=0.01)
    await attempts(TODO)
    outcome = await attempts(replace(TODO, attempt=3))
    stuck = len(attempts.stuck)
    other = asyncio.create_task(attempts(replace(TODO, attempt=4)))
    await asyncio.sleep(0)
    let_go.set()
    assert (await other).executed
    assert (most, stuck, outcome.retryable) == (1, 1, True)
    assert outcome.error == (
        "an earlier attempt, which goes on though it was given up, gave no answer within 0.05 s"
    )


async def test_cancelled_from_outside_there_is_no_result() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handle(_: Engagement) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.ensure_future(Attempts(handle, time_limit_s=10)(TODO))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


class Flaky:
    """A store that is away for the first so many calls of each kind."""

    def __init__(self, away: int) -> None:
        self.left = {"is_done": away, "mark_done": away}
        self.keys: set[str] = set()

    def _answer(self, call: str) -> None:
        self.left[call] -= 1
        if self.left[call] >= 0:
            raise ConnectionError("away")

    async def is_done(self, key: str) -> bool:
        self._answer("is_done")
        return key in self.keys

    async def mark_done(self, key: str) -> None:
        self._answer("mark_done")
        self.keys.add(key)


async def test_what_is_done_is_not_done_again() -> None:
    calls = []

    async def handle(engagement: Engagement) -> None:
        calls.append(engagement.attempt)

    attempts = Attempts(handle, time_limit_s=10, done=MemoryDone())
    first, second = await attempts(TODO), await attempts(TODO)
    assert calls == [2]
    assert (first.executed, first.skipped) == (True, False)
    assert (second.executed, second.skipped) == (True, True)


async def test_what_failed_is_not_remembered() -> None:
    done = MemoryDone()
    await Attempts(raising(Retry()), time_limit_s=10, done=done)(TODO)
    assert not await done.is_done(TODO.idempotency_key)


async def test_a_store_that_is_away_is_waited_for() -> None:
    done = Flaky(away=1)
    assert (await Attempts(nothing, time_limit_s=10, done=done)(TODO)).executed
    assert done.keys == {"activity"}


async def test_no_handler_runs_blindly() -> None:
    called = []

    async def handle(engagement: Engagement) -> None:
        called.append(engagement)

    attempts = Attempts(handle, time_limit_s=0.05, done=Flaky(away=1_000_000))
    outcome = await attempts(TODO)
    assert not called
    assert outcome.error == (
        "the store of what is done gave no answer within 0.05 s: ConnectionError: away"
    )
    assert (outcome.executed, outcome.retryable) == (False, True)


class Raising:
    """A store that always raises the same."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def is_done(self, key: str) -> bool:
        raise self.error

    async def mark_done(self, key: str) -> None:
        raise self.error


async def test_that_a_store_is_away_is_one_line() -> None:
    attempts = Attempts(nothing, time_limit_s=10, done=Flaky(away=3))
    with capture_logs() as lines:
        assert all(each.executed for each in await asyncio.gather(attempts(TODO)))
    assert [(each["event"], each["log_level"], each.get("reason")) for each in lines] == [
        ("the store of what is done is away", "warning", "ConnectionError: away"),
        ("the store of what is done answers again", "info", None),
    ] * 2  # when it was asked, and when it was told


@pytest.mark.parametrize("error", [EngineError("wrong password"), SettingsError("no database")])
async def test_a_store_that_refuses_ends_the_executor(error: EngineError) -> None:
    with pytest.raises(type(error), match=str(error)):
        await Attempts(nothing, time_limit_s=10, done=Raising(error))(TODO)


async def test_a_bug_of_a_store_is_not_waited_for() -> None:
    outcome = await Attempts(nothing, time_limit_s=10, done=Raising(TypeError("bytes")))(TODO)
    assert (outcome.executed, outcome.error) == (False, "TypeError: bytes")
    assert outcome.retryable


async def test_a_handler_may_raise_errors_of_the_engine() -> None:
    error = EngineError("mine")
    outcome = await Attempts(raising(error), time_limit_s=10, done=MemoryDone())(TODO)
    assert outcome.error == "EngineError: mine"


async def test_what_cannot_be_remembered_is_reported_as_done() -> None:
    done = Flaky(away=1_000_000)
    done.left["is_done"] = 0
    outcome = await Attempts(nothing, time_limit_s=10, done=done, mark_s=0.01)(TODO)
    assert outcome.executed


async def test_that_it_could_not_be_remembered_is_told() -> None:
    class ReadOnly(MemoryDone):
        async def mark_done(self, key: str) -> None:
            raise EngineError("read only")

    store = ReadOnly()
    with capture_logs() as lines:
        assert (await Attempts(nothing, time_limit_s=10, done=store)(TODO)).executed
    assert [(each["event"], each["reason"]) for each in lines] == [
        ("what was done could not be remembered", "EngineError: read only")
    ]


async def test_memory_forgets_the_oldest() -> None:
    done = MemoryDone(size=2)
    await done.mark_done("a")
    await done.mark_done("b")
    assert await done.is_done("a")  # which makes it the younger one
    await done.mark_done("c")
    assert [await done.is_done(key) for key in "abc"] == [True, False, True]


@pytest.mark.parametrize("name", ["activity_id", "pod_id", "post_id", "member_id"])
@pytest.mark.parametrize("text", ["", "x" * 201, "x" * 900_000, "a\x00", "a\nb"], ids=len)
def test_an_engagement_whose_result_nobody_would_take_is_none(name: str, text: str) -> None:
    """Its result would be too large for Kafka, and every later one would wait behind it."""
    event = EXAMPLES[ExecuteEngagement]
    assert isinstance(event, ExecuteEngagement)
    assert Engagement.of(event).activity_id == event.activity_id
    with pytest.raises(InvalidEvent, match=name):
        Engagement.of(msgspec.structs.replace(event, **{name: text}))
