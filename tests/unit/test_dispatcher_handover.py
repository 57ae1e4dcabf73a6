"""What the dispatcher does when it stops, and when shards come and go."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import pytest

from scheduler.dispatch import ShardDispatcher, Turn
from scheduler.dispatcher import Dispatcher
from scheduler.errors import FencedError, InstanceReplacedError
from scheduler.ports import Wheel
from scheduler.timer import Timer

TIMER = Timer("activity", "pod", "post", "member", "like", 1, 0)

pytestmark = pytest.mark.timeout(20)


class Story:
    """What happened, in order; `until` waits for it to have happened so often."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._more = asyncio.Event()

    def add(self, event: str) -> None:
        self.events.append(event)
        self._more.set()

    async def until(self, event: str, times: int = 1) -> None:
        while self.events.count(event) < times:
            self._more.clear()
            await self._more.wait()


class Group:
    """A group whose assignments the test gives."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self.assignments: asyncio.Queue[frozenset[int] | Exception] = asyncio.Queue()

    @property
    def assigned(self) -> frozenset[int]:
        return frozenset()

    async def changed(self) -> frozenset[int]:
        assigned = await self.assignments.get()
        if isinstance(assigned, Exception):
            raise assigned
        return assigned

    async def close(self) -> None:
        self._story.add("left the group")


class SilentWheel:
    """No wake-ups."""

    @asynccontextmanager
    async def wakes(self, _shards: object) -> AsyncIterator[AsyncIterator[int]]:
        async def never() -> AsyncIterator[int]:
            await asyncio.Event().wait()
            yield 0

        yield never()


class Owner:
    """A shard that always has something to fire, until another owner takes it."""

    def __init__(self, shard: int, story: Story, fenced: Callable[[], bool]) -> None:
        self._shard = shard
        self._story = story
        self._fenced = fenced

    async def take(self, *, rebuild: bool = False) -> bool:
        self._story.add(f"took {self._shard}")
        return rebuild

    async def run_once(self) -> Turn:
        await asyncio.sleep(0)
        if self._fenced():
            raise FencedError(self._shard, "test")
        self._story.add(f"fired {self._shard}")
        return Turn((TIMER,), idle_ms=0)

    async def project(self) -> None:
        await asyncio.Event().wait()

    async def flush(self) -> None:
        self._story.add(f"projected {self._shard}")

    async def close(self) -> None:
        self._story.add(f"closed {self._shard}")


class Running:
    """A dispatcher of two shards at work."""

    def __init__(self) -> None:
        self.story = Story()
        self.group = Group(self.story)
        self.taken_by_others: set[int] = set()
        self.stop = asyncio.Event()
        dispatcher = Dispatcher(
            self.group,
            cast(Wheel, SilentWheel()),
            self._open,
            partitions=2,
            fenced_wait_s=3600,
        )
        self.task = asyncio.create_task(dispatcher.run(self.stop))

    def _open(self, shard: int) -> ShardDispatcher:
        owner = Owner(shard, self.story, lambda: shard in self.taken_by_others)
        return cast(ShardDispatcher, owner)

    async def firing(self, *shards: int) -> None:
        """Wait until each of them has fired once more."""
        for shard in shards:
            event = f"fired {shard}"
            await self.story.until(event, self.story.events.count(event) + 1)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    made = Running()
    made.group.assignments.put_nowait(frozenset({0, 1}))
    await made.firing(0, 1)
    yield made
    made.stop.set()
    made.taken_by_others |= {0, 1}
    await asyncio.gather(made.task, return_exceptions=True)


async def test_a_stop_leaves_the_group_first_and_fires_on_until_the_next_owner_comes(
    running: Running,
) -> None:
    running.stop.set()
    await running.story.until("left the group")
    await running.firing(0, 1)
    assert "projected 0" not in running.story.events
    running.taken_by_others.add(0)
    await running.story.until("closed 0")
    await running.firing(1)
    running.taken_by_others.add(1)
    await running.task
    events = running.story.events
    assert events.index("left the group") < events.index("projected 0") < events.index("closed 0")
    assert events.count("took 0") == events.count("took 1") == 1


async def test_a_stop_ends_where_nobody_takes_the_shards(running: Running) -> None:
    running.stop.set()
    await running.task
    assert running.story.events[-1].startswith("closed")


async def test_a_shard_that_is_given_away_fires_until_it_is_taken_and_no_other_pauses(
    running: Running,
) -> None:
    running.group.assignments.put_nowait(frozenset({1}))
    await running.firing(0, 1)
    running.taken_by_others.add(0)
    await running.story.until("closed 0")
    await running.firing(1)
    assert "closed 1" not in running.story.events


async def test_a_shard_that_comes_back_before_anybody_has_taken_it_goes_on(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.dispatcher.HANDOVER_S", 0.0)
    for assigned in ({1}, {0, 1}):
        running.group.assignments.put_nowait(frozenset(assigned))
    for _ in range(10):
        await running.firing(0, 1)
    assert running.story.events.count("took 0") == 1


async def test_a_shard_that_comes_back_after_another_had_it_is_taken_at_once(
    running: Running,
) -> None:
    running.taken_by_others.add(0)
    running.group.assignments.put_nowait(frozenset({1}))
    await running.story.until("closed 0")
    running.taken_by_others.clear()
    running.group.assignments.put_nowait(frozenset({0, 1}))
    await running.story.until("took 0", 2)
    await running.firing(0)


async def test_a_shard_that_a_zombie_took_is_taken_back_when_the_group_has_answered_it(
    running: Running,
) -> None:
    running.taken_by_others.add(0)  # it resumes, and fences whose shard it was
    await running.story.until("closed 0")
    running.taken_by_others.clear()
    running.group.assignments.put_nowait(frozenset({0, 1}))  # it joins anew, and is given nothing
    await running.story.until("took 0", 2)
    await running.firing(0)


async def test_what_was_assigned_before_a_shard_was_lost_is_no_answer(running: Running) -> None:
    running.group.assignments.put_nowait(frozenset({0, 1}))
    await running.firing(0, 1)
    running.taken_by_others.add(0)
    await running.story.until("closed 0")
    await running.firing(1)
    await running.firing(1)
    assert running.story.events.count("took 0") == 1


async def test_a_process_that_was_replaced_ends(running: Running) -> None:
    running.group.assignments.put_nowait(InstanceReplacedError("dispatcher-a"))
    with pytest.raises(InstanceReplacedError, match="POD_AUTOMATION_INSTANCE_ID"):
        await running.task
