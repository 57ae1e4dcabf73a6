"""Who is handled when: the concurrency, the order, the bound, and rebalances."""

import asyncio
from collections.abc import Callable

import pytest

from pod_automation.executor import Engagement
from pod_automation.executor.attempt import Outcome
from pod_automation.executor.in_hand import ORDERED_WINDOW, WINDOW, InHand, Work
from tests.unit.test_executor_attempt import AT

pytestmark = pytest.mark.timeout(30)


def engagement(post: str, activity: str, attempt: int = 1) -> Engagement:
    return Engagement(
        activity_id=activity,
        pod_id="pod",
        post_id=post,
        member_id="member",
        engagement_type="like",
        attempt=attempt,
        scheduled_for=AT,
        dispatched_at=AT,
    )


class Desk:
    """Attempts that end when the test says so, and results that it confirms."""

    def __init__(self, *, concurrency: int = 2, ordered: bool = False) -> None:
        self.began: list[str] = []
        self.cancelled: list[str] = []
        self.open: dict[str, asyncio.Event] = {}
        self.reported: dict[str, Callable[[], None]] = {}
        self.in_hand = InHand(self._attempt, self._report, concurrency=concurrency, ordered=ordered)

    async def _attempt(self, todo: Engagement) -> Outcome:
        name = todo.activity_id
        self.began.append(name)
        self.open[name] = asyncio.Event()
        try:
            await self.open[name].wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        finally:
            del self.open[name]
        return Outcome(True)

    def _report(self, work: Work, _: Outcome, confirmed: Callable[[], None]) -> None:
        self.reported[work.engagement.activity_id] = confirmed

    async def end(self, name: str) -> None:
        self.open[name].set()
        await turns()

    async def confirm(self, name: str) -> None:
        self.reported.pop(name)()
        await turns()

    def upto(self) -> int | None:
        """What of partition 0 may be committed."""
        return self.in_hand.offsets[0].upto


