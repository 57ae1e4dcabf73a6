"""What every record promises about the timers that belong in the wheel."""

import asyncio
from functools import partial

import pytest

from scheduler.activity import Status
from scheduler.timer import Timer
from tests.contract.recording import (
    SHARD,
    STATUSES,
    TOPIC,
    FullRecord,
    Store,
    dispatched,
    first_batch,
    members,
    timer_of,
    upstream_row,
)

pytestmark = pytest.mark.timeout(60)


async def all_unfired(record: FullRecord, shard: int, chunk: int = 100) -> list[Timer]:
    async with record.snapshot(shard) as snapshot:
        return [timer async for timers in snapshot.unfired(chunk) for timer in timers]


async def test_unfired_between_offsets(record: FullRecord) -> None:
    log = [members(offset, 2) for offset in range(6)]
    await first_batch(record, [row for rows in reversed(log) for row in rows], 5)
    expected = [timer_of(row) for rows in log[2:5] for row in rows]
    assert await record.unfired_between(SHARD, 1, 4) == expected
    assert await record.unfired_between(SHARD, 4, 4) == []
    assert await record.unfired_between(SHARD + 1, 1, 4) == []


async def test_how_far_one_may_go_for_so_many_rows(record: FullRecord) -> None:
    log = [members(offset, count) for offset, count in ((1, 2), (2, 3), (5, 4))]
    await first_batch(record, [row for rows in log for row in rows], 7)
    rows = [len(each) for each in log]
    first, second, third = rows
    reach = partial(record.reach_between, SHARD)
    assert await reach(-1, 7, sum(rows)) == 7
    assert await reach(-1, 7, sum(rows) - 1) == 2
    assert await reach(-1, 7, first + second) == 2
    assert await reach(-1, 7, first) == 1
    assert await reach(-1, 7, first - 1) == 1  # one offset at least
    assert await reach(1, 7, second + third) == 7
    assert await reach(2, 7, 1) == 5
    assert await reach(2, 4, 1) == 4
    assert await reach(5, 7, 1) == 7
    assert await record.reach_between(SHARD + 1, -1, 7, 1) == 7


async def test_only_what_belongs_in_the_wheel(store: Store) -> None:
    rows = [
        upstream_row(
            status,
            status=status,
            scheduled_for_ms=number,
            attempt=number + 1,
            source_partition=SHARD,
            source_offset=number,
        )
        for number, status in enumerate(Status)
    ]
    await store.insert(*rows)
    wanted = [row.timer for row in rows if row.status in ("scheduled", "retrying")]
    assert [timer.attempt for timer in wanted if timer] == [2, 6]
    # A later attempt is the matter of the result that asked for it.
    assert await store.record.unfired_between(SHARD, -1, 99) == wanted[:1]
    found = await all_unfired(store.record, SHARD)
    assert sorted(found, key=lambda timer: timer.due_ms) == wanted


async def test_nothing_without_a_time_or_without_a_shard(store: Store) -> None:
    await store.insert(
        upstream_row("m", status=Status.SCHEDULED, source_partition=SHARD, source_offset=0),
        upstream_row("n", status=Status.SCHEDULED, scheduled_for_ms=1),
        upstream_row("o"),
    )
    assert await store.record.unfired_between(SHARD, -1, 99) == []
    assert await all_unfired(store.record, SHARD) == []


async def test_snapshot_of_a_new_shard(record: FullRecord) -> None:
    async with record.snapshot(SHARD) as snapshot:
        assert snapshot.watermarks == {}
        assert [timers async for timers in snapshot.unfired(10)] == []


async def test_snapshot_of_one_shard_in_chunks(record: FullRecord) -> None:
    mine, other = members(0, 25), members(1, 3)
    await first_batch(record, mine)
    await record.apply_plan(TOPIC, SHARD + 1, -1, 1, other)
    await record.project(STATUSES, SHARD, -1, 7, dispatched(mine[:5]))
    async with record.snapshot(SHARD) as snapshot:
        assert snapshot.watermarks == {TOPIC: 0, STATUSES: 7}
        chunks = [timers async for timers in snapshot.unfired(10)]
    assert [len(timers) for timers in chunks] == [10, 10]
    found = {timer for timers in chunks for timer in timers}
    assert found == {timer_of(each) for each in mine[5:]}


async def test_snapshot_is_of_one_moment_while_writing_goes_on(record: FullRecord) -> None:
    grown = asyncio.Event()
    async with record.snapshot(SHARD):
        pass  # it may need a connection of its own, which takes time

    async def write() -> None:
        for offset in range(60):
            await record.apply_plan(TOPIC, SHARD, offset - 1, offset, members(offset, 7))
            grown.set()
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    seen = set()
    while not writing.done():
        await grown.wait()
        grown.clear()
        async with record.snapshot(SHARD) as snapshot:
            upto = snapshot.watermarks[TOPIC]
            found = set()
            async for timers in snapshot.unfired(10):
                found |= set(timers)
                await asyncio.sleep(0)
        assert found == {timer_of(row) for offset in range(upto + 1) for row in members(offset, 7)}
        seen.add(upto)
    await writing
    assert len(seen) > 3


async def test_an_error_inside_a_snapshot_passes_through(record: FullRecord) -> None:
    await first_batch(record, members(0, 30))

    async def rebuild() -> None:
        async with record.snapshot(SHARD) as snapshot:
            async for _ in snapshot.unfired(10):
                raise OSError("of the wheel")

    with pytest.raises(OSError, match="of the wheel"):
        await rebuild()
    assert len(await all_unfired(record, SHARD)) == 30
