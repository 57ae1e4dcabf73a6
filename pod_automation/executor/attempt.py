"""One attempt: the handler called once, within its time, and what came of it."""

import asyncio
import contextlib
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import structlog

from pod_automation.executor.done import DoneStore
from pod_automation.executor.engagement import Engagement, Handler, Permanent, Retry
from scheduler.backoff import Backoff
from scheduler.errors import EngineError, TransientError
from scheduler.tasks import end_if_cancelled
from schemas.events import MAX_RETRY_AFTER_MS, EngagementExecuted
from schemas.events import Outcome as Outcomes
from schemas.ids import result_event_id
from schemas.printable import printable

log = structlog.get_logger(__name__)

MAX_ERROR_CHARS = 1000

CANCEL_S = 2.0
"""How long a handler that was cancelled may take to clean up; after it nobody waits for it."""

MARK_S = 10.0
"""How long a store that is away is waited for once the work is done. Not for ever: the result alone
keeps the engine from trying again."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt came to."""

    executed: bool
    error: str | None = None
    retryable: bool = True
    retry_after_ms: int | None = None
    skipped: bool = False
    """It had been done before, so the handler was not called."""
    cause: BaseException | None = None
    traceparent: str | None = None
    """The span of the attempt, where there is one."""

    def result(self, engagement: Engagement, at: datetime) -> EngagementExecuted:
        """The event that tells the engine; `at` is when the attempt ended."""
        outcome: Outcomes = "executed" if self.executed else "failed"
        return EngagementExecuted(
            event_id=result_event_id(engagement.activity_id, outcome, engagement.attempt),
            activity_id=engagement.activity_id,
            pod_id=engagement.pod_id,
            post_id=engagement.post_id,
            member_id=engagement.member_id,
            engagement_type=engagement.engagement_type,
            attempt=engagement.attempt,
            outcome=outcome,
            executed_at=at,
            error=self.error,
            retryable=self.retryable,
            retry_after_ms=self.retry_after_ms,
        )


def now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def failed_by(error: BaseException) -> Outcome:
    """What a handler's exception means. It is of a class of theirs, which may do anything: then it
    is as any other, for an error here would end the process, at the same record each time."""
    try:
        return _meant_by(error)
    except Exception:
        return Outcome(False, error_text(error), cause=error)


def _meant_by(error: BaseException) -> Outcome:
    if isinstance(error, Permanent):
        return Outcome(False, error_text(error), retryable=False, cause=error)
    if isinstance(error, Retry):
        after_ms = error.after_ms
        if after_ms is not None:
            after_ms = min(max(int(after_ms), 0), MAX_RETRY_AFTER_MS)
        return Outcome(False, error_text(error), retry_after_ms=after_ms, cause=error)
    return Outcome(False, error_text(error), cause=error)


def error_text(error: BaseException) -> str:
    """`error` in one printable line of at most 1,000 characters; its type, where it is none of
    ours."""
    try:
        text = str(error)
    except Exception:  # somebody's own __str__
        text = ""
    if not isinstance(error, Retry | Permanent):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    # Cut before and after: it may be a megabyte, and escapes make it longer.
    return printable(text[:MAX_ERROR_CHARS])[:MAX_ERROR_CHARS]


@dataclass(slots=True)
class _Stage:
    """Whom an attempt waits for, and what was said."""

    who: str = "an earlier attempt, which goes on though it was given up,"
    last: str = ""
    refused: EngineError | None = None

    @property
    def why(self) -> str:
        """For the text of an attempt that waited in vain for the store."""
        return f": {self.last}" if self.last and self.who != "the handler" else ""


