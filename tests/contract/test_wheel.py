"""What every timer wheel promises, whatever it is built on."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.adapters.redis_keys import ShardKeys
from scheduler.adapters.redis_wheel import MAX_LOAD, SLOT_MS, RedisWheel
from scheduler.errors import (
    FencedError,
    StoreUnavailableError,
    WheelBehindError,
    WheelLostError,
)
from scheduler.policy import OverduePolicy
from scheduler.ports import Claim, Wheel
from scheduler.settings import ENV_PREFIX
from scheduler.timer import Timer, pack
from schemas.ids import activity_id
from tests.fixtures.redis import flush

SHARD = 3
TOPIC, RESULTS = "post-detected", "engagement-executed"
EPOCH, GEN, NONCE = "epoch-1", "gen-1", "nonce-0"
HOUR_MS = 3_600_000

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def wheel(server: str | None) -> AsyncIterator[Wheel]:
    """Each wheel, open and empty, owned by EPOCH, at seq 0."""
    if server is None:
        twin = MemoryWheel()
        await opened(twin)
        yield twin
        return
    prefix = f"t{uuid4().hex}-"
    wheel = RedisWheel(server, prefix=prefix)
    await opened(wheel)
    yield wheel
    await wheel.close()
    await flush(server, prefix)


async def opened(wheel: Wheel, timers: list[Timer] | None = None, **watermarks: int) -> None:
    await wheel.take(SHARD, EPOCH)
    await wheel.wipe(SHARD, EPOCH)
    await wheel.load(SHARD, EPOCH, timers or [])
    await wheel.open(SHARD, EPOCH, GEN, (0, NONCE), watermarks)


def now() -> int:
    return time.time_ns() // 1_000_000


def timer(due_ms: int, **changes: Any) -> Timer:
    pod, post, member = (str(uuid4()) for _ in range(3))
    fields = {
        "activity_id": activity_id(pod, post, member, "like"),
        "pod_id": pod,
        "post_id": post,
        "member_id": member,
        "engagement_type": "like",
        "attempt": 1,
        "due_ms": due_ms,
    }
    return Timer(**{**fields, **changes})


def overdue(count: int) -> list[Timer]:
    at = now() - SLOT_MS - count * 137
    return [timer(at + i * 137) for i in range(count)]


async def claim(
    wheel: Wheel,
    done: tuple[int, str] = (0, NONCE),
    nonce: str = "nonce-1",
    limit: int = 1000,
    await_ms: int = HOUR_MS,
    overdue: OverduePolicy | None = None,
) -> Claim:
    return await wheel.claim(SHARD, EPOCH, GEN, done, nonce, limit, await_ms, overdue)


async def fired(wheel: Wheel, timers: list[Timer], await_ms: int = HOUR_MS) -> Claim:
    """Add `timers`, claim them and settle the batch; returns the claim that has settled it."""
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    batch = await claim(wheel)
    assert len(batch.timers) == len(timers)
    return await claim(wheel, (1, "nonce-1"), "nonce-2", await_ms=await_ms)


async def test_what_is_added_is_claimed_once_in_order_of_time(wheel: Wheel) -> None:
    timers = overdue(500)
    shuffled = random.Random(1).sample(timers, len(timers))
    assert await wheel.add(SHARD, TOPIC, -1, 41, shuffled) == 41
    first = await claim(wheel, limit=200)
    second = await claim(wheel, (first.seq, first.nonce), "nonce-2", limit=1000)
    third = await claim(wheel, (second.seq, second.nonce), "nonce-3")
    assert [first.seq, second.seq, third.seq] == [1, 2, 2]
    assert [*first.timers, *second.timers] == timers
    assert third.empty
    assert third.next_due_ms == second.now_ms + HOUR_MS  # the first batch's results


async def test_planned_timers_are_claimed_as_they_were(wheel: Wheel) -> None:
    due_ms = now() - 1000
    planned = [
        Timer(activity_id(pod, "post", "member", kind), pod, "post", "member", kind, 1, due_ms)
        for pod in (str(uuid4()), "a pod")
        for kind in ("like", "comment")
    ]
    assert await wheel.add(SHARD, TOPIC, -1, 0, planned, planned=True) == 0
    by_id = sorted((await claim(wheel)).timers, key=lambda each: each.activity_id)
    assert by_id == sorted(planned, key=lambda each: each.activity_id)


async def test_a_timer_is_never_claimed_early(wheel: Wheel) -> None:
    soon = [timer(now() + 200 + 5 * i) for i in range(20)]
    await wheel.add(SHARD, TOPIC, -1, 0, [*soon, timer(now() + HOUR_MS)])
    done = (0, NONCE)
    got: list[Timer] = []
    while len(got) < len(soon):
        batch = await claim(wheel, done, f"n{len(got)}")
        assert all(due.due_ms <= batch.now_ms for due in batch.timers)
        got += batch.timers
        done = (batch.seq, batch.nonce)
        assert batch.next_due_ms is not None
        if not batch.timers:
            # Nothing was due: the earliest one left must be in the future by the wheel's clock.
            assert batch.next_due_ms > batch.now_ms
    assert got == soon


async def test_next_due_is_the_earliest_timer_left(wheel: Wheel) -> None:
    far, near = timer(now() + 2 * HOUR_MS), timer(now() + HOUR_MS)
    await wheel.add(SHARD, TOPIC, -1, 0, [far, near, *overdue(3)])
    batch = await claim(wheel)
    assert batch.next_due_ms == near.due_ms
    assert (await claim(wheel, (batch.seq, batch.nonce))).next_due_ms == near.due_ms
    assert (await wheel.size(SHARD)).next_due_ms == near.due_ms


async def test_a_limit_leaves_the_rest_due(wheel: Wheel) -> None:
    timers = overdue(10)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    batch = await claim(wheel, limit=4)
    assert list(batch.timers) == timers[:4]
    assert batch.next_due_ms == timers[4].due_ms


async def test_an_unsettled_batch_is_handed_out_again_unchanged(wheel: Wheel) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, overdue(5))
    first = await claim(wheel)
    await wheel.add(SHARD, TOPIC, 0, 1, overdue(5))
    again = await claim(wheel, nonce="another")
    assert (again.seq, again.nonce, list(again.timers)) == (1, "nonce-1", list(first.timers))
    settled = await claim(wheel, (1, "nonce-1"), "nonce-2")
    assert settled.seq == 2
    assert len(settled.timers) == 5


async def test_a_batch_of_the_same_seq_but_another_nonce_is_a_rollback(wheel: Wheel) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, overdue(5))
    await claim(wheel)
    with pytest.raises(WheelLostError, match="back in time"):
        await claim(wheel, (1, "of-another-life"), "nonce-2")


@pytest.mark.parametrize("done", [7, -1])
async def test_a_cursor_that_does_not_fit_is_a_rollback(wheel: Wheel, done: int) -> None:
    with pytest.raises(WheelLostError):
        await claim(wheel, (done, NONCE))


async def test_a_new_epoch_fences_the_former_owner(wheel: Wheel) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, overdue(5))
    batch = await claim(wheel)
    state = await wheel.take(SHARD, "epoch-2")
    assert (state.gen, state.seq, state.nonce) == (GEN, batch.seq, batch.nonce)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: claim(wheel, (batch.seq, batch.nonce)),
        lambda: wheel.wipe(SHARD, EPOCH),
        lambda: wheel.load(SHARD, EPOCH, overdue(1)),
        lambda: wheel.load_awaited(SHARD, EPOCH, overdue(1)),
        lambda: wheel.open(SHARD, EPOCH, "gen-2", (1, "n"), {}),
    ]
    for call in calls:
        with pytest.raises(FencedError):
            await call()
    assert (await wheel.size(SHARD)).gen == GEN
    again = await wheel.claim(SHARD, "epoch-2", GEN, (0, NONCE), "x", 10, HOUR_MS)
    assert list(again.timers) == list(batch.timers)


async def test_the_watermark_is_compared_and_swapped(wheel: Wheel) -> None:
    assert await wheel.watermark(SHARD, TOPIC) == -1
    assert await wheel.add(SHARD, TOPIC, -1, 10, overdue(3)) == 10
    assert await wheel.add(SHARD, TOPIC, -1, 12, overdue(3)) == 10
    assert await wheel.add(SHARD, TOPIC, 9, 12, overdue(3)) == 10
    assert await wheel.watermark(SHARD, TOPIC) == 10
    assert (await wheel.size(SHARD)).pending == 3
    assert await wheel.add(SHARD, TOPIC, 10, 12, []) == 12
    assert await wheel.add(SHARD, "another", -1, 5, []) == 5
    assert (await wheel.size(SHARD)).watermarks == {TOPIC: 12, "another": 5}


async def test_a_watermark_never_goes_back(wheel: Wheel) -> None:
    await wheel.add(SHARD, TOPIC, -1, 10, [])
    with pytest.raises(ValueError, match="never goes back"):
        await wheel.add(SHARD, TOPIC, 10, 9, overdue(1))
    assert await wheel.watermark(SHARD, TOPIC) == 10
    assert (await wheel.size(SHARD)).pending == 0


async def test_writers_that_race_add_each_timer_once(wheel: Wheel) -> None:
    timers = overdue(300)

    async def writer(seed: int) -> None:
        rng = random.Random(seed)
        while (at := await wheel.watermark(SHARD, TOPIC)) < len(timers) - 1:
            upto = min(at + rng.randint(1, 20), len(timers) - 1)
            await asyncio.sleep(0)
            await wheel.add(SHARD, TOPIC, at, upto, timers[at + 1 : upto + 1])

    await asyncio.gather(*(writer(seed) for seed in range(4)))
    assert (await wheel.size(SHARD)).pending == len(timers)
    assert list((await claim(wheel)).timers) == timers


async def test_nothing_works_without_a_generation(wheel: Wheel) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, overdue(5))
    await wheel.forget(SHARD)
    with pytest.raises(WheelLostError):
        await wheel.watermark(SHARD, TOPIC)
    with pytest.raises(WheelLostError):
        await wheel.add(SHARD, TOPIC, 0, 1, overdue(1))
    with pytest.raises(WheelLostError):
        await claim(wheel)
    assert (await wheel.take(SHARD, "epoch-2")).gen is None


async def test_a_claim_for_another_generation_is_refused(wheel: Wheel) -> None:
    with pytest.raises(WheelLostError, match="generation"):
        await wheel.claim(SHARD, EPOCH, "gen-of-before", (0, NONCE), "n", 10, HOUR_MS)


async def test_an_owner_learns_that_everything_is_gone(wheel: Wheel) -> None:
    never_opened = SHARD + 1
    with pytest.raises(WheelLostError):
        await wheel.claim(never_opened, EPOCH, GEN, (0, NONCE), "n", 10, HOUR_MS)
    with pytest.raises(WheelLostError):
        await wheel.wipe(never_opened, EPOCH)


async def test_a_rebuild_replaces_all_there_was(wheel: Wheel) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, [*overdue(2000), timer(now() + HOUR_MS)])
    await claim(wheel)
    await wheel.wipe(SHARD, EPOCH)
    with pytest.raises(WheelLostError):
        await wheel.add(SHARD, TOPIC, 0, 1, overdue(1))
    with pytest.raises(WheelLostError):
        await claim(wheel)
    loaded = overdue(MAX_LOAD + 7)
    await wheel.load(SHARD, EPOCH, loaded)
    await wheel.open(SHARD, EPOCH, "gen-2", (9, "n9"), {TOPIC: 77})
    size = await wheel.size(SHARD)
    assert (size.gen, size.pending, size.in_flight) == ("gen-2", len(loaded), 0)
    assert await wheel.watermark(SHARD, TOPIC) == 77
    batch = await wheel.claim(SHARD, EPOCH, "gen-2", (9, "n9"), "n10", 20_000, HOUR_MS)
    assert batch.seq == 10
    assert list(batch.timers) == loaded


async def test_a_rebuild_that_died_half_way_can_begin_again(wheel: Wheel) -> None:
    await wheel.wipe(SHARD, EPOCH)
    await wheel.load(SHARD, EPOCH, overdue(100))
    await wheel.take(SHARD, "epoch-2")
    await wheel.wipe(SHARD, "epoch-2")
    loaded = overdue(10)
    await wheel.load(SHARD, "epoch-2", loaded)
    await wheel.open(SHARD, "epoch-2", "gen-2", (0, "n"), {})
    batch = await wheel.claim(SHARD, "epoch-2", "gen-2", (0, "n"), "m", 1000, HOUR_MS)
    assert list(batch.timers) == loaded


async def test_an_open_wheel_cannot_be_loaded(wheel: Wheel) -> None:
    with pytest.raises(WheelLostError, match="open"):
        await wheel.load(SHARD, EPOCH, overdue(1))
    with pytest.raises(WheelLostError, match="open"):
        await wheel.load_awaited(SHARD, EPOCH, overdue(1))


async def test_any_id_survives_the_wheel(wheel: Wheel) -> None:
    at = now() - 1000
    odd = [
        timer(at, activity_id=str(uuid4())),
        timer(at + 1, pod_id="pod-1", activity_id=str(uuid4())),
        timer(at + 2, member_id="Jürgen 🦊", engagement_type="comment", activity_id="own"),
        timer(at + 3, post_id=str(uuid4()).upper(), attempt=3, activity_id=str(uuid4())),
        timer(at + 4, post_id="x" * 200, attempt=255, activity_id=str(uuid4())),
    ]
    await wheel.add(SHARD, TOPIC, -1, 0, odd)
    assert list((await claim(wheel)).timers) == odd


async def test_the_size_counts_pending_and_in_flight(wheel: Wheel) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, [*overdue(5), timer(now() + HOUR_MS)])
    assert (await wheel.size(SHARD)).pending == 6
    batch = await claim(wheel)
    size = await wheel.size(SHARD)
    assert (size.pending, size.in_flight) == (1, 5)
    await claim(wheel, (batch.seq, batch.nonce))
    assert (await wheel.size(SHARD)).in_flight == 0


async def test_an_earlier_timer_wakes_the_sleeping_owner(wheel: Wheel) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, [timer(now() + 2 * HOUR_MS)])
    await claim(wheel)  # sleeps until then
    async with wheel.wakes([SHARD]) as heard:
        await wheel.add(SHARD, TOPIC, 0, 1, [timer(now() + 3 * HOUR_MS)])  # later: no wake
        await wheel.add(SHARD, TOPIC, 1, 2, [timer(now() + HOUR_MS)])
        assert await anext(heard) == SHARD
        await wheel.forget(SHARD)
        assert await anext(heard) == SHARD


async def test_whoever_finds_no_wheel_wakes_its_owner(wheel: Wheel) -> None:
    await wheel.forget(SHARD)
    async with wheel.wakes([SHARD]) as heard:
        with pytest.raises(WheelLostError):
            await wheel.watermark(SHARD, TOPIC)
        assert await anext(heard) == SHARD
        with pytest.raises(WheelLostError):
            await wheel.add(SHARD, TOPIC, -1, 0, [timer(now())])
        assert await anext(heard) == SHARD


async def test_large_adds_are_whole(wheel: Wheel) -> None:
    at = now() - HOUR_MS
    one_slot = [timer(at - at % SLOT_MS + i % 5000) for i in range(6000)]
    spread = [timer(at + SLOT_MS * (1 + i)) for i in range(300)]
    await wheel.add(SHARD, TOPIC, -1, 0, [*one_slot, *spread])
    batch = await claim(wheel, limit=10_000)
    assert len(batch.timers) == 6300
    assert {t.activity_id for t in batch.timers} == {t.activity_id for t in one_slot + spread}
    assert all(a.due_ms <= b.due_ms for a, b in pairwise(batch.timers))


async def test_the_clock_is_the_one_that_claims_go_by(wheel: Wheel) -> None:
    before = await wheel.now_ms()
    during = (await claim(wheel)).now_ms
    assert before <= during <= await wheel.now_ms()
    assert abs(before - now()) < HOUR_MS


async def test_results_are_awaited_from_the_settling_on(wheel: Wheel) -> None:
    timers = overdue(5)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    batch = await claim(wheel)
    again = await claim(wheel, nonce="another", await_ms=0)
    assert list(again.timers) == list(batch.timers)
    assert (await wheel.size(SHARD)).awaited == 0  # it may not have been sent yet
    settled = await claim(wheel, (1, "nonce-1"), "nonce-2")
    size = await wheel.size(SHARD)
    assert (settled.empty, size.awaited, size.in_flight, size.pending) == (True, 5, 0, 0)
    assert settled.next_due_ms == size.next_due_ms == settled.now_ms + HOUR_MS
    await claim(wheel, (1, "nonce-1"), "nonce-2", await_ms=0)  # there is nothing left to settle
    assert (await wheel.size(SHARD)).awaited == 5


async def test_a_result_that_does_not_come_is_a_timeout(wheel: Wheel) -> None:
    timers = overdue(5)
    late = await fired(wheel, timers, await_ms=0)
    assert not late.timers
    assert {each.due_ms for each in late.timeouts} == {late.now_ms}
    assert {pack(each) for each in late.timeouts} == {pack(each) for each in timers}
    size = await wheel.size(SHARD)
    assert (late.seq, size.in_flight, size.awaited, size.pending) == (2, 5, 0, 0)
    again = await claim(wheel, (1, "nonce-1"), "another", await_ms=0)
    assert (again.seq, again.nonce) == (2, "nonce-2")
    assert list(again.timeouts) == list(late.timeouts)
    # A deadline that has come is not awaited again.
    last = await claim(wheel, (2, "nonce-2"), "nonce-3", await_ms=0)
    size = await wheel.size(SHARD)
    assert (last.empty, last.seq, last.next_due_ms) == (True, 2, None)
    assert (size.in_flight, size.awaited) == (0, 0)


async def test_a_timeout_is_never_early(wheel: Wheel) -> None:
    settled = await fired(wheel, overdue(3), await_ms=150)
    deadline = settled.now_ms + 150
    assert settled.empty
    while (batch := await claim(wheel, (1, "nonce-1"), "nonce-2")).empty:
        assert batch.now_ms < deadline
        assert batch.next_due_ms == deadline
    assert batch.now_ms >= deadline
    assert [each.due_ms for each in batch.timeouts] == [deadline] * 3


async def test_what_is_due_goes_before_what_is_late_but_for_an_eighth(wheel: Wheel) -> None:
    await fired(wheel, overdue(4))
    await wheel.wipe(SHARD, EPOCH)
    late, due = overdue(6), overdue(18)
    await wheel.load_awaited(SHARD, EPOCH, late)
    await wheel.load(SHARD, EPOCH, due)
    await wheel.open(SHARD, EPOCH, GEN, (0, NONCE), {})
    first = await claim(wheel, limit=16)
    assert (list(first.timers), list(first.timeouts)) == (due[:14], late[:2])
    assert first.next_due_ms == min(late[2].due_ms, due[14].due_ms)
    second = await claim(wheel, (1, "nonce-1"), "nonce-2", limit=3)
    assert (list(second.timers), list(second.timeouts)) == (due[14:16], late[2:3])
    third = await claim(wheel, (2, "nonce-2"), "nonce-3", limit=1)
    assert (list(third.timers), list(third.timeouts)) == (due[16:17], [])
    fourth = await claim(wheel, (3, "nonce-3"), "nonce-4", limit=16)
    assert (list(fourth.timers), list(fourth.timeouts)) == (due[17:], late[3:])
    assert (await wheel.size(SHARD)).awaited == 17  # those of the first three batches


async def test_nothing_is_kept_for_deadlines_where_none_has_come(wheel: Wheel) -> None:
    await fired(wheel, overdue(4))
    due = overdue(18)
    await wheel.add(SHARD, TOPIC, 0, 1, due)
    claimed = await claim(wheel, (1, "nonce-1"), "nonce-2", limit=16)
    assert (list(claimed.timers), list(claimed.timeouts)) == (due[:16], [])


async def test_a_result_ends_the_waiting_for_it(wheel: Wheel) -> None:
    timers = overdue(5)
    await fired(wheel, timers)
    # Wherever its row says that it was due: it is found without the time.
    done = [timers[0], replace(timers[3], due_ms=now() + HOUR_MS)]
    assert await wheel.add(SHARD, RESULTS, -1, 6, [], remove=done) == 6
    assert (await wheel.size(SHARD)).awaited == 3
    # The next attempt of the same activity is another timer.
    retried = replace(timers[1], attempt=2, due_ms=now() - 5)
    await wheel.add(SHARD, RESULTS, 6, 7, [retried], remove=[timers[1]])
    size = await wheel.size(SHARD)
    assert (size.awaited, size.pending) == (2, 1)
    assert list((await claim(wheel, (1, "nonce-1"), "nonce-2")).timers) == [retried]


async def test_what_is_removed_from_its_slot_never_fires(wheel: Wheel) -> None:
    far, near, same_slot = (
        timer(now() + 3 * HOUR_MS),
        timer(now() + HOUR_MS),
        timer(now() + 3 * HOUR_MS),
    )
    due = overdue(4)
    await wheel.add(SHARD, TOPIC, -1, 0, [far, near, same_slot, *due])
    await wheel.add(SHARD, RESULTS, -1, 0, [], remove=[near, same_slot, due[1]])
    size = await wheel.size(SHARD)
    assert (size.pending, size.awaited, size.due) == (4, 0, 3)
    batch = await claim(wheel)
    assert list(batch.timers) == [due[0], *due[2:]]
    assert batch.next_due_ms == far.due_ms
    await wheel.add(SHARD, RESULTS, 0, 1, [], remove=[far])
    settled = await claim(wheel, (1, "nonce-1"))
    assert settled.next_due_ms == settled.now_ms + HOUR_MS
    size = await wheel.size(SHARD)
    assert (size.pending, size.awaited) == (0, 3)


async def test_a_result_may_come_while_its_batch_is_in_flight(wheel: Wheel) -> None:
    timers = overdue(3)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    batch = await claim(wheel)
    await wheel.add(SHARD, RESULTS, -1, 0, [], remove=[timers[1]])
    assert list((await claim(wheel)).timers) == list(batch.timers)  # it is out of reach
    await claim(wheel, (1, "nonce-1"), "nonce-2")
    assert (await wheel.size(SHARD)).awaited == 2
    # That counted for the one batch; the same timer, fired once more, would be awaited.
    await wheel.add(SHARD, TOPIC, 0, 1, [timers[1]])
    await claim(wheel, (1, "nonce-1"), "nonce-2")
    await claim(wheel, (2, "nonce-2"), "nonce-3")
    assert (await wheel.size(SHARD)).awaited == 3


async def test_removing_what_is_not_there_changes_nothing(wheel: Wheel) -> None:
    timers = overdue(2)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    absent = [timer(timers[0].due_ms), timer(now() + HOUR_MS), timer(timers[1].due_ms + 1)]
    assert await wheel.add(SHARD, RESULTS, -1, 0, [], remove=absent) == 0
    assert (await wheel.size(SHARD)).pending == 2
    # Nor does it for one of them that comes later.
    await wheel.add(SHARD, TOPIC, 0, 1, absent[2:])
    assert list((await claim(wheel)).timers) == [*timers, *absent[2:]]
    await claim(wheel, (1, "nonce-1"), "nonce-2")
    assert (await wheel.size(SHARD)).awaited == 3


async def test_a_timer_that_waits_can_be_moved(wheel: Wheel) -> None:
    waiting, other = timer(now() + HOUR_MS), timer(now() + HOUR_MS)
    await wheel.add(SHARD, TOPIC, -1, 0, [waiting, other])
    await claim(wheel)  # sleeps until then
    at_once = replace(waiting, due_ms=now() - 3)
    async with wheel.wakes([SHARD]) as heard:
        await wheel.add(SHARD, RESULTS, -1, 0, [at_once], remove=[waiting])
        assert await anext(heard) == SHARD
    size = await wheel.size(SHARD)
    assert (size.pending, size.due) == (2, 1)
    batch = await claim(wheel)
    assert list(batch.timers) == [at_once]
    assert batch.next_due_ms == other.due_ms


async def test_a_timer_that_no_longer_waits_is_not_moved(wheel: Wheel) -> None:
    claimed, awaited = overdue(2)
    await wheel.wipe(SHARD, EPOCH)
    await wheel.load(SHARD, EPOCH, [claimed])
    await wheel.load_awaited(SHARD, EPOCH, [replace(awaited, due_ms=now() + HOUR_MS)])
    await wheel.open(SHARD, EPOCH, GEN, (0, NONCE), {})
    await claim(wheel)
    moved = [replace(each, due_ms=each.due_ms + 7) for each in (claimed, awaited)]
    assert await wheel.add(SHARD, RESULTS, -1, 0, moved, remove=[claimed, awaited]) == 0
    assert (await wheel.size(SHARD)).pending == 0
    assert (await claim(wheel, (1, "nonce-1"), "nonce-2")).empty
    assert (await wheel.size(SHARD)).awaited == 2  # both are on their way as before


async def test_an_input_waits_for_what_it_follows_from(wheel: Wheel) -> None:
    planned = timer(now() + HOUR_MS)
    for least in ({TOPIC: 4}, {"another": 0}, {"another": -1, TOPIC: 4}):
        with pytest.raises(WheelBehindError):
            await wheel.add(SHARD, RESULTS, -1, 9, overdue(1), remove=[planned], after=least)
    assert await wheel.watermark(SHARD, RESULTS) == -1
    await wheel.add(SHARD, TOPIC, -1, 3, [planned])
    with pytest.raises(WheelBehindError, match=TOPIC):
        await wheel.add(SHARD, RESULTS, -1, 9, overdue(1), remove=[planned], after={TOPIC: 4})
    assert (await wheel.size(SHARD)).pending == 1
    # Who comes second has nothing to wait for.
    assert await wheel.add(SHARD, TOPIC, 1, 9, overdue(1), after={TOPIC: 99}) == 3
    await wheel.add(SHARD, TOPIC, 3, 4, [])
    reached = {TOPIC: 4, "another": -1}
    assert await wheel.add(SHARD, RESULTS, -1, 9, [], remove=[planned], after=reached) == 9
    assert (await wheel.size(SHARD)).pending == 0


async def test_an_input_may_change_the_wheel_in_several_steps(wheel: Wheel) -> None:
    first, second = overdue(2)
    assert await wheel.add(SHARD, RESULTS, -1, -1, [first]) == -1
    assert (await wheel.size(SHARD)).watermarks == {}
    assert await wheel.add(SHARD, RESULTS, -1, 5, [second]) == 5
    assert await wheel.add(SHARD, RESULTS, 5, 5, [], remove=[first]) == 5
    assert await wheel.add(SHARD, RESULTS, 4, 4, [first]) == 5
    assert (await wheel.size(SHARD)).watermarks == {RESULTS: 5}
    assert list((await claim(wheel)).timers) == [second]


async def test_a_rebuild_replaces_what_was_awaited(wheel: Wheel) -> None:
    timers = overdue(5)
    await fired(wheel, timers[:2])
    await wheel.add(SHARD, TOPIC, 0, 1, timers[2:])
    await claim(wheel, (1, "nonce-1"), "nonce-2")
    await wheel.add(SHARD, RESULTS, -1, 0, [], remove=[timers[2]])  # in the claimed batch
    await wheel.wipe(SHARD, EPOCH)
    assert (await wheel.size(SHARD)).awaited == 0
    at = now() - HOUR_MS
    late = [timer(at + i) for i in range(MAX_LOAD + 7)]
    open_yet = [replace(each, due_ms=now() + HOUR_MS) for each in (timers[2], timers[4])]
    await wheel.load_awaited(SHARD, EPOCH, late)
    await wheel.load_awaited(SHARD, EPOCH, open_yet)
    await wheel.load_awaited(SHARD, EPOCH, [])
    await wheel.load(SHARD, EPOCH, [timers[3]])
    await wheel.open(SHARD, EPOCH, GEN, (0, NONCE), {})
    size = await wheel.size(SHARD)
    assert (size.pending, size.awaited) == (1, len(late) + 2)
    batch = await claim(wheel, limit=20_000)
    assert (list(batch.timers), list(batch.timeouts)) == ([timers[3]], late)
    assert batch.next_due_ms == open_yet[0].due_ms
    await claim(wheel, (1, "nonce-1"), "nonce-2")
    assert (await wheel.size(SHARD)).awaited == 3


async def test_a_large_batch_is_awaited_whole(wheel: Wheel) -> None:
    at = now() - HOUR_MS
    one_slot = [timer(at - at % SLOT_MS + i % 5000) for i in range(6001)]
    spread = [timer(at + SLOT_MS * (1 + i)) for i in range(300)]
    await wheel.add(SHARD, TOPIC, -1, 0, [*one_slot, *spread])
    await claim(wheel, limit=10_000)
    answered = [*one_slot[:4500], *spread[:10]]
    await wheel.add(SHARD, RESULTS, -1, 0, [], remove=answered)
    late = await claim(wheel, (1, "nonce-1"), "nonce-2", limit=10_000, await_ms=0)
    rest = [*one_slot[4500:], *spread[10:]]
    assert len(late.timeouts) == len(rest)
    assert {pack(each) for each in late.timeouts} == {pack(each) for each in rest}


async def test_the_size_tells_what_is_due(wheel: Wheel) -> None:
    timers = overdue(300)
    await wheel.add(SHARD, TOPIC, -1, 0, [*timers, timer(now() + HOUR_MS)])
    size = await wheel.size(SHARD)
    assert (size.pending, size.due) == (301, 300)
    await claim(wheel)
    size = await wheel.size(SHARD)
    assert (size.pending, size.due) == (1, 0)


async def test_of_the_slot_that_has_begun_only_the_beginning_is_due(wheel: Wheel) -> None:
    while True:
        # Both in the slot of this moment; again, where it ends before we have looked.
        at = await wheel.now_ms()
        begin, end = timer(at - at % SLOT_MS), timer(at - at % SLOT_MS + SLOT_MS - 1)
        await wheel.wipe(SHARD, EPOCH)
        await wheel.load(SHARD, EPOCH, [begin, end])
        size = await wheel.size(SHARD)
        if await wheel.now_ms() < end.due_ms:
            break
    assert (size.pending, size.due) == (2, 1)


async def test_deadlines_are_what_the_owner_sleeps_until(wheel: Wheel) -> None:
    await fired(wheel, overdue(1))  # sleeps until the deadline, in an hour
    async with wheel.wakes([SHARD, SHARD + 1]) as heard:
        await wheel.add(SHARD, TOPIC, 0, 1, [timer(now() + 2 * HOUR_MS)])  # later: no wake
        await wheel.forget(SHARD + 1)
        assert await anext(heard) == SHARD + 1
        await wheel.add(SHARD, TOPIC, 1, 2, [timer(now() + HOUR_MS // 2)])
        assert await anext(heard) == SHARD


POSTPONE = OverduePolicy("postpone", 60_000)
EXPIRE = OverduePolicy("expire", 60_000)


def late(count: int, by_ms: int = HOUR_MS) -> list[Timer]:
    """Overdue, a second apart, the first by `by_ms`."""
    at = now() - by_ms
    return [timer(at + i * 1000) for i in range(count)]


@pytest.mark.parametrize("policy", [POSTPONE, EXPIRE])
async def test_overdue_timers_are_told_of_and_not_fired(
    wheel: Wheel, policy: OverduePolicy
) -> None:
    too_late, due = late(4), overdue(3)
    await wheel.add(SHARD, TOPIC, -1, 0, [*due, *too_late, timer(now() + HOUR_MS)])
    batch = await claim(wheel, limit=6, overdue=policy)
    assert (list(batch.timers), list(batch.overdue)) == (due[:2], too_late)
    if policy is POSTPONE:
        assert batch.shift_ms == batch.now_ms - too_late[0].due_ms
    else:
        assert batch.shift_ms is None
    size = await wheel.size(SHARD)
    assert (size.pending, size.due, size.held, size.in_flight) == (6, 1, 4, 2)
    # After a crash it is the same batch, whatever the policy is by then.
    for other in (policy, None, POSTPONE, EXPIRE):
        again = await claim(wheel, nonce="another", overdue=other)
        assert (again.seq, again.nonce) == (1, "nonce-1")
        assert (list(again.timers), list(again.overdue)) == (due[:2], too_late)
        assert again.shift_ms == batch.shift_ms
    rest = await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=policy)
    assert (list(rest.timers), list(rest.overdue)) == (due[2:], [])
    assert (await claim(wheel, (2, "nonce-2"), "nonce-3", overdue=policy)).empty
    # They wait until they are moved or removed; nobody awaits a result of them.
    size = await wheel.size(SHARD)
    assert (size.pending, size.held, size.in_flight, size.awaited) == (5, 4, 0, 3)


async def test_without_a_policy_the_latest_timer_fires(wheel: Wheel) -> None:
    timers = [*late(3), *overdue(3)]
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    batch = await claim(wheel)
    assert (list(batch.timers), list(batch.overdue)) == (timers, [])


async def test_what_is_as_late_as_allowed_fires(wheel: Wheel) -> None:
    timers = late(3, HOUR_MS)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    at = await wheel.now_ms()
    allowed = OverduePolicy("expire", at - timers[0].due_ms + HOUR_MS)
    assert list((await claim(wheel, overdue=allowed)).timers) == timers


async def test_of_one_slot_only_the_beginning_may_be_overdue(wheel: Wheel) -> None:
    at = await wheel.now_ms()
    begin = at - at % SLOT_MS - HOUR_MS
    first, second, third = (timer(begin + after_ms) for after_ms in (0, 1, SLOT_MS - 1))
    await wheel.add(SHARD, TOPIC, -1, 0, [third, second, first])
    # Before the second half of that slot; the call may take as long as the rest of it.
    policy = OverduePolicy("expire", at - (begin + SLOT_MS // 2))
    batch = await claim(wheel, overdue=policy)
    assert (list(batch.timers), list(batch.overdue)) == ([third], [first, second])
    size = await wheel.size(SHARD)
    assert (size.pending, size.held, size.in_flight) == (2, 2, 1)
    await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=policy)
    assert (await wheel.size(SHARD)).awaited == 1


@pytest.mark.parametrize("policy", [POSTPONE, EXPIRE])
async def test_only_overdue_timers_make_a_batch(wheel: Wheel, policy: OverduePolicy) -> None:
    timers = late(4)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    first = await claim(wheel, limit=3, overdue=policy)
    assert (first.empty, list(first.timers), list(first.overdue)) == (False, [], timers[:3])
    assert first.next_due_ms == timers[3].due_ms
    second = await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=policy)
    assert list(second.overdue) == timers[3:]
    assert second.next_due_ms is None
    assert (await wheel.size(SHARD)).next_due_ms is None


async def test_all_of_one_backlog_have_one_shift(wheel: Wheel) -> None:
    timers = late(5)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    first = await claim(wheel, limit=2, overdue=POSTPONE)
    second = await claim(wheel, (1, "nonce-1"), "nonce-2", limit=2, overdue=POSTPONE)
    third = await claim(wheel, (2, "nonce-2"), "nonce-3", limit=2, overdue=POSTPONE)
    assert first.shift_ms == second.shift_ms == third.shift_ms == first.now_ms - timers[0].due_ms
    # A claim that finds none overdue ends it: the next one began after the last batch.
    assert (await claim(wheel, (3, "nonce-3"), "nonce-4", overdue=POSTPONE)).empty
    await wheel.add(SHARD, TOPIC, 0, 1, late(1, 2 * HOUR_MS))
    next_one = await claim(wheel, (3, "nonce-3"), "nonce-4", overdue=POSTPONE)
    assert next_one.shift_ms == next_one.now_ms - third.now_ms


async def test_a_rebuilt_wheel_knows_when_the_last_batch_was(wheel: Wheel) -> None:
    """Else one timer that is later than the outage would move all by its own lateness."""
    last_ms = await wheel.now_ms() - 1000
    [one] = late(1)
    assert await backlog_began_ms(wheel, one, last_ms) == last_ms
    assert await backlog_began_ms(wheel, one, 0) == one.due_ms
    # Never ahead of the wheel's own clock: then it is the moment of the opening.
    assert last_ms < await backlog_began_ms(wheel, one, 2**52) <= await wheel.now_ms()


async def backlog_began_ms(wheel: Wheel, late: Timer, last_ms: int) -> int:
    """From when on time has stood still for a wheel that is rebuilt, and holds `late`."""
    await wheel.wipe(SHARD, EPOCH)
    await wheel.load(SHARD, EPOCH, [late])
    await wheel.open(SHARD, EPOCH, GEN, (0, NONCE), {}, last_ms=last_ms)
    batch = await claim(wheel, overdue=POSTPONE)
    assert batch.shift_ms is not None
    return batch.now_ms - batch.shift_ms


async def test_an_outage_within_a_backlog_is_added_to_its_shift(wheel: Wheel) -> None:
    timers = late(3)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    first = await claim(wheel, limit=1, overdue=POSTPONE)
    assert first.shift_ms is not None
    strict = OverduePolicy("postpone", 1)
    while await wheel.now_ms() <= first.now_ms + strict.after_ms:
        pass
    second = await claim(wheel, (1, "nonce-1"), "nonce-2", limit=1, overdue=strict)
    assert second.shift_ms == first.shift_ms + second.now_ms - first.now_ms
    again = await claim(wheel, (1, "nonce-1"), "another", limit=1, overdue=strict)
    assert again.shift_ms == second.shift_ms
    third = await claim(wheel, (2, "nonce-2"), "nonce-3", limit=1, overdue=POSTPONE)
    assert third.shift_ms == second.shift_ms


async def test_a_timer_that_is_held_back_can_be_moved(wheel: Wheel) -> None:
    first, second = late(2)
    await wheel.add(SHARD, TOPIC, -1, 0, [first, second])
    await claim(wheel, overdue=POSTPONE)
    moved, at_once = replace(first, due_ms=now() + HOUR_MS), replace(second, due_ms=now() - 5)
    assert await wheel.add(SHARD, RESULTS, -1, 0, [moved], remove=[first]) == 0
    size = await wheel.size(SHARD)
    assert (size.pending, size.held, size.next_due_ms) == (2, 1, moved.due_ms)
    # Once moved it is in its slot alone, and a copy of the move does nothing.
    copy = replace(first, due_ms=now() + 2 * HOUR_MS)
    await wheel.add(SHARD, RESULTS, 0, 1, [copy], remove=[first])
    assert (await wheel.size(SHARD)).next_due_ms == moved.due_ms
    await wheel.add(SHARD, RESULTS, 1, 2, [at_once], remove=[second])
    batch = await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=POSTPONE)
    assert (list(batch.timers), list(batch.overdue)) == ([at_once], [])
    size = await wheel.size(SHARD)
    assert (size.pending, size.held, size.in_flight) == (1, 0, 1)
    # It has been claimed from its slot by now: in neither place, so nothing puts it back.
    await wheel.add(SHARD, RESULTS, 2, 3, [replace(second, due_ms=now() + 9)], remove=[second])
    size = await wheel.size(SHARD)
    assert (size.pending, size.next_due_ms) == (1, moved.due_ms)


async def test_a_timer_that_is_held_back_can_be_removed(wheel: Wheel) -> None:
    timers = late(3)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    await claim(wheel, overdue=EXPIRE)
    # In the batch that tells of it, and after that; wherever its row says that it was due.
    await wheel.add(SHARD, RESULTS, -1, 0, [], remove=timers[:1])
    await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=EXPIRE)
    await wheel.add(SHARD, RESULTS, 0, 1, [], remove=[replace(timers[1], due_ms=now())])
    size = await wheel.size(SHARD)
    assert (size.pending, size.held, size.awaited) == (1, 1, 0)
    assert (await claim(wheel, (1, "nonce-1"), "nonce-2")).empty


async def test_a_rebuild_replaces_what_was_held_back(wheel: Wheel) -> None:
    timers = late(4)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    await claim(wheel, overdue=POSTPONE)
    await wheel.wipe(SHARD, EPOCH)
    size = await wheel.size(SHARD)
    assert (size.pending, size.held) == (0, 0)
    await wheel.load(SHARD, EPOCH, timers[2:])
    await wheel.open(SHARD, EPOCH, GEN, (5, "n5"), {}, holding=(2, 0))
    batch = await claim(wheel, (5, "n5"), "n6", overdue=POSTPONE)
    assert list(batch.overdue) == timers[2:]
    assert batch.shift_ms == batch.now_ms - timers[2].due_ms


async def test_a_large_backlog_is_held_back_whole(wheel: Wheel) -> None:
    at = now() - 2 * HOUR_MS
    one_slot = [timer(at - at % SLOT_MS + i % 5000) for i in range(6001)]
    spread = [timer(at + SLOT_MS * (1 + i)) for i in range(300)]
    await wheel.add(SHARD, TOPIC, -1, 0, [*one_slot, *spread])
    batch = await claim(wheel, limit=10_000, overdue=EXPIRE)
    assert len(batch.overdue) == 6301
    assert {t.activity_id for t in batch.overdue} == {t.activity_id for t in one_slot + spread}
    assert all(a.due_ms <= b.due_ms for a, b in pairwise(batch.overdue))
    assert (await wheel.size(SHARD)).held == 6301
    await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=EXPIRE)
    await wheel.add(SHARD, RESULTS, -1, 0, [], remove=[*one_slot, *spread])
    size = await wheel.size(SHARD)
    assert (size.pending, size.held, size.in_flight, size.awaited) == (0, 0, 0, 0)


on_servers = pytest.mark.parametrize("server", ["valkey", "redis-6.2"], indirect=True)


@pytest.fixture
async def redis(server: str | None) -> AsyncIterator[Redis]:
    """A look behind the wheel."""
    assert server is not None
    async with Redis.from_url(server) as client:
        yield client


@on_servers
async def test_nothing_is_left_of_what_has_gone(wheel: Wheel, redis: Redis) -> None:
    """Memory is all there is of a wheel: no empty slot may stay in the index, and no answer."""
    assert isinstance(wheel, RedisWheel)
    keys = wheel._of(SHARD)
    timers = overdue(3)
    far = timer(now() + HOUR_MS)
    await wheel.add(SHARD, TOPIC, -1, 0, [*timers, far])
    await claim(wheel)
    await wheel.add(SHARD, RESULTS, -1, 0, [], remove=[*timers, far])
    assert await redis.scard(keys.answered) == 3
    await claim(wheel, (1, "nonce-1"))
    too_late = late(3)
    await wheel.add(SHARD, TOPIC, 0, 1, too_late)
    await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=POSTPONE)
    await wheel.add(SHARD, RESULTS, 0, 1, [], remove=too_late)
    await claim(wheel, (2, "nonce-2"), "nonce-3", overdue=POSTPONE)
    left = {key.decode() async for key in redis.scan_iter(f"{wheel._prefix}*", count=1000)}
    assert left == {keys.meta}
    assert not await redis.hexists(keys.meta, "shift")


@on_servers
async def test_a_batch_of_the_former_version_is_settled(wheel: Wheel, redis: Redis) -> None:
    """It knew of no deadlines: its batch is groups of timers, and that is all it left behind."""
    assert isinstance(wheel, RedisWheel)
    keys = ShardKeys.of(wheel._prefix, SHARD)
    due = timer(now() - HOUR_MS)
    slot, relative = divmod(due.due_ms, SLOT_MS)
    pack_batch = "redis.call('SET', KEYS[1], cmsgpack.pack({ARGV[1], {ARGV[2], ARGV[3]}}))"
    await redis.eval(pack_batch, 1, keys.in_flight, slot, pack(due), relative)
    await redis.hset(keys.meta, mapping={"seq": 1, "nonce": "nonce-1", "claimed": 1})
    assert list((await claim(wheel)).timers) == [due]
    await claim(wheel, (1, "nonce-1"), "nonce-2")
    assert (await wheel.size(SHARD)).awaited == 1


@on_servers
@pytest.mark.skipif(ENV_PREFIX + "REDIS_URL" in os.environ, reason="the server is somebody's")
async def test_a_full_redis_goes_on_firing(wheel: Wheel, redis: Redis) -> None:
    timers = overdue(10)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    await redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreUnavailableError):
            await wheel.add(SHARD, TOPIC, 0, 1, overdue(1))
        assert list((await claim(wheel, limit=5)).timers) == timers[:5]
        assert list((await claim(wheel, (1, "nonce-1"), "nonce-2")).timers) == timers[5:]
        assert (await wheel.size(SHARD)).awaited == 5
        # Results make room: they go through, whether or not there is anything to remove.
        await wheel.add(SHARD, RESULTS, -1, 1, [replace(timers[0], attempt=2)], remove=timers[:1])
        await wheel.add(SHARD, RESULTS, 1, 2, [], remove=timers[5:6])
        last = await claim(wheel, (2, "nonce-2"), "nonce-3", await_ms=0)
        assert len(last.timers) == 1
        assert len(last.timeouts) == 4
    finally:
        await redis.config_set("maxmemory", 0)


@on_servers
@pytest.mark.skipif(ENV_PREFIX + "REDIS_URL" in os.environ, reason="the server is somebody's")
async def test_a_full_redis_goes_on_holding_back(wheel: Wheel, redis: Redis) -> None:
    timers = late(4)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    await redis.config_set("maxmemory", 1)
    try:
        assert list((await claim(wheel, limit=2, overdue=POSTPONE)).overdue) == timers[:2]
        await wheel.add(
            SHARD, RESULTS, -1, 0, [replace(timers[0], due_ms=now() + 9000)], remove=timers[:1]
        )
        await wheel.add(SHARD, RESULTS, 0, 1, [], remove=timers[1:2])
        await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=POSTPONE)
        assert (await claim(wheel, (2, "nonce-2"), "nonce-3", overdue=POSTPONE)).empty
        size = await wheel.size(SHARD)
        assert (size.pending, size.held) == (3, 2)
    finally:
        await redis.config_set("maxmemory", 0)


async def test_a_rebuild_that_lost_part_of_its_load_does_not_open(wheel: Wheel) -> None:
    due_ms = now() + 60_000
    await wheel.take(SHARD, EPOCH)
    await wheel.wipe(SHARD, EPOCH)
    await wheel.load(SHARD, EPOCH, [timer(due_ms)])
    await wheel.load_awaited(SHARD, EPOCH, [timer(due_ms, attempt=2)])
    for holding in ((0, 1), (2, 1), (1, 0), (1, 2)):
        with pytest.raises(WheelLostError):
            await wheel.open(SHARD, EPOCH, "gen-2", (0, NONCE), {}, holding=holding)
    with pytest.raises(WheelLostError):
        await wheel.watermark(SHARD, TOPIC)
    await wheel.open(SHARD, EPOCH, "gen-2", (0, NONCE), {}, holding=(1, 1))
    with pytest.raises(WheelLostError):
        await wheel.open(SHARD, EPOCH, "gen-3", (0, NONCE), {}, holding=(1, 1))


async def test_only_a_wiped_wheel_is_loaded(wheel: Wheel) -> None:
    await wheel.forget(SHARD)
    await wheel.take(SHARD, EPOCH)
    for load in (wheel.load, wheel.load_awaited):
        with pytest.raises(WheelLostError, match="not wiped"):
            await load(SHARD, EPOCH, [timer(0)])
    with pytest.raises(WheelLostError, match="not wiped"):
        await wheel.open(SHARD, EPOCH, "gen-2", (0, NONCE), {}, holding=(0, 0))
    await wheel.wipe(SHARD, EPOCH)
    await wheel.load(SHARD, EPOCH, [timer(0)])
    await wheel.open(SHARD, EPOCH, "gen-2", (0, NONCE), {}, holding=(1, 0))


@on_servers
async def test_a_wheel_that_comes_back_half_wiped_does_not_open(
    wheel: Wheel, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(wheel, RedisWheel)
    monkeypatch.setattr("scheduler.adapters.redis_wheel.WIPE_SLOTS", 1)
    old = [timer(now() + n * SLOT_MS) for n in range(3)]
    await wheel.add(SHARD, TOPIC, -1, 0, old)
    run = wheel._run
    half: dict[bytes, bytes] = {}

    async def remembered(name: str, keys: list[str], args: list[Any]) -> Any:
        reply = await run(name, keys, args)
        if name == "wipe" and not half:
            async for key in redis.scan_iter(f"{wheel._prefix}*"):
                half[key] = await redis.dump(key) or b""
        return reply

    monkeypatch.setattr(wheel, "_run", remembered)
    await wheel.wipe(SHARD, EPOCH)
    for key, value in half.items():
        await redis.restore(key, 0, value, replace=True)
    with pytest.raises(WheelLostError, match="not wiped"):
        await wheel.open(SHARD, EPOCH, "gen-2", (0, NONCE), {}, holding=(0, 0))
    await wheel.wipe(SHARD, EPOCH)
    await wheel.open(SHARD, EPOCH, "gen-2", (0, NONCE), {}, holding=(0, 0))
    assert (await wheel.size(SHARD)).next_due_ms is None
