"""What every record promises, whatever it is built on: plans, rows and counts."""

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from random import Random
from uuid import uuid4

import pytest

from scheduler.activity import PlannedActivity, PostPlan, Status
from scheduler.errors import DataRefusedError
from scheduler.stats import ActivityCounts
from schemas.ids import activity_id
from schemas.times import EARLIEST_MS, LATEST_MS, rfc3339
from tests.contract.recording import (
    DUE_MS,
    SHARD,
    STATUSES,
    TOPIC,
    FullRecord,
    Store,
    first_batch,
    members,
    planned,
    row_of,
    upstream_row,
)

pytestmark = pytest.mark.timeout(60)


async def test_inserts_rows_and_moves_the_watermark(store: Store) -> None:
    activities = [*members(5, 3), planned(7, kind="comment")]
    assert await store.record.watermark(TOPIC, SHARD) == -1
    await first_batch(store.record, activities, 9)
    assert await store.record.watermark(TOPIC, SHARD) == 9
    assert await store.rows() == {each.activity_id: row_of(each) for each in activities}


async def test_moves_one_watermark_only(record: FullRecord) -> None:
    await first_batch(record, [], 9)
    assert await record.watermark(TOPIC, SHARD + 1) == -1
    assert await record.watermark(STATUSES, SHARD) == -1


async def test_moves_without_activities(store: Store) -> None:
    await first_batch(store.record, [], 4)
    assert await store.record.apply_plan(TOPIC, SHARD, 4, 8, []) == frozenset()
    assert await store.record.watermark(TOPIC, SHARD) == 8
    assert await store.rows() == {}


@pytest.mark.parametrize("expected", [-1, 3, 5])
async def test_changes_nothing_when_the_watermark_is_elsewhere(store: Store, expected: int) -> None:
    await first_batch(store.record, [], 4)
    activities = members(6, 2)
    assert await store.record.apply_plan(TOPIC, SHARD, expected, 6, activities) is None
    assert await store.record.watermark(TOPIC, SHARD) == 4
    assert await store.rows() == {}


async def test_begins_at_the_beginning_only(store: Store) -> None:
    assert await store.record.apply_plan(TOPIC, SHARD, 0, 6, members(6, 2)) is None
    assert await store.record.watermark(TOPIC, SHARD) == -1
    assert await store.rows() == {}


async def test_tells_which_ids_were_there(store: Store) -> None:
    before = members(0, 3)
    await first_batch(store.record, before)
    new = members(1, 2)
    again = [planned(1, member=each.member_id, due_ms=1) for each in before[:2]]
    there = await store.record.apply_plan(TOPIC, SHARD, 0, 1, [*again, *new])
    assert there == frozenset(each.activity_id for each in again)
    assert await store.record.watermark(TOPIC, SHARD) == 1
    rows = await store.rows()
    assert rows == {each.activity_id: row_of(each) for each in [*before, *new]}


async def test_tells_what_was_there_under_another_id(store: Store) -> None:
    upstream = upstream_row("m")
    await store.insert(upstream)
    same, new = planned(0, member="m"), planned(0, member="n")
    there = await store.record.apply_plan(TOPIC, SHARD, -1, 0, [same, new])
    assert there == frozenset([same.activity_id])
    assert await store.rows() == {upstream.id: upstream, new.activity_id: row_of(new)}


async def test_conflicts_are_not_told_when_the_watermark_is_elsewhere(record: FullRecord) -> None:
    await first_batch(record, members(0, 2))
    assert await record.apply_plan(TOPIC, SHARD, -1, 0, members(0, 2)) is None


async def test_a_double_within_a_batch_is_inserted_once(store: Store) -> None:
    first, second = planned(0), planned(1, due_ms=5)
    assert await store.record.apply_plan(TOPIC, SHARD, -1, 1, [first, second]) == frozenset()
    assert await store.rows() == {first.activity_id: row_of(first)}


async def test_a_double_under_another_id_is_told(store: Store) -> None:
    first, second = planned(0), planned(0, own_id=str(uuid4()))
    there = await store.record.apply_plan(TOPIC, SHARD, -1, 0, [first, second])
    assert there == frozenset([second.activity_id])
    assert await store.rows() == {first.activity_id: row_of(first)}