class Attempts:
    """Calls the handler; safe to be used by many tasks at once."""

    def __init__(
        self,
        handle: Handler,
        *,
        time_limit_s: float,
        done: DoneStore | None = None,
        cancel_s: float = CANCEL_S,
        mark_s: float = MARK_S,
    ) -> None:
        """`time_limit_s`: how long one attempt may take, the store's answer included."""
        self._handle = handle
        self._time_limit_s = time_limit_s
        self._done = done
        self._cancel_s = cancel_s
        self._mark_s = mark_s
        self._away = False
        self.stuck: dict[asyncio.Task[bool], str] = {}
        """Attempts that were given up, and whose handlers go on all the same; with the activity of
        each, of which none is begun meanwhile."""

    async def __call__(self, engagement: Engagement) -> Outcome:
        """Make the attempt. Raises `asyncio.CancelledError` where it was cancelled and the handler
        has not returned: then nobody knows what was done, and nothing is to be reported; and what a
        store that refuses has raised."""
        outcome = await self._within_limit(engagement)
        if outcome.executed and not outcome.skipped and self._done is not None:
            await self._mark(self._done, engagement.idempotency_key)
        return outcome

    async def _within_limit(self, engagement: Engagement) -> Outcome:
        # A task of its own, since a handler may swallow its cancellation.
        stage = _Stage()
        task = asyncio.create_task(self._attempt(engagement, stage), name="handler")
        try:
            await asyncio.wait([task], timeout=self._time_limit_s)
            late = not task.done()
            if late:
                await self._cancelled(task, engagement)
        except asyncio.CancelledError:
            await self._cancelled(task, engagement)
            if task.done() and not task.cancelled() and task.exception() is None:
                return Outcome(True, skipped=task.result())
            raise
        if not task.done() or (late and (task.cancelled() or task.exception() is not None)):
            text = f"{stage.who} gave no answer within {self._time_limit_s:g} s{stage.why}"
            return Outcome(False, text[:MAX_ERROR_CHARS])
        if task.cancelled():
            # Not by us: a library let out the cancellation of something of its own.
            return failed_by(asyncio.CancelledError())
        error = task.exception()
        if error is None:
            return Outcome(True, skipped=task.result())
        if stage.refused is not None:
            raise stage.refused
        if not isinstance(error, Exception):
            raise error
        return failed_by(error)

    async def _cancelled(self, task: "asyncio.Task[bool]", engagement: Engagement) -> None:
        task.cancel()
        await asyncio.wait([task], timeout=self._cancel_s)
        if not task.done():
            self.stuck[task] = engagement.activity_id
            task.add_done_callback(self._unstuck)
            log.warning("a handler goes on after it was cancelled", stuck=len(self.stuck))

    def _unstuck(self, task: "asyncio.Task[bool]") -> None:
        self.stuck.pop(task, None)
        if not task.cancelled():
            task.exception()  # nobody else will ask

    async def _attempt(self, engagement: Engagement, stage: "_Stage") -> bool:
        """True where it had been done before."""
        await self._alone(engagement.activity_id)
        if self._done is not None:
            stage.who = "the store of what is done"
            if await self._known(self._done, engagement.idempotency_key, stage):
                return True
        stage.who = "the handler"
        answer: object = self._handle(engagement)
        if not inspect.isawaitable(answer):
            # Nothing could be waited for, cut off or told apart; and it is so in every attempt.
            raise Permanent(f"the handler is not async: it gave {type(answer).__name__}")
        await answer
        return False

    async def _alone(self, activity_id: str) -> None:
        while earlier := [task for task, each in self.stuck.items() if each == activity_id]:
            await asyncio.wait(earlier)

    async def _known(self, done: DoneStore, key: str, stage: "_Stage") -> bool:
        try:
            return await self._patiently(partial(done.is_done, key), stage)
        except EngineError as error:
            # Every other engagement would fail by it too, for good in the end.
            stage.refused = error
            raise

    async def _mark(self, done: DoneStore, key: str) -> None:
        # Cancelled, refused or too late, the result is reported all the same: the work is done.
        stage = _Stage()
        marking = asyncio.create_task(
            self._patiently(partial(done.mark_done, key), stage), name="mark"
        )
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([marking], timeout=self._mark_s)
        if not marking.done():
            marking.cancel()
            log.warning("what was done could not be remembered", reason=stage.last)
        elif not marking.cancelled() and (error := marking.exception()) is not None:
            log.warning("what was done could not be remembered", reason=error_text(error))

    async def _patiently(self, ask: Callable[[], Awaitable[_T]], stage: "_Stage") -> _T:
        """What `ask` gives, asked until it raises nothing, or what waiting does not mend."""
        backoff = Backoff()
        while True:
            try:
                answer = await ask()
            except Exception as error:
                if _lasts(error):
                    raise
                stage.last = error_text(error)
                # One line for each change of state, however many attempts wait.
                if not self._away:
                    log.warning("the store of what is done is away", reason=stage.last)
                self._away = True
            else:
                if self._away:
                    log.info("the store of what is done answers again")
                self._away = False
                return answer
            end_if_cancelled()
            await backoff.wait()


def _lasts(error: Exception) -> bool:
    """Whether waiting will not mend it: a store that refuses, or a bug of its author's."""
    if isinstance(error, EngineError):
        return not isinstance(error, TransientError)
    return isinstance(error, TypeError | AttributeError | NameError | NotImplementedError)
