"""When and how often PostgreSQL is told of what was fired."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from scheduler import project
from scheduler.activity import StatusChange
from scheduler.adapters.memory_log import MemoryPartition
from scheduler.errors import PermanentError
from scheduler.project import Projection
from scheduler.timer import Timer
from schemas.events import WheelCursor

TOPIC, SHARD = "engagement-status", 3
LONG_S = 1000.0


class Record:
    """Notes each statement; `elsewhere` moves the watermark as another projector does."""

    def __init__(self) -> None:
        self.at = -1
        self.asked = 0
        self.statements: list[int] = []
        self.dispatched: dict[str, int] = {}
        """The watermark under which an activity was last projected."""
        self.projected = asyncio.Event()

    async def watermark(self, topic: str, shard: int) -> int:
        self.asked += 1
        return self.at

    async def project(
        self, topic: str, shard: int, expected: int, upto: int, changes: Sequence[StatusChange]
    ) -> bool:
        if expected != self.at:
            return False
        self.at = upto
        self.statements.append(len(changes))
        self.dispatched |= {each.activity_id: upto for each in changes}
        self.projected.set()
        return True

    def fail_over(self, at: int) -> None:
        """What came after `at` was confirmed, and is lost."""
        self.at = at
        self.dispatched = {name: upto for name, upto in self.dispatched.items() if upto <= at}

    async def next_statement(self) -> int:
        await self.projected.wait()
        self.projected.clear()
        return self.statements[-1]


def timers(count: int) -> list[Timer]:
    return [Timer(f"activity-{n}", "pod", "post", f"m-{n}", "like", 1, 0) for n in range(count)]


@asynccontextmanager
async def running(record: Record, **waits: float) -> AsyncIterator[Projection]:
    stored: Any = record
    made = Projection(SHARD, TOPIC, stored, stored, **waits)

    async def end() -> int:
        return 0

    task = asyncio.create_task(made.run(end))
    await made._idle.wait()
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_nothing_waits_when_the_shard_is_given_away() -> None:
    record = Record()
    async with running(record, linger_s=LONG_S) as made:
        made.committed(1, timers(2), 0)
        await made.flush()
        assert record.statements == [2]
        made.committed(2, timers(1), 0)
        await made.flush()
        assert record.at == 2


async def test_commits_of_one_moment_are_one_statement() -> None:
    record = Record()
    async with running(record, linger_s=0.001) as made:
        made.committed(1, timers(2), 0)
        await asyncio.sleep(0)
        made.committed(2, timers(1), 0)
        assert await record.next_statement() == 3


async def test_the_watermark_is_asked_for_only_where_others_may_have_moved_it() -> None:
    record = Record()
    async with running(record) as made:
        asked = record.asked
        for upto in range(3):
            made.committed(upto, timers(1), 0)
            await record.next_statement()
        assert record.asked == asked + 1
        record.at = 7  # another projector, who is ahead
        made.committed(5, timers(1), 0)
        await record.next_statement()
        assert (record.at, record.asked) == (7, asked + 2)


async def test_what_another_has_projected_meanwhile_is_no_topic_made_anew() -> None:
    # This process may stand still between any two steps, as under SIGSTOP, while its shard is taken
    # by another one, which goes on committing and projecting.
    committed = 2

    class Overtaken(Record):
        async def watermark(self, topic: str, shard: int) -> int:
            nonlocal committed
            committed = 5
            self.at = committed
            return await super().watermark(topic, shard)

    async def end() -> int:
        return committed + 1

    stored: Any = Overtaken()
    await Projection(SHARD, TOPIC, stored, stored).drain(end)
    assert stored.statements == []


async def test_a_topic_that_was_made_anew_is_refused() -> None:
    record = Record()
    record.at = 5

    async def end() -> int:
        return 2

    stored: Any = record
    with pytest.raises(PermanentError, match=r"ends at offset 2, .* created anew"):
        await Projection(SHARD, TOPIC, stored, stored).drain(end)


class Shard:
    """What a shard's owner commits, and a projection of it."""

    def __init__(
        self, record: Record, linger_s: float = 0.0, kafka: MemoryPartition | None = None
    ) -> None:
        self.kafka = kafka or MemoryPartition(SHARD)
        self._log = self.kafka.open()
        stored: Any = record
        self.made = Projection(SHARD, TOPIC, stored, self.kafka, linger_s=linger_s)

    async def fire(self, activity_id: str) -> None:
        cursor = WheelCursor(seq=len(self.kafka.cursors), nonce="nonce", gen="gen")
        timer = Timer(activity_id, "pod", "post", "member", "like", 1, 0)
        self.made.committed(await self._log.commit([timer], 0, cursor), [timer], 0)

    @asynccontextmanager
    async def projecting(self) -> AsyncIterator[None]:
        await self._log.fence()
        task = asyncio.create_task(self.made.run(self._log.status_end))
        await self.made._idle.wait()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_what_does_not_fit_while_commits_are_gathered_is_read_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(project, "KEPT_CHANGES", 1)
    record = Record()
    shard = Shard(record, linger_s=LONG_S)
    async with shard.projecting():
        await shard.fire("a")
        await asyncio.sleep(0)  # it is gathering by now
        await shard.fire("b")  # forgotten, and what came before with it
        await shard.fire("c")
        await shard.made.flush()
    assert record.dispatched.keys() == {"a", "b", "c"}


async def test_what_postgresql_has_lost_in_a_failover_is_read_back() -> None:
    record = Record()
    shard = Shard(record)
    async with shard.projecting():
        for name in ("a", "b"):
            await shard.fire(name)
            await shard.made.flush()
        record.fail_over(-1)
        await shard.fire("c")
        await shard.made.flush()
    assert record.dispatched.keys() == {"a", "b", "c"}


async def test_so_is_what_was_lost_after_an_earlier_owner_s_commits_were_read_back() -> None:
    record = Record()
    earlier = Shard(record)
    await earlier.fire("a")
    shard = Shard(record, kafka=earlier.kafka)
    async with shard.projecting():
        record.fail_over(-1)
        await shard.fire("b")
        await shard.made.flush()
    assert record.dispatched.keys() == {"a", "b"}
