"""When what was fired is told to PostgreSQL: never before it is urgent, and never too late."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from scheduler import project
from scheduler.activity import StatusChange
from scheduler.project import Projection
from scheduler.timer import Timer

TOPIC, SHARD = "engagement-status", 3
LONG_S = 1000.0


class Record:
    """Notes each statement; `elsewhere` moves the watermark as another projector does."""

    def __init__(self) -> None:
        self.at = -1
        self.asked = 0
        self.statements: list[int] = []
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
        self.projected.set()
        return True

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


async def nothing_more() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def test_it_waits_while_timers_are_due() -> None:
    record = Record()
    async with running(record, firing_first_s=LONG_S) as made:
        made.committed(1, timers(2), 0)
        made.backlog(left=True)
        made.committed(4, timers(3), 0)
        made.backlog(left=True)
        await nothing_more()
        assert record.statements == []
        made.backlog(left=False)
        assert await record.next_statement() == 5
        assert record.at == 4


async def test_but_not_for_ever() -> None:
    record = Record()
    async with running(record, firing_first_s=0.001) as made:
        made.committed(1, timers(2), 0)
        made.backlog(left=True)
        assert await record.next_statement() == 2


async def test_nor_for_more_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "KEPT_CHANGES", 10)
    record = Record()
    async with running(record, firing_first_s=LONG_S) as made:
        for upto in range(0, 6, 3):
            made.committed(upto + 2, timers(3), 0)
            made.backlog(left=True)
        assert await record.next_statement() == 6


async def test_nor_when_the_shard_is_given_away() -> None:
    record = Record()
    async with running(record, firing_first_s=LONG_S, linger_s=LONG_S) as made:
        made.committed(1, timers(2), 0)
        made.backlog(left=True)
        await made.flush()
        assert record.statements == [2]
        made.committed(2, timers(1), 0)
        made.backlog(left=True)
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
