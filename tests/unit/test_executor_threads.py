"""Plain functions as handlers: each in a thread, none of them forgotten."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from pod_automation.executor import Engagement, Permanent, Retry, threaded
from pod_automation.executor.attempt import Attempts
from tests.unit.test_executor_attempt import TODO, nothing

pytestmark = pytest.mark.timeout(30)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hanging functions wait for; opened at the end, so that no thread stays."""
    made = threading.Event()
    yield made
    made.set()


def hanging(gate: threading.Event) -> Callable[[Engagement], None]:
    def work(_: Engagement) -> None:
        gate.wait()

    return work


def raising(error: BaseException) -> Callable[[Engagement], None]:
    def work(_: Engagement) -> None:
        raise error

    return work


async def test_it_is_called_in_a_thread_with_what_holds_for_the_attempt() -> None:
    seen: list[Any] = []
    span: contextvars.ContextVar[str] = contextvars.ContextVar("span")
    span.set("of the attempt")

    @threaded
    def handle(engagement: Engagement) -> None:
        seen.extend((engagement, threading.current_thread().daemon, span.get()))

    assert (await Attempts(handle, time_limit_s=10)(TODO)).executed
    assert seen == [TODO, True, "of the attempt"]


@pytest.mark.parametrize(
    ("error", "said", "retryable"),
    [
        (Retry(3, "busy"), "busy", True),
        (Permanent("gone"), "gone", False),
        (StopIteration(1), "RuntimeError: coroutine raised StopIteration", True),
    ],
    ids=["Retry", "Permanent", "StopIteration"],
)
async def test_what_it_raises_says_what_is_reported(
    error: BaseException, said: str, retryable: bool
) -> None:
    outcome = await Attempts(threaded(raising(error)), time_limit_s=10)(TODO)
    assert (outcome.executed, outcome.error, outcome.retryable) == (False, said, retryable)


async def test_what_is_no_exception_is_no_result() -> None:
    class End(BaseException):
        pass

    with pytest.raises(End):
        await Attempts(threaded(raising(End())), time_limit_s=10)(TODO)


async def test_threads_that_hang_are_counted_until_they_end(gate: threading.Event) -> None:
    attempts = Attempts(threaded(hanging(gate)), time_limit_s=0.01, cancel_s=0.01)
    for number in range(40):  # more than any pool has
        outcome = await attempts(replace(TODO, activity_id=f"activity-{number}"))
        assert outcome.error == "the handler gave no answer within 0.01 s"
    assert len(attempts.stuck) == 40
    gate.set()
    await asyncio.wait(attempts.stuck)
    await asyncio.sleep(0)
    assert not attempts.stuck


async def test_who_ends_while_being_cancelled_has_done_it(gate: threading.Event) -> None:
    attempt = asyncio.create_task(Attempts(threaded(hanging(gate)), time_limit_s=10)(TODO))
    await asyncio.sleep(0.01)
    attempt.cancel()
    await asyncio.sleep(0)
    gate.set()
    assert (await attempt).executed


@pytest.mark.parametrize("function", [nothing, threading.Thread, None, threaded(raising(Retry()))])
def test_what_is_no_plain_function_is_refused(function: Any) -> None:
    with pytest.raises(TypeError, match=r"threaded\(\)"):
        threaded(function)


async def test_a_coroutine_is_no_answer() -> None:
    outcome = await Attempts(threaded(lambda each: nothing(each)), time_limit_s=10)(TODO)  # type: ignore[arg-type]
    assert (outcome.executed, outcome.retryable) == (False, False)
