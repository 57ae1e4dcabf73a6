"""What a result makes of its activity: pure rules, the same for executors, clients and time-outs.

docs/state-machine.md has them as a table.
"""

from enum import StrEnum

import msgspec
import orjson
from msgspec import Struct

from scheduler.activity import FINAL, ActivityRow, Announcement, Status
from scheduler.controls import OPTED_OUT
from scheduler.ledger import told
from scheduler.policy import RetryPolicy
from scheduler.progress import MAX_ATTEMPT
from scheduler.quiet_hours import QuietHours, free_from
from scheduler.stagger import moved_by_jitter, seed_of
from schemas.events import EngagementExecuted
from schemas.times import LATEST_MS, millis, rfc3339

MAX_ERROR_CHARS = 1_000
"""Of an error on the record; an executor may send a whole page."""

MAX_HISTORY_ERROR_CHARS = 200
"""Of each error in the history, which goes into a header."""

# Added to the activity's seed for each attempt, so that the jitters of its retries differ: an odd
# number near 2**64 divided by the golden ratio spreads consecutive multiples evenly.
_SPREAD = 0x9E3779B97F4A7C15
_SEEDS = 1 << 64

_History = list[dict[str, object]]


class Ignored(StrEnum):
    """Why a result changes nothing."""

    UNKNOWN = "unknown activity"
    FINISHED = "finished activity"
    CANCELLED = "cancelled activity"
    OLD_ATTEMPT = "old attempt"
    NO_SUCH_ATTEMPT = "attempt that was not made"


class Step(Struct, frozen=True):
    """What a result makes of a row: the row as it is to be, and what is to be told of it.

    `letter` is the reason of the dead letter that a final failure becomes.
    """

    row: ActivityRow
    announcement: Announcement
    executed_at_ms: int | None = None
    last_error: str | None = None
    letter: str | None = None


def judge(
    row: ActivityRow,
    result: EngagementExecuted,
    retries: RetryPolicy,
    now_ms: int,
    *,
    replayed: bool = False,
    opted_out: bool = False,
    quiet: tuple[QuietHours, ...] = (),
) -> Step | Ignored:
    """What `result` makes of `row`, an activity that it is really about.

    A result counts for the attempt that the row is at, whatever PostgreSQL knows of its dispatch by
    now. An `executed` of an earlier attempt counts as long as the retry has not been dispatched.
    `now_ms` is the wheel's clock, where a retry begins to wait. `replayed`: a dead letter that was
    sent again; it gives an activity that has failed at this very attempt one more. A member who has
    `opted_out` gets no further attempt: the activity is cancelled instead. A retry does not fall
    due in `quiet` hours, but as they end.
    """
    if row.status is Status.FAILED and replayed and result.attempt == row.attempt:
        if result.outcome == "failed" and row.attempt < MAX_ATTEMPT and not opted_out:
            return _retried(row, result, free_from(quiet, now_ms), _history(row))
        return Ignored.FINISHED
    if row.status in FINAL:
        gone = row.status in (Status.CANCELLED, Status.EXPIRED)
        return Ignored.CANCELLED if gone else Ignored.FINISHED
    if result.attempt > row.attempt:
        return Ignored.NO_SUCH_ATTEMPT
    if result.attempt < row.attempt and not (
        result.outcome == "executed" and row.status is Status.RETRYING
    ):
        return Ignored.OLD_ATTEMPT
    if result.outcome == "executed":
        return _executed(row, result)
    history = [*_history(row), _failure(result)]
    if result.retryable and row.attempt < min(retries.attempts, MAX_ATTEMPT):
        if opted_out:
            return _given_up(row, result, history)
        wait_ms = (
            retry_delay_ms(retries, row.activity_id, row.attempt)
            if result.retry_after_ms is None
            else result.retry_after_ms
        )
        due_ms = free_from(quiet, min(now_ms + wait_ms, LATEST_MS))
        return _retried(row, result, due_ms, history)
    return _failed(row, result, history)


def retry_delay_ms(retries: RetryPolicy, activity_id: str, attempt: int) -> int:
    """How long the attempt after `attempt` has to wait: doubled each time, moved by jitter.

    The same for every replay: the jitter comes from activity and attempt.
    """
    delay = retries.first_delay_ms << (attempt - 1)
    seed = (seed_of(activity_id) + attempt * _SPREAD) % _SEEDS
    return min(moved_by_jitter(delay, retries.jitter, seed), LATEST_MS)


def plain(text: str | None, limit: int) -> str:
    """`text` in one printable line of at most `limit` characters; PostgreSQL has no NUL."""
    line = "".join(c if c.isprintable() else " " for c in (text or "")[: 2 * limit])
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _executed(row: ActivityRow, result: EngagementExecuted) -> Step:
    # At the attempt that did it: the retry that was waiting is taken back.
    after = msgspec.structs.replace(row, status=Status.EXECUTED, attempt=result.attempt)
    return Step(after, told(after), executed_at_ms=millis(result.executed_at))


def _retried(row: ActivityRow, result: EngagementExecuted, due_ms: int, history: _History) -> Step:
    if history and row.scheduled_for_ms is not None:
        # The retry takes the place of this time in the row, and it goes on to count for the cap on
        # likes (sql/like_times.sql).
        history[-1]["due"] = rfc3339(row.scheduled_for_ms)
    error = plain(result.error, MAX_ERROR_CHARS)
    after = msgspec.structs.replace(
        row,
        status=Status.RETRYING,
        attempt=row.attempt + 1,
        scheduled_for_ms=due_ms,
        failures=_text(history),
    )
    return Step(after, told(after, error or None), last_error=error)


def _given_up(row: ActivityRow, result: EngagementExecuted, history: _History) -> Step:
    after = msgspec.structs.replace(row, status=Status.CANCELLED, failures=_text(history))
    return Step(after, told(after, OPTED_OUT), last_error=plain(result.error, MAX_ERROR_CHARS))


def _failed(row: ActivityRow, result: EngagementExecuted, history: _History) -> Step:
    error = plain(result.error, MAX_ERROR_CHARS)
    after = msgspec.structs.replace(row, status=Status.FAILED, failures=_text(history))
    return Step(
        after, told(after, error or None), last_error=error, letter=letter_of(after, result)
    )


def letter_of(row: ActivityRow, result: EngagementExecuted) -> str:
    """The reason on the dead letter of `result`, by which `row` has failed."""
    error = plain(result.error, MAX_HISTORY_ERROR_CHARS) or "no error was given"
    if not result.retryable:
        return f"failed, not retryable: {error}"
    return f"failed after {row.attempt} attempt{'s' if row.attempt > 1 else ''}: {error}"


def _history(row: ActivityRow) -> _History:
    return orjson.loads(row.failures) if row.failures else []


def _failure(result: EngagementExecuted) -> dict[str, object]:
    return {
        "attempt": result.attempt,
        "at": rfc3339(millis(result.executed_at)),
        "error": plain(result.error, MAX_HISTORY_ERROR_CHARS),
    }


def _text(history: _History) -> str:
    return orjson.dumps(history).decode() if history else ""
