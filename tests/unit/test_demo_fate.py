"""What the demo's handler does is known before, and it does it."""

import asyncio
from collections import Counter
from datetime import UTC, datetime
from uuid import UUID, uuid5

import pytest

from pod_automation.demo import fate
from pod_automation.demo.fate import Answer, End, answer, chance, end
from pod_automation.demo.handler import handle
from pod_automation.demo.scenario import Pacing, Scenario
from pod_automation.executor import Engagement, Permanent, Retry
from scheduler.settings import load_settings

SPACE = UUID(int=1)
MANY = [str(uuid5(SPACE, str(number))) for number in range(10_000)]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def with_answer(wanted: Answer, attempt: int = 1) -> str:
    return next(each for each in MANY if answer(each, attempt) is wanted)


def engagement(activity: str, attempt: int) -> Engagement:
    return Engagement(
        activity_id=activity,
        pod_id="pod",
        post_id="post",
        member_id="ann",
        engagement_type="like",
        attempt=attempt,
        scheduled_for=NOW,
        dispatched_at=NOW,
    )


def test_the_shares() -> None:
    ends = Counter((e.status, e.attempts, e.timed_out) for e in map(end, MANY))
    share = {each: number / len(MANY) for each, number in ends.items()}
    assert share["executed", 1, 0] == pytest.approx(0.88, abs=0.02)
    assert share["executed", 2, 0] == pytest.approx(0.06, abs=0.01)
    assert share["executed", 2, 1] == pytest.approx(0.02, abs=0.01)
    assert share["failed", 1, 0] == pytest.approx(0.02, abs=0.01)
    assert share["failed", 3, 0] == pytest.approx(0.02, abs=0.01)
    assert len(share) == 5
    first = Counter(answer(each, 1) for each in MANY)
    assert set(first) == set(Answer)


def test_ends_follow_from_the_answers() -> None:
    assert end(with_answer(Answer.DONE)) == End(True, 1, 0)
    assert end(with_answer(Answer.LATER)) == End(True, 2, 0)
    assert end(with_answer(Answer.HANG)) == End(True, 2, 1)
    assert end(with_answer(Answer.NEVER)) == End(False, 1, 0)
    assert end(with_answer(Answer.ERROR, attempt=3)) == End(False, 3, 0)


async def test_the_handler_keeps_to_it() -> None:
    await handle(engagement(with_answer(Answer.DONE), 1))
    await handle(engagement(with_answer(Answer.HANG), 2))
    with pytest.raises(RuntimeError, match="pretended"):
        await handle(engagement(with_answer(Answer.ERROR), 1))
    with pytest.raises(Permanent):
        await handle(engagement(with_answer(Answer.NEVER), 1))
    with pytest.raises(Retry) as raised:
        await handle(engagement(with_answer(Answer.LATER), 1))
    assert raised.value.after_ms


async def test_what_hangs_hangs() -> None:
    hanging = asyncio.create_task(handle(engagement(with_answer(Answer.HANG), 1)))
    # As long as it takes one that is done, and more.
    for activity in MANY[:40]:
        if answer(activity, 9) is Answer.DONE:
            await handle(engagement(activity, 9))
    assert not hanging.done()
    hanging.cancel()


@pytest.mark.parametrize("chaos", [False, True])
@pytest.mark.parametrize("speed", [1.0, 600.0, 100_000.0])
def test_deadlines_are_in_the_right_order(speed: float, chaos: bool) -> None:
    pacing = Pacing(speed, chaos)
    settings = load_settings(
        **{
            name.removeprefix("POD_AUTOMATION_").lower(): value
            for name, value in pacing.environment.items()
        }
    )
    timeout_s = settings.result_timeout_ms / 1000
    assert timeout_s >= 1.5
    assert settings.retries.attempts == fate.ATTEMPTS
    # The engine gives up before the executor does, and the executor before the next attempt times
    # out, which it does not begin while it still has this one in hand.
    assert timeout_s < pacing.handler_limit_s < 2 * timeout_s
    if chaos:
        assert fate.ATTEMPTS * settings.result_timeout_ms > 2 * settings.session_timeout_ms


def test_at_normal_speed_failures_take_as_long_as_by_default() -> None:
    ours, default = Pacing(1).environment, load_settings()
    assert ours["POD_AUTOMATION_RESULT_TIMEOUT_MS"] == str(default.result_timeout_ms)
    assert ours["POD_AUTOMATION_BACKOFF_INITIAL_DELAY_MS"] == str(default.backoff_initial_delay_ms)


def test_what_hangs_leaves_room() -> None:
    scenario = Scenario.of("t", pods=3, posts=40, stream_s=20.0)
    hanging = [each for each in scenario.asked_for if 10 <= chance(each) < 12]
    assert hanging
    assert scenario.handlers == 20 + len(hanging)
    most = load_settings(
        queue_concurrency=Scenario.of("t", pods=50, posts=8000, stream_s=1).handlers
    )
    assert most.queue_concurrency == 1000
