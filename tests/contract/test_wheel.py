"""What every timer wheel promises, whatever it is built on."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest

from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.adapters.redis_wheel import MAX_LOAD, SLOT_MS, RedisWheel
from scheduler.errors import FencedError, WheelLostError
from scheduler.ports import Claim, Wheel
from scheduler.timer import Timer
from schemas.ids import activity_id
from tests.fixtures.redis import flush

SHARD = 3
TOPIC = "post-detected"
EPOCH, GEN, NONCE = "epoch-1", "gen-1", "nonce-0"
HOUR_MS = 3_600_000

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["memory", "valkey", "redis-6.2"])
def server(request: pytest.FixtureRequest) -> str | None:
    """The address of the server that stands behind the wheel; None for the one in memory."""
    if request.param == "memory":
        return None
    name = "new_redis_url" if request.param == "valkey" else "old_redis_url"
    return str(request.getfixturevalue(name))


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
    wheel: Wheel, done: tuple[int, str] = (0, NONCE), nonce: str = "nonce-1", limit: int = 1000
) -> Claim:
    return await wheel.claim(SHARD, EPOCH, GEN, done, nonce, limit)


async def test_what_is_added_is_claimed_once_in_order_of_time(wheel: Wheel) -> None:
    timers = overdue(500)
    shuffled = random.Random(1).sample(timers, len(timers))
    assert await wheel.add(SHARD, TOPIC, -1, 41, shuffled) == 41
    first = await claim(wheel, limit=200)
    second = await claim(wheel, (first.seq, first.nonce), "nonce-2", limit=1000)
    third = await claim(wheel, (second.seq, second.nonce), "nonce-3")
    assert [first.seq, second.seq, third.seq] == [1, 2, 2]
    assert [*first.timers, *second.timers] == timers
    assert list(third.timers) == []
    assert third.next_due_ms is None


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
        lambda: wheel.open(SHARD, EPOCH, "gen-2", (1, "n"), {}),
    ]
    for call in calls:
        with pytest.raises(FencedError):
            await call()
    assert (await wheel.size(SHARD)).gen == GEN
    again = await wheel.claim(SHARD, "epoch-2", GEN, (0, NONCE), "x", 10)
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
        await wheel.claim(SHARD, EPOCH, "gen-of-before", (0, NONCE), "n", 10)


async def test_an_owner_learns_that_everything_is_gone(wheel: Wheel) -> None:
    never_opened = SHARD + 1
    with pytest.raises(WheelLostError):
        await wheel.claim(never_opened, EPOCH, GEN, (0, NONCE), "n", 10)
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
    batch = await wheel.claim(SHARD, EPOCH, "gen-2", (9, "n9"), "n10", 20_000)
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
    batch = await wheel.claim(SHARD, "epoch-2", "gen-2", (0, "n"), "m", 1000)
    assert list(batch.timers) == loaded


async def test_an_open_wheel_cannot_be_loaded(wheel: Wheel) -> None:
    with pytest.raises(WheelLostError, match="open"):
        await wheel.load(SHARD, EPOCH, overdue(1))


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


async def test_large_adds_are_whole(wheel: Wheel) -> None:
    at = now() - HOUR_MS
    one_slot = [timer(at - at % SLOT_MS + i % 5000) for i in range(6000)]
    spread = [timer(at + SLOT_MS * (1 + i)) for i in range(300)]
    await wheel.add(SHARD, TOPIC, -1, 0, [*one_slot, *spread])
    batch = await claim(wheel, limit=10_000)
    assert len(batch.timers) == 6300
    assert {t.activity_id for t in batch.timers} == {t.activity_id for t in one_slot + spread}
    assert all(a.due_ms <= b.due_ms for a, b in pairwise(batch.timers))
