"""What every record promises about rows that results and commands change."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from scheduler.activity import ActivityRow, RowChange, Status
from scheduler.adapters.memory_record import Row
from tests.contract.recording import (
    DUE_MS,
    SHARD,
    STATUSES,
    TOPIC,
    FullRecord,
    Store,
    dispatched,
    first_batch,
    members,
    planned,
    upstream_row,
)

pytestmark = pytest.mark.timeout(60)

RESULTS = "engagement-executed"
COMMANDS = "pod-commands"


async def read(record: FullRecord, *ids: str) -> list[ActivityRow]:
    found = await record.rows(ids)
    return [found[each] for each in ids]


def executed(row: ActivityRow, cause: int = 0, at_ms: int = DUE_MS + 5) -> RowChange:
    return RowChange(
        row=row,
        cause=cause,
        status=Status.EXECUTED,
        attempt=row.attempt,
        scheduled_for_ms=row.scheduled_for_ms,
        executed_at_ms=at_ms,
        counts=True,
    )


def retrying(row: ActivityRow, cause: int = 0) -> RowChange:
    return RowChange(
        row=row,
        cause=cause,
        status=Status.RETRYING,
        attempt=row.attempt + 1,
        scheduled_for_ms=DUE_MS + 30_000,
        last_error="it broke",
        failures='[{"attempt": 1}]',
    )


async def test_rows_are_read_as_they_are(store: Store) -> None:
    row = upstream_row(
        "m",
        status=Status.RETRYING,
        scheduled_for_ms=DUE_MS,
        attempt=2,
        source_partition=SHARD,
        source_offset=4,
        failures='[{"attempt": 1}]',
        result_offset=9,
    )
    await store.insert(row)
    (found,) = await read(store.record, row.id)
    assert replace_version(found) == ActivityRow(
        activity_id=row.id,
        pod_id="pod",
        post_id="post",
        member_id="m",
        engagement_type="like",
        status=Status.RETRYING,
        attempt=2,
        scheduled_for_ms=DUE_MS,
        shard=SHARD,
        result_offset=9,
        failures='[{"attempt": 1}]',
    )
    assert await store.record.rows(["not-a-uuid", str(uuid4())]) == {}


def replace_version(row: ActivityRow) -> ActivityRow:
    return ActivityRow(
        **{name: getattr(row, name) for name in row.__struct_fields__ if name != "version"}
    )


async def test_a_change_counts_the_member_and_moves_the_watermark(store: Store) -> None:
    first, second = members(0, 2)
    await first_batch(store.record, [first, second])
    row, other = await read(store.record, first.activity_id, second.activity_id)
    seen = await store.record.change(
        RESULTS, SHARD, -1, 7, [executed(row, 6), retrying(other, 7)], by="result"
    )
    assert seen == {TOPIC: 0}
    assert await store.record.watermark(RESULTS, SHARD) == 7
    rows = await store.rows()
    assert rows[first.activity_id].status is Status.EXECUTED
    assert rows[first.activity_id].executed_at_ms == DUE_MS + 5
    assert rows[first.activity_id].result_offset == 6
    retried = rows[second.activity_id]
    assert (retried.status, retried.attempt) == (Status.RETRYING, 2)
    assert retried.scheduled_for_ms == DUE_MS + 30_000
    assert (retried.last_error, retried.failures) == ("it broke", '[{"attempt": 1}]')
    assert await store.engagements(first.member_id) == 1
    assert await store.engagements(second.member_id) == 0


async def test_one_member_is_counted_for_each_engagement(store: Store) -> None:
    activities = [planned(0, member="m"), planned(0, member="m", kind="comment")]
    await first_batch(store.record, activities)
    rows = await read(store.record, *(each.activity_id for each in activities))
    changes = [executed(row) for row in rows]
    assert await store.record.change(RESULTS, SHARD, -1, 0, changes, by="result") is not None
    assert await store.engagements("m") == 2


@pytest.mark.parametrize("expected", [-1, 3, 5])
async def test_nothing_changes_when_the_watermark_is_elsewhere(store: Store, expected: int) -> None:
    (activity,) = members(0, 1)
    await first_batch(store.record, [activity])
    assert await store.record.change(RESULTS, SHARD, -1, 4, [], by="result") is not None
    (row,) = await read(store.record, activity.activity_id)
    assert (
        await store.record.change(RESULTS, SHARD, expected, 9, [executed(row)], by="result") is None
    )
    assert (await store.rows())[activity.activity_id].status is Status.SCHEDULED
    assert await store.engagements(activity.member_id) == 0
    assert await store.record.watermark(RESULTS, SHARD) == 4


async def test_nothing_changes_when_any_row_has_changed_since(store: Store) -> None:
    first, second = members(0, 2)
    await first_batch(store.record, [first, second])
    rows = await read(store.record, first.activity_id, second.activity_id)
    assert await store.record.project(STATUSES, SHARD, -1, 0, dispatched([second]))
    changes = [executed(row) for row in rows]
    assert await store.record.change(RESULTS, SHARD, -1, 0, changes, by="result") is None
    assert await store.record.watermark(RESULTS, SHARD) == -1
    assert (await store.rows())[first.activity_id].status is Status.SCHEDULED
    rows = await read(store.record, first.activity_id, second.activity_id)
    changes = [executed(row) for row in rows]
    assert await store.record.change(RESULTS, SHARD, -1, 0, changes, by="result") is not None


async def test_nothing_changes_when_a_row_is_gone(store: Store) -> None:
    (activity,) = members(0, 1)
    await first_batch(store.record, [activity])
    (row,) = await read(store.record, activity.activity_id)
    stranger = ActivityRow(
        **{name: getattr(row, name) for name in row.__struct_fields__}
        | {"activity_id": str(uuid4())}
    )
    changes = [executed(row), executed(stranger)]
    assert await store.record.change(RESULTS, SHARD, -1, 0, changes, by="result") is None
    assert (await store.rows())[activity.activity_id].status is Status.SCHEDULED


async def test_a_change_without_moving(store: Store) -> None:
    (activity,) = members(0, 1)
    await first_batch(store.record, [activity])
    (row,) = await read(store.record, activity.activity_id)
    assert (
        await store.record.change(COMMANDS, SHARD, -1, -1, [executed(row, 3)], by="command")
        is not None
    )
    assert await store.record.watermark(COMMANDS, SHARD) == -1
    found = (await store.rows())[activity.activity_id]
    assert (found.command_offset, found.result_offset) == (3, None)
    assert await store.record.change(COMMANDS, SHARD, -1, 5, [], by="command") is not None


async def test_an_upstream_row_gets_the_shard_and_no_offset(store: Store) -> None:
    row = upstream_row("m")
    await store.insert(row)
    (found,) = await read(store.record, row.id)
    assert found.shard is None
    change = RowChange(
        row=found, cause=2, status=Status.SCHEDULED, attempt=1, scheduled_for_ms=DUE_MS
    )
    assert await store.record.change(COMMANDS, SHARD, -1, 2, [change], by="command") is not None
    assert (await store.rows())[row.id] == replace(
        row,
        status=Status.SCHEDULED,
        scheduled_for_ms=DUE_MS,
        source_partition=SHARD,
        command_offset=2,
    )


async def test_what_is_further_on_is_not_read_back_for_its_event(store: Store) -> None:
    first, second, third = members(0, 3)
    await first_batch(store.record, [first, second, third])
    hastened, retried = await read(store.record, second.activity_id, third.activity_id)
    change = RowChange(
        row=hastened, cause=1, status=Status.SCHEDULED, attempt=1, scheduled_for_ms=DUE_MS - 9
    )
    assert await store.record.change(COMMANDS, SHARD, -1, 1, [change], by="command") is not None
    assert await store.record.change(RESULTS, SHARD, -1, 1, [retrying(retried)], by="result")
    found = await store.record.unfired_between(SHARD, -1, 0)
    assert {(each.activity_id, each.due_ms) for each in found} == {
        (first.activity_id, first.scheduled_for_ms),
        (second.activity_id, DUE_MS - 9),
    }


async def test_of_rivals_with_the_same_rows_one_wins(store: Store) -> None:
    activities = members(0, 20)
    await first_batch(store.record, activities)
    rows = await read(store.record, *(each.activity_id for each in activities))
    done = await asyncio.gather(
        *(
            store.record.change(
                topic, SHARD, -1, 0, [executed(row) for row in rows[:: step or 1]], by="result"
            )
            for topic, step in ((RESULTS, 1), (COMMANDS, -1), (RESULTS, -1), (COMMANDS, 1))
        )
    )
    assert sum(each is not None for each in done) == 1
    for each in activities:
        assert await store.engagements(each.member_id) == 1


async def test_awaited_are_the_dispatched(store: Store) -> None:
    first, second, third = members(0, 3)
    await first_batch(store.record, [first, second, third])
    assert await store.record.project(
        STATUSES, SHARD, -1, 0, dispatched([first, second], at_ms=DUE_MS + 1)
    )
    (row,) = await read(store.record, second.activity_id)
    assert await store.record.change(RESULTS, SHARD, -1, 0, [executed(row)], by="result") == {
        TOPIC: 0,
        STATUSES: 0,
    }
    async with store.record.snapshot(SHARD) as snapshot:
        found = [timer async for timers in snapshot.awaited(10) for timer in timers]
    assert [(each.activity_id, each.due_ms) for each in found] == [(first.activity_id, DUE_MS + 1)]


def test_versions_do_not_make_rows_differ() -> None:
    row = Row(id="a", pod_id="p", post_id="q", member_id="m", engagement_type="like", version=1)
    assert row == replace(row, version=2)