@pytest.mark.parametrize(
    "poison",
    [
        planned(0, member="nul\0"),
        planned(0, member="unit\x1fseparator"),
        planned(0, own_id=str(uuid4()) + "\x1f" + str(uuid4())),
        planned(0, pod="lone \ud800 surrogate", own_id=str(uuid4())),
        planned(0, own_id="not-a-uuid"),
        planned(0, kind="share"),  # type: ignore[arg-type]
    ],
    ids=["nul", "separator", "two ids", "surrogate", "id", "type"],
)
async def test_refuses_a_batch_with_poison(store: Store, poison: PlannedActivity) -> None:
    good = members(0, 2)
    with pytest.raises(DataRefusedError) as refused:
        await store.record.apply_plan(TOPIC, SHARD, -1, 0, [good[0], poison, good[1]])
    assert len(str(refused.value)) < 500
    assert await store.rows() == {}
    assert await store.record.watermark(TOPIC, SHARD) == -1
    await first_batch(store.record, good)


async def test_takes_the_longest_ids_there_are(store: Store) -> None:
    random = Random(4)

    def longest() -> str:
        # Four bytes each, and nothing that could be compressed.
        return "".join(chr(random.randrange(0x10000, 0x110000)) for _ in range(200))

    activity = planned(0, pod=longest(), post=longest(), member=longest(), kind="comment")
    await first_batch(store.record, [activity])
    assert (await store.rows())[activity.activity_id] == row_of(activity)


async def test_keeps_every_millisecond(record: FullRecord) -> None:
    random = Random(5)
    times = [EARLIEST_MS, 1, LATEST_MS - 1, LATEST_MS, LATEST_MS + 365 * 86_400_000]
    times += [random.randint(EARLIEST_MS, LATEST_MS) for _ in range(2000)]
    activities = [planned(at, member=str(at), due_ms=ms) for at, ms in enumerate(times)]
    await first_batch(record, activities, len(times))
    timers = await record.unfired_between(SHARD, -1, len(times))
    assert [timer.due_ms for timer in timers] == times


@pytest.mark.parametrize("seed", range(3))
async def test_rivals_apply_everything_once(store: Store, seed: int) -> None:
    """Three writers over one log, each with batches and stale watermarks of its own."""
    log = [members(offset, 5) for offset in range(120)]
    losses = 0

    async def writer(random: Random) -> None:
        nonlocal losses
        at = -1
        while at < len(log) - 1:
            upto = min(at + random.randint(1, 9), len(log) - 1)
            rows = [row for event in log[at + 1 : upto + 1] for row in event]
            there = await store.record.apply_plan(TOPIC, SHARD, at, upto, rows)
            await asyncio.sleep(0)
            if there is None:
                losses += 1
                at = await store.record.watermark(TOPIC, SHARD)
            else:
                assert not there
                at = upto

    await asyncio.gather(*(writer(Random(3 * seed + n)) for n in range(3)))
    assert losses
    assert await store.record.watermark(TOPIC, SHARD) == len(log) - 1
    assert await store.rows() == {row.activity_id: row_of(row) for rows in log for row in rows}


async def test_a_post_without_activities_has_no_plan(record: FullRecord) -> None:
    await first_batch(record, members(0, 1))
    assert await record.plans(["another"]) == {}
    assert await record.plans([]) == {}


async def test_a_plan_tells_ids_and_times_of_likes(store: Store) -> None:
    likes = members(0, 4, post="a")[::-1]
    comment = planned(0, post="a", kind="comment")
    other = planned(0, post="b", kind="comment")
    await first_batch(store.record, [*likes, comment, other])
    assert await store.record.plans(["b", "a", "c", "a"]) == {
        "a": PostPlan(
            frozenset(each.activity_id for each in [*likes, comment]),
            tuple(DUE_MS + n for n in range(4)),
        ),
        "b": PostPlan(frozenset([other.activity_id])),
    }


