"""What every record shows to an onlooker."""

from collections.abc import AsyncIterator
from typing import cast

import pytest

from scheduler.activity import Standing, Status
from scheduler.adapters.postgres_view import PostgresView
from scheduler.ports import RecordView
from tests.contract.recording import (
    DUE_MS,
    SHARD,
    STATUSES,
    TOPIC,
    MemoryStore,
    PostgresStore,
    Store,
    dispatched,
    first_batch,
    members,
    upstream_row,
)

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def store(dsn: str | None) -> AsyncIterator[Store]:
    """Each record, empty."""
    if dsn is None:
        yield MemoryStore()
        return
    record = await PostgresView.connect(dsn)
    yield PostgresStore(record, dsn)
    await record.close()


async def standing(record: RecordView, shard: int, chunk: int = 100) -> list[Standing]:
    async with record.snapshot(shard) as snapshot:
        return [row async for rows in snapshot.standing(chunk) for row in rows]


async def test_what_the_wheel_must_know_of(store: Store) -> None:
    record = cast(RecordView, store.record)
    rows = [
        upstream_row(
            status,
            status=status,
            scheduled_for_ms=DUE_MS + number,
            dispatched_at_ms=number,
            attempt=number + 1,
            source_partition=SHARD,
            command_offset=number,
        )
        for number, status in enumerate(Status)
    ]
    untimed = upstream_row("u", status=Status.SCHEDULED, source_partition=SHARD)
    other = upstream_row("o", status=Status.SCHEDULED, source_partition=SHARD + 1)
    await store.insert(*rows, untimed, other, upstream_row("nobody's"))
    found = await standing(record, SHARD, 2)
    assert {each.activity_id for each in found} == {
        untimed.id,
        *(row.id for row in rows if row.status in ("scheduled", "retrying", "dispatched")),
    }
    async with record.snapshot(SHARD) as snapshot:
        by_id = await snapshot.standings([*(row.id for row in rows), other.id, "unheard-of"])
    assert by_id.keys() == {*(row.id for row in rows), other.id}
    for number, row in enumerate(rows):
        each = by_id[row.id]
        assert (each.status, each.attempt) == (row.status, number + 1)
        assert (each.scheduled_for_ms, each.dispatched_at_ms) == (DUE_MS + number, number)
        assert (each.shard, each.command_offset) == (SHARD, number)
    assert by_id[other.id].shard == SHARD + 1


async def test_the_version_tells_of_every_change(store: Store) -> None:
    record = cast(RecordView, store.record)
    (one,) = members(0, 1)
    await first_batch(record, [one])
    async with record.snapshot(SHARD) as snapshot:
        before = (await snapshot.standings([one.activity_id]))[one.activity_id]
        again = (await snapshot.standings([one.activity_id]))[one.activity_id]
    assert before == again
    await record.project(STATUSES, SHARD, -1, 0, dispatched([one]))
    async with record.snapshot(SHARD) as snapshot:
        after = (await snapshot.standings([one.activity_id]))[one.activity_id]
    assert after.version != before.version
    assert (after.status, after.dispatched_at_ms) == (Status.DISPATCHED, DUE_MS)


async def test_counts_of_all_shards(store: Store) -> None:
    record = cast(RecordView, store.record)
    assert await record.counts() == await record.counts()
    mine, others = members(0, 7), members(1, 3)
    await first_batch(record, mine)
    await record.apply_plan(TOPIC, SHARD + 1, -1, 1, others)
    await record.project(STATUSES, SHARD, -1, 9, dispatched(mine[:5]))
    await store.insert(upstream_row("pending"))
    counts = await record.counts()
    assert {shard: n for shard, n in counts.waiting.items() if n} == {SHARD: 2, SHARD + 1: 3}
    assert {shard: n for shard, n in counts.dispatched.items() if n} == {SHARD: 5}
    assert counts.watermarks == {SHARD: {TOPIC: 0, STATUSES: 9}, SHARD + 1: {TOPIC: 1}}
