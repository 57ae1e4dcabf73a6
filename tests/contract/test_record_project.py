"""What every record promises about the statuses that are projected on it."""

import asyncio
import random
from dataclasses import replace
from uuid import uuid4

import msgspec
import pytest

from scheduler.activity import FINAL, Status, StatusChange
from scheduler.progress import latest_dispatched
from scheduler.timer import Timer
from schemas.times import LATEST_MS
from tests.contract.recording import (
    DUE_MS,
    SHARD,
    STATUSES,
    FullRecord,
    Store,
    dispatched,
    first_batch,
    members,
    planned,
    row_of,
    timer_of,
    upstream_row,
)

pytestmark = pytest.mark.timeout(60)


def by_id(timer: Timer) -> str:
    return timer.activity_id


async def test_marks_as_dispatched_and_moves_the_watermark(store: Store) -> None:
    first, second, third = activities = members(0, 3)
    await first_batch(store.record, activities)
    changes = [*dispatched([first], at_ms=DUE_MS + 7), *dispatched([third], at_ms=DUE_MS + 8)]
    assert await store.record.project(STATUSES, SHARD, -1, 4, changes)
    assert await store.record.watermark(STATUSES, SHARD) == 4
    rows = await store.rows()
    assert [rows[each.activity_id].status for each in activities] == [
        "dispatched",
        "scheduled",
        "dispatched",
    ]
    assert rows[first.activity_id].dispatched_at_ms == DUE_MS + 7
    assert rows[second.activity_id].dispatched_at_ms is None
    assert rows[third.activity_id].dispatched_at_ms == DUE_MS + 8


async def test_moves_without_changes(record: FullRecord) -> None:
    assert await record.project(STATUSES, SHARD, -1, 4, [])
    assert await record.watermark(STATUSES, SHARD) == 4


async def test_changes_nothing_when_the_watermark_is_elsewhere(store: Store) -> None:
    (activity,) = members(0, 1)
    await first_batch(store.record, [activity])
    assert not await store.record.project(STATUSES, SHARD, 3, 4, dispatched([activity]))
    assert await store.record.watermark(STATUSES, SHARD) == -1
    assert (await store.rows())[activity.activity_id] == row_of(activity)


async def test_unknown_ids_change_nothing(record: FullRecord) -> None:
    known = members(0, 1)
    await first_batch(record, known)
    strangers = [planned(0, member="stranger"), planned(0, own_id="of another kind")]
    assert await record.project(STATUSES, SHARD, -1, 4, dispatched([*strangers, *known]))
    assert (await record.overview()).dispatched == 1


@pytest.mark.parametrize(
    ("attempt", "at_ms"),
    [(0, DUE_MS), (256, DUE_MS), (2**40, DUE_MS), (1, -1), (1, LATEST_MS + 1), (1, 2**62)],
)
async def test_what_no_row_could_hold_changes_nothing(
    store: Store, attempt: int, at_ms: int
) -> None:
    """The engine never writes it; what somebody else wrote must not hold up the shard."""
    (activity,) = members(0, 1)
    await first_batch(store.record, [activity])
    changes = dispatched([activity], attempt, at_ms)
    assert await store.record.project(STATUSES, SHARD, -1, 4, changes)
    assert (await store.rows())[activity.activity_id] == row_of(activity)


async def test_of_doubles_the_last_attempt_counts(store: Store) -> None:
    (activity,) = members(0, 1)
    await first_batch(store.record, [activity])
    changes = [
        change for n in (1, 3, 3, 2) for change in dispatched([activity], n, at_ms=DUE_MS + n)
    ]
    assert await store.record.project(STATUSES, SHARD, -1, 4, changes)
    row = (await store.rows())[activity.activity_id]
    assert (row.status, row.attempt, row.dispatched_at_ms) == ("dispatched", 3, DUE_MS + 3)


@pytest.mark.parametrize("attempt", [1, 2, 3])
@pytest.mark.parametrize("status", list(Status))
async def test_never_goes_back(store: Store, status: Status, attempt: int) -> None:
    (activity,) = members(0, 1)
    row = upstream_row(
        activity.member_id,
        id=activity.activity_id,
        status=status,
        attempt=2,
        scheduled_for_ms=DUE_MS,
        dispatched_at_ms=DUE_MS,
    )
    await store.insert(row)
    changes = dispatched([activity], attempt, at_ms=DUE_MS + 1)
    assert await store.record.project(STATUSES, SHARD, -1, 4, changes)
    found = (await store.rows())[row.id]
    if attempt >= 2 and status in ("pending", "scheduled", "retrying"):
        assert (found.status, found.attempt) == ("dispatched", attempt)
        assert found.dispatched_at_ms == DUE_MS + 1
    elif attempt == 2 and status in FINAL:
        # What came of this very attempt was quicker than the projection.
        assert found == replace(row, dispatched_at_ms=DUE_MS + 1)
    else:
        assert found == row


@pytest.mark.parametrize("status", [each for each in Status if each != "dispatched"])
async def test_other_statuses_are_on_the_record_already(store: Store, status: Status) -> None:
    (activity,) = members(0, 1)
    await first_batch(store.record, [activity])
    change = StatusChange(activity.activity_id, status, 1, DUE_MS)
    assert await store.record.project(STATUSES, SHARD, -1, 4, [change])
    assert (await store.rows())[activity.activity_id] == row_of(activity)


def test_rows_are_changed_in_one_order() -> None:
    """Whoever changes several rows locks them by id, so that none waits for another in turn."""
    activities = members(0, 50)
    random.Random(1).shuffle(activities)
    ids = [change.activity_id for change in latest_dispatched(dispatched(activities))]
    assert ids == sorted(each.activity_id for each in activities)


async def test_projections_that_overlap_wait_for_each_other(record: FullRecord) -> None:
    """Rows of one shard in different orders: a deadlock would fail one of them."""
    activities = members(0, 200)
    await first_batch(record, activities)

    async def project(seed: int) -> bool:
        some = random.Random(seed).sample(activities, 150)
        return await record.project(f"statuses-{seed}", SHARD, -1, 0, dispatched(some))

    assert all(await asyncio.gather(*(project(seed) for seed in range(8))))


async def test_what_is_dispatched_is_awaited(store: Store) -> None:
    record = store.record
    activities = members(0, 7)
    await first_batch(record, activities)
    await record.project(STATUSES, SHARD, -1, 4, dispatched(activities[:5], at_ms=DUE_MS + 7))
    elsewhere = upstream_row("elsewhere", status=Status.DISPATCHED, dispatched_at_ms=DUE_MS)
    await store.insert(
        elsewhere,
        replace(elsewhere, id=str(uuid4()), member_id="there", source_partition=SHARD + 1),
    )
    async with record.snapshot(SHARD) as snapshot:
        chunks = [timers async for timers in snapshot.awaited(2)]
        unfired = [timer async for timers in snapshot.unfired(2) for timer in timers]
    assert [len(timers) for timers in chunks] == [2, 2, 1]
    expected = [
        msgspec.structs.replace(timer_of(each), due_ms=DUE_MS + 7) for each in activities[:5]
    ]
    found = [timer for timers in chunks for timer in timers]
    assert sorted(found, key=by_id) == sorted(expected, key=by_id)
    assert sorted(unfired, key=by_id) == sorted(map(timer_of, activities[5:]), key=by_id)