async def test_pending_cancelled_and_expired_do_not_count_for_the_cap(store: Store) -> None:
    begin_ms = time.time_ns() // 1_000_000 + 3_600_000
    rows = [
        upstream_row(
            status,
            id=activity_id("pod", "post", status, "like"),
            status=status,
            scheduled_for_ms=begin_ms + number,
            source_partition=SHARD,
            source_offset=0,
        )
        for number, status in enumerate(Status)
    ]
    await store.insert(*rows)
    (plan,) = (await store.record.plans(["post"])).values()
    assert plan.activity_ids == {row.id for row in rows}
    assert plan.like_times_ms == tuple(begin_ms + number for number in range(1, 6))


async def test_what_was_cancelled_and_may_have_been_sent_counts_for_the_cap(store: Store) -> None:
    hour_ms = 3_600_000
    later_ms = time.time_ns() // 1_000_000 + hour_ms
    cancelled = partial(
        upstream_row, status=Status.CANCELLED, command_offset=1, updated_at_ms=hour_ms
    )
    await store.insert(
        cancelled("due", scheduled_for_ms=5_000),
        cancelled("sent", scheduled_for_ms=later_ms, dispatched_at_ms=later_ms + 1),
        cancelled("waiting", scheduled_for_ms=later_ms + 2),
        # Of that, too, nothing was sent, though its time has passed by now.
        cancelled("waited", scheduled_for_ms=2 * hour_ms),
        cancelled("never planned", scheduled_for_ms=8_000, command_offset=None),
        cancelled("comment", engagement_type="comment", scheduled_for_ms=6_000),
        upstream_row("expired", status=Status.EXPIRED, scheduled_for_ms=7_000),
    )
    (plan,) = (await store.record.plans(["post"])).values()
    assert plan.like_times_ms == (5_000, later_ms)


async def test_an_attempt_that_was_retried_still_counts_for_the_cap(store: Store) -> None:
    """Whatever has become of it since: it was sent, and stands in the history only."""
    history = (
        f'[{{"attempt": 1, "due": "{rfc3339(7)}", "error": "one"}},'
        f' {{"attempt": 2, "error": "two"}}, {{"attempt": 3, "due": "{rfc3339(1234)}"}}]'
    )
    rows = [
        upstream_row("a", status=Status.RETRYING, scheduled_for_ms=50, failures=history),
        upstream_row("b", status=Status.EXPIRED, scheduled_for_ms=60, failures=history),
        upstream_row("c", scheduled_for_ms=70, status=Status.EXECUTED),
        upstream_row("d", engagement_type="comment", status=Status.RETRYING, failures=history),
    ]
    await store.insert(*rows)
    (plan,) = (await store.record.plans(["post"])).values()
    assert plan.like_times_ms == (7, 7, 50, 70, 1234, 1234)


async def test_rows_of_an_upstream_system_count_under_the_planners_ids(store: Store) -> None:
    rows = [
        upstream_row("m"),
        upstream_row("m", pod_id="another"),
        upstream_row("n", engagement_type="comment"),
    ]
    await store.insert(*rows)
    ours = members(0, 1)
    await first_batch(store.record, ours)
    (plan,) = (await store.record.plans(["post"])).values()
    assert plan.activity_ids == {
        *(row.id for row in rows),
        *(activity_id(row.pod_id, "post", row.member_id, row.engagement_type) for row in rows),
        *(each.activity_id for each in ours),
    }
    assert plan.like_times_ms == (DUE_MS,)


async def test_counts(store: Store) -> None:
    await store.insert(
        *(
            upstream_row(status, status=status, pod_id=pod, post_id=f"post-{number}")
            for pod in ("a", "b")
            for at, status in enumerate(Status)
            for number in range(at + 1 if pod == "a" else 1)
        )
    )
    counts: Mapping[str, int] = {status.value: at + 1 for at, status in enumerate(Status)}
    assert await store.record.pod_stats("a") == ActivityCounts.of(counts)
    assert await store.record.overview() == ActivityCounts.of(
        {status: count + 1 for status, count in counts.items()}
    )
    assert (await store.record.overview()).total == 44


async def test_counts_of_nothing(record: FullRecord) -> None:
    await record.ping()
    assert await record.pod_stats("unknown") == ActivityCounts()
    assert await record.overview() == ActivityCounts()
