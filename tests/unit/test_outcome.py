"""What a result makes of its activity."""

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from scheduler.activity import FINAL, ActivityRow, Status
from scheduler.outcome import Ignored, Step, judge, plain, retry_delay_ms
from scheduler.policy import RetryPolicy
from schemas.events import EngagementExecuted
from schemas.ids import activity_id
from schemas.times import rfc3339

NOW_MS = 1_800_000_000_000
DUE_MS = NOW_MS - 5_000
RETRIES = RetryPolicy(3, 30_000, 0.10)
ACTIVITY = activity_id("pod", "post", "member", "like")


def row(status: Status = Status.DISPATCHED, attempt: int = 1, failures: str = "") -> ActivityRow:
    return ActivityRow(
        activity_id=ACTIVITY,
        pod_id="pod",
        post_id="post",
        member_id="member",
        engagement_type="like",
        status=status,
        attempt=attempt,
        scheduled_for_ms=DUE_MS,
        shard=0,
        failures=failures,
    )


def result(outcome: str = "executed", attempt: int = 1, **fields: object) -> EngagementExecuted:
    return EngagementExecuted(
        event_id="e",
        activity_id=ACTIVITY,
        pod_id="pod",
        post_id="post",
        member_id="member",
        engagement_type="like",
        attempt=attempt,
        outcome=outcome,  # type: ignore[arg-type]
        executed_at=datetime(2027, 1, 15, 8, 0, tzinfo=UTC),
        **fields,  # type: ignore[arg-type]
    )


def step(of: ActivityRow, by: EngagementExecuted, **options: Any) -> Step:
    found = judge(of, by, RETRIES, NOW_MS, **options)
    assert isinstance(found, Step)
    return found


OPEN = [Status.PENDING, Status.SCHEDULED, Status.RETRYING, Status.DISPATCHED]


@pytest.mark.parametrize("status", OPEN)
def test_executed_ends_it_whatever_is_known_of_its_dispatch(status: Status) -> None:
    found = step(row(status), result())
    assert (found.row.status, found.row.attempt) == (Status.EXECUTED, 1)
    assert found.executed_at_ms == 1_800_000_000_000
    assert found.letter is None
    assert (found.announcement.status, found.announcement.attempt) == (Status.EXECUTED, 1)


@pytest.mark.parametrize(("attempt", "delay"), [(1, 30_000), (2, 60_000)])
def test_a_failure_is_retried_later_and_later(attempt: int, delay: int) -> None:
    found = step(row(attempt=attempt), result("failed", attempt, error="no net"))
    assert (found.row.status, found.row.attempt) == (Status.RETRYING, attempt + 1)
    assert found.row.scheduled_for_ms is not None
    assert abs(found.row.scheduled_for_ms - NOW_MS - delay) <= delay * 0.10
    assert found.last_error == "no net"
    assert found.announcement.reason == "no net"
    assert found.announcement.scheduled_for_ms == found.row.scheduled_for_ms


def test_the_handler_may_say_when() -> None:
    found = step(row(), result("failed", retry_after_ms=5))
    assert found.row.scheduled_for_ms == NOW_MS + 5


def test_the_last_attempt_fails_for_good_with_its_history() -> None:
    second = step(row(attempt=2), result("failed", 2, error="two"))
    third = step(replace(second.row, status=Status.DISPATCHED), result("failed", 3, error="three"))
    assert (third.row.status, third.row.attempt) == (Status.FAILED, 3)
    assert third.letter == "failed after 3 attempts: three"
    assert [(each["attempt"], each["error"]) for each in orjson.loads(third.row.failures)] == [
        (2, "two"),
        (3, "three"),
    ]


def test_the_time_whose_place_a_retry_takes_is_kept_in_the_history() -> None:
    first = row()
    retried = step(first, result("failed", error="one"))
    last = step(
        replace(retried.row, status=Status.DISPATCHED), result("failed", 2, retryable=False)
    )
    kept = [each.get("due") for each in orjson.loads(last.row.failures)]
    assert first.scheduled_for_ms is not None
    # The row itself has the time of the attempt that it is at.
    assert kept == [rfc3339(first.scheduled_for_ms), None]
    replayed = step(last.row, result("failed", 2), replayed=True)
    assert last.row.scheduled_for_ms is not None
    kept = [each.get("due") for each in orjson.loads(replayed.row.failures)]
    assert kept == [rfc3339(first.scheduled_for_ms), rfc3339(last.row.scheduled_for_ms)]


def test_what_is_not_retryable_fails_at_once() -> None:
    found = step(row(), result("failed", error="gone", retryable=False))
    assert (found.row.status, found.letter) == (Status.FAILED, "failed, not retryable: gone")


@pytest.mark.parametrize("outcome", ["executed", "failed"])
@pytest.mark.parametrize("status", FINAL)
def test_what_is_over_stays_over(status: Status, outcome: str) -> None:
    found = judge(row(status), result(outcome), RETRIES, NOW_MS)
    gone = status in (Status.CANCELLED, Status.EXPIRED)
    assert found == (Ignored.CANCELLED if gone else Ignored.FINISHED)


@pytest.mark.parametrize("outcome", ["executed", "failed"])
def test_other_attempts(outcome: str) -> None:
    assert judge(row(), result(outcome, 2), RETRIES, NOW_MS) == Ignored.NO_SUCH_ATTEMPT
    assert judge(row(attempt=2), result(outcome, 1), RETRIES, NOW_MS) == Ignored.OLD_ATTEMPT


def test_a_late_executed_wins_while_the_retry_waits() -> None:
    found = step(row(Status.RETRYING, attempt=2), result(attempt=1))
    assert (found.row.status, found.row.attempt) == (Status.EXECUTED, 1)
    late = judge(row(Status.RETRYING, attempt=2), result("failed", 1), RETRIES, NOW_MS)
    assert late == Ignored.OLD_ATTEMPT


def test_a_replayed_failure_gives_one_more_attempt() -> None:
    failed = row(Status.FAILED, attempt=3, failures='[{"attempt":3}]')
    found = step(failed, result("failed", 3), replayed=True)
    assert (found.row.status, found.row.attempt) == (Status.RETRYING, 4)
    assert found.row.scheduled_for_ms == NOW_MS
    assert orjson.loads(found.row.failures) == [{"attempt": 3, "due": rfc3339(DUE_MS)}]
    again = judge(found.row, result("failed", 3), RETRIES, NOW_MS, replayed=True)
    assert again == Ignored.OLD_ATTEMPT
    last = row(Status.FAILED, attempt=255)
    assert judge(last, result("failed", 255), RETRIES, NOW_MS, replayed=True) == Ignored.FINISHED


def test_the_jitter_is_of_the_activity_and_the_attempt() -> None:
    other = activity_id("pod", "post", "another", "like")
    delays = {
        (name, attempt): retry_delay_ms(RETRIES, name, attempt)
        for name in (ACTIVITY, other)
        for attempt in (1, 2)
    }
    assert delays[ACTIVITY, 1] == retry_delay_ms(RETRIES, ACTIVITY, 1)
    assert delays[ACTIVITY, 1] != delays[other, 1]
    assert delays[ACTIVITY, 2] - 60_000 != 2 * (delays[ACTIVITY, 1] - 30_000)


def test_errors_are_made_fit_for_postgresql_and_terminals() -> None:
    assert plain("a\x00b\x1b[31m\n", 20) == "a b [31m "
    assert plain("x" * 50, 10) == "x" * 7 + "..."
    assert plain(None, 10) == ""