async def turns() -> None:
    """Let everything happen that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_than_the_concurrency_at_a_time() -> None:
    desk = Desk(concurrency=2)
    for offset, name in enumerate("abcd"):
        desk.in_hand.take(0, offset, engagement("post", name))
    await turns()
    assert desk.began == ["a", "b"]
    await desk.end("b")
    assert desk.began == ["a", "b", "c"]


@pytest.mark.parametrize("ordered", [False, True])
async def test_no_more_in_memory_than_the_window(ordered: bool) -> None:
    desk = Desk(concurrency=2, ordered=ordered)
    window = 2 * (ORDERED_WINDOW if ordered else WINDOW)
    for offset in range(window):
        assert desk.in_hand.room == window - offset
        desk.in_hand.take(0, offset, engagement(f"post-{offset}", f"{offset}"))
    assert desk.in_hand.room == 0
    await turns()
    # What is not confirmed is still in hand: a Kafka that is away stops the reading.
    await desk.end("0")
    assert desk.in_hand.room == 0
    await desk.confirm("0")
    assert desk.in_hand.room == 1


async def test_in_order_of_a_post_and_past_it() -> None:
    desk = Desk(concurrency=3, ordered=True)
    for offset, (post, name) in enumerate([("p", "a"), ("p", "b"), ("q", "c"), ("p", "d")]):
        desk.in_hand.take(0, offset, engagement(post, name))
    await turns()
    assert desk.began == ["a", "c"]
    await desk.end("a")
    assert desk.began == ["a", "c", "b"]
    await desk.end("b")
    assert desk.began == ["a", "c", "b", "d"]


async def test_two_attempts_of_one_activity_are_never_made_at_once() -> None:
    desk = Desk()
    desk.in_hand.take(0, 0, engagement("post", "a", attempt=1))
    await turns()
    desk.in_hand.take(0, 1, engagement("post", "a", attempt=1))  # from another producer, say
    await turns()
    assert desk.began == ["a"]
    await desk.end("a")
    assert desk.began == ["a", "a"]


async def test_a_later_attempt_ends_the_earlier_ones() -> None:
    desk = Desk(concurrency=2)
    desk.in_hand.take(0, 0, engagement("post", "a", attempt=1))
    desk.in_hand.take(0, 1, engagement("post", "b"))
    await turns()
    desk.in_hand.take(0, 2, engagement("post", "c", attempt=1))
    desk.in_hand.take(0, 3, engagement("post", "c", attempt=2))
    desk.in_hand.take(0, 4, engagement("post", "a", attempt=2))
    await turns()
    # What hung was cancelled, what waited never began: no result is owed for either.
    assert desk.cancelled == ["a"]
    assert desk.began == ["a", "b", "c"]
    assert desk.upto() == 1
    await desk.end("b")
    assert desk.began == ["a", "b", "c", "a"]
    for name in "bca":
        if name in desk.open:
            await desk.end(name)
        await desk.confirm(name)
    assert desk.upto() == 5


async def test_done_is_what_is_confirmed() -> None:
    desk = Desk()
    desk.in_hand.take(0, 5, engagement("post", "a"))
    desk.in_hand.take(0, 6, None)
    await turns()
    await desk.end("a")
    assert desk.upto() is None
    assert desk.in_hand.idle()
    assert not desk.in_hand.settled()
    await desk.confirm("a")
    assert desk.upto() == 7
    assert desk.in_hand.settled()


async def test_a_partition_that_comes_back_is_not_handled_twice() -> None:
    desk = Desk(concurrency=2)
    for offset, name in enumerate("abc"):
        desk.in_hand.take(0, offset, engagement("post", name))
    await turns()
    desk.in_hand.hold()
    assert desk.in_hand.room == 0
    await desk.end("b")  # done, and behind "a", so not committed
    await desk.confirm("b")
    desk.in_hand.assigned([0])
    for offset, name in enumerate("abc"):
        desk.in_hand.take(0, offset, engagement("post", name))
    await turns()
    assert desk.began == ["a", "b", "c"]
    await desk.end("a")
    await desk.confirm("a")
    assert desk.upto() == 2
    assert desk.began == ["a", "b", "c"]
    assert desk.cancelled == []


async def test_a_partition_that_is_gone_is_let_go() -> None:
    desk = Desk(concurrency=3)
    for partition, name in enumerate("abc"):
        desk.in_hand.take(partition, 7, engagement("post", name))
    await turns()
    await desk.end("c")
    desk.in_hand.hold()
    desk.in_hand.assigned([0])
    await turns()
    assert desk.cancelled == ["b"]
    assert "b" not in desk.reported
    await desk.confirm("c")  # its result was on the way
    assert set(desk.in_hand.offsets) == {0}
    assert len(desk.in_hand) == 1


async def test_a_partition_that_was_gone_and_comes_back_is_handled() -> None:
    desk = Desk()
    desk.in_hand.take(0, 7, engagement("post", "a"))
    await turns()
    desk.in_hand.hold()
    desk.in_hand.assigned([])
    # Back before the cancelled one has ended.
    desk.in_hand.hold()
    desk.in_hand.assigned([0])
    desk.in_hand.take(0, 7, engagement("post", "a"))
    await turns()
    assert desk.cancelled == ["a"]
    assert desk.began == ["a", "a"]
    await desk.end("a")
    await desk.confirm("a")
    assert desk.upto() == 8


async def test_while_held_nothing_begins_and_nothing_is_committed_over() -> None:
    desk = Desk(concurrency=1)
    desk.in_hand.take(0, 0, engagement("post", "a"))
    desk.in_hand.take(0, 1, engagement("post", "b"))
    await turns()
    desk.in_hand.hold()
    desk.in_hand.take(0, 2, engagement("post", "c"))
    desk.in_hand.take(0, 3, None)
    await desk.end("a")
    await desk.confirm("a")
    assert desk.began == ["a"]
    assert desk.upto() == 1
    assert desk.in_hand.settled()
    assert len(desk.in_hand) == 0
