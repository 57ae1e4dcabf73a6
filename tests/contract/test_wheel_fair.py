"""What every wheel does in a backlog: no pod holds up the others."""

import random
from collections import Counter
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from scheduler.adapters.redis_keys import ShardKeys
from scheduler.adapters.redis_wheel import SLOT_MS, RedisWheel
from scheduler.policy import OverduePolicy
from scheduler.ports import Claim, Sight, WheelView
from scheduler.timer import Timer
from tests.contract.test_wheel import (
    HOUR_MS,
    NONCE,
    RESULTS,
    SHARD,
    TOPIC,
    claim,
    now,
    opened,
    timer,
)
from tests.contract.test_wheel_view import viewed

LIMIT = 40
CROWD, OTHER, NEXT = (str(uuid4()) for _ in range(3))

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def wheel(server: str | None) -> AsyncIterator[WheelView]:
    """Each wheel, open and empty."""
    async with viewed(server) as view:
        yield view


def burst(count: int, pod: str, at_ms: int) -> list[Timer]:
    """So many timers of one pod, a millisecond apart."""
    return [timer(at_ms + i, pod_id=pod) for i in range(count)]


async def drained(wheel: WheelView, limit: int = LIMIT) -> list[Claim]:
    """All batches that a wheel has, each settled."""
    claims = []
    done = (0, NONCE)
    while not (found := await claim(wheel, done, f"n-{done[0] + 1}", limit=limit)).empty:
        assert len(found.timers) <= limit
        claims.append(found)
        done = (found.seq, found.nonce)
    return claims


def pods(found: Claim) -> Counter[str]:
    return Counter(each.pod_id for each in found.timers)


async def test_a_pod_that_crowds_does_not_hold_up_another(wheel: WheelView) -> None:
    at = now() - HOUR_MS
    crowd, others = burst(3 * LIMIT, CROWD, at), burst(5, OTHER, at + 1000)
    await wheel.add(SHARD, TOPIC, -1, 0, [*crowd, *others])
    first, *more = await drained(wheel)
    assert pods(first) == {OTHER: 5, CROWD: LIMIT - 5}
    claimed = [each for found in (first, *more) for each in found.timers if each.pod_id == CROWD]
    assert claimed == crowd


async def test_what_falls_due_later_does_not_wait_either(wheel: WheelView) -> None:
    at = now() - HOUR_MS
    await wheel.add(SHARD, TOPIC, -1, 0, burst(4 * LIMIT, CROWD, at))
    first = await claim(wheel, limit=LIMIT)
    assert pods(first) == {CROWD: LIMIT}
    late = burst(2, OTHER, now() - SLOT_MS)
    await wheel.add(SHARD, TOPIC, 0, 1, [*burst(LIMIT, CROWD, now() - 2 * SLOT_MS), *late])
    second = await claim(wheel, (1, "nonce-1"), "nonce-2", limit=LIMIT)
    assert pods(second) == {OTHER: 2, CROWD: LIMIT - 2}


@pytest.mark.parametrize("together", [True, False], ids=["in one slot", "spread"])
async def test_a_crowd_beyond_the_look_does_not_hold_up_what_falls_due_now(
    wheel: WheelView, together: bool
) -> None:
    at = now() - HOUR_MS
    apart_ms = 1 if together else SLOT_MS // 4
    crowd = [timer(at + i * apart_ms, pod_id=CROWD) for i in range(12 * LIMIT)]
    first_others, later_others = burst(3, OTHER, now() - 500), burst(3, NEXT, now() - 200)
    await wheel.add(SHARD, TOPIC, -1, 0, [*crowd, *first_others])
    first = await claim(wheel, limit=LIMIT)
    assert pods(first) == {OTHER: 3, CROWD: LIMIT - 3}
    await wheel.add(SHARD, TOPIC, 0, 1, [*later_others, timer(now() + HOUR_MS)])
    second = await claim(wheel, (1, "nonce-1"), "nonce-2", limit=LIMIT)
    assert pods(second) == {NEXT: 3, CROWD: LIMIT - 3}
    claimed = [*first.timers, *second.timers]
    done = (2, "nonce-2")
    while not (found := await claim(wheel, done, f"n-{done[0] + 1}", limit=LIMIT)).empty:
        claimed += found.timers
        done = (found.seq, found.nonce)
    assert [each for each in claimed if each.pod_id == CROWD] == crowd
    assert len(claimed) == len(crowd) + 6


async def test_what_fell_due_last_and_is_overdue_is_held_back(wheel: WheelView) -> None:
    crowd = burst(12 * LIMIT, CROWD, now() - HOUR_MS)
    others = burst(3, OTHER, now() - 5000)
    await wheel.add(SHARD, TOPIC, -1, 0, [*crowd, *others])
    policy = OverduePolicy("postpone", 1000)
    held: list[Timer] = []
    done = (0, NONCE)
    while not (found := await claim(wheel, done, f"n-{done[0] + 1}", LIMIT, overdue=policy)).empty:
        assert found.timers == []
        assert len(found.overdue) <= LIMIT
        held += found.overdue
        done = (found.seq, found.nonce)
    assert sorted(held, key=str) == sorted([*crowd, *others], key=str)


async def test_who_crowds_keeps_a_quarter(wheel: WheelView) -> None:
    at = now() - HOUR_MS
    many = [timer(at + 5000 + i) for i in range(3 * LIMIT)]
    await wheel.add(SHARD, TOPIC, -1, 0, [*burst(LIMIT, CROWD, at), *many])
    first, second, *_ = await drained(wheel)
    assert pods(first)[CROWD] == pods(second)[CROWD] == LIMIT // 4


async def test_two_who_crowd_share(wheel: WheelView) -> None:
    at = now() - HOUR_MS
    one, two = burst(LIMIT, CROWD, at), burst(LIMIT, NEXT, at)
    await wheel.add(SHARD, TOPIC, -1, 0, [*one, *two, *burst(4, OTHER, at + 1000)])
    first = pods((await drained(wheel))[0])
    assert first == {CROWD: LIMIT // 2 - 2, NEXT: LIMIT // 2 - 2, OTHER: 4}


async def test_no_backlog_is_in_order_of_time(wheel: WheelView) -> None:
    at = now() - HOUR_MS
    timers = [*burst(LIMIT - 3, CROWD, at), *burst(3, OTHER, at + 1000)]
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    (only,) = await drained(wheel)
    assert list(only.timers) == timers


@pytest.mark.parametrize("seed", range(6))
async def test_each_is_claimed_once_whoever_crowds(wheel: WheelView, seed: int) -> None:
    rng = random.Random(seed)
    names = [str(uuid4()) if rng.random() < 0.8 else f"pod {n}" for n in range(12)]
    weights = [rng.choice((1, 1, 1, 30)) for _ in names]
    at = now() - 3 * SLOT_MS
    limit = rng.choice((10, 40, 97))
    timers = [
        timer(at + rng.randrange(3 * SLOT_MS), pod_id=rng.choices(names, weights)[0])
        for _ in range(900)
    ]
    claimed: list[Timer] = []
    done, added = (0, NONCE), -1
    while True:
        if rng.random() < 0.5 and (some := timers[(added + 1) * 100 : (added + 2) * 100]):
            added = await wheel.add(SHARD, TOPIC, added, added + 1, some)
        found = await claim(wheel, done, f"n-{done[0] + 1}", limit=limit)
        again = await claim(wheel, done, f"m-{done[0] + 1}", limit=limit)
        assert (again.timers, again.nonce) == (found.timers, found.nonce)
        assert len(found.timers) <= limit
        claimed += found.timers
        if not found.empty:
            done = (found.seq, found.nonce)
        elif len(claimed) == len(timers):
            break
    assert sorted(claimed, key=str) == sorted(timers, key=str)
    size = await wheel.size(SHARD)
    assert (size.pending, size.due, size.in_flight) == (0, 0, 0)
    assert [page async for page in wheel.timers(SHARD)] == [] or size.awaited == len(timers)


@pytest.fixture
async def crowded(wheel: WheelView) -> list[Timer]:
    """A backlog of one pod, after its first batch was claimed: what is left of it."""
    timers = burst(4 * LIMIT, CROWD, now() - HOUR_MS)
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    first = await claim(wheel, limit=LIMIT)
    assert list(first.timers) == timers[:LIMIT]
    return timers[LIMIT:]


async def test_what_waits_aside_is_seen(wheel: WheelView, crowded: list[Timer]) -> None:
    sighting = await wheel.find(SHARD, crowded)
    assert list(sighting.sights) == [Sight(waits=True, in_flight=False)] * len(crowded)
    elsewhere = [replace(each, due_ms=each.due_ms + 1) for each in crowded[:2]]
    assert not any(each.waits for each in (await wheel.find(SHARD, elsewhere)).sights)
    seen = [each.timer for page in [p async for p in wheel.timers(SHARD)] for each in page]
    assert sorted(seen, key=str) == sorted(crowded, key=str)
    assert (await wheel.count(SHARD)).waiting == len(crowded)
    size = await wheel.size(SHARD)
    assert (size.pending, size.due) == (len(crowded), len(crowded))
    assert size.next_due_ms == crowded[0].due_ms


async def test_what_waits_aside_can_be_removed_and_moved(
    wheel: WheelView, crowded: list[Timer]
) -> None:
    removed, moved, stays = crowded[:5], crowded[5:10], crowded[10:]
    coming = [replace(each, due_ms=now() + HOUR_MS) for each in moved]
    await wheel.add(SHARD, RESULTS, -1, 1, coming, remove=[*removed, *moved])
    assert (await wheel.size(SHARD)).pending == len(coming) + len(stays)
    claimed: list[Timer] = []
    done = (1, "nonce-1")
    while not (found := await claim(wheel, done, f"n-{done[0] + 1}", limit=LIMIT)).empty:
        claimed += found.timers
        done = (found.seq, found.nonce)
    assert claimed == stays
    assert all(each.waits for each in (await wheel.find(SHARD, coming)).sights)


async def test_all_of_a_lane_can_be_removed(wheel: WheelView, crowded: list[Timer]) -> None:
    await wheel.add(SHARD, RESULTS, -1, 1, [], remove=crowded)
    assert (await claim(wheel, (1, "nonce-1"), "nonce-2")).empty
    assert (await wheel.size(SHARD)).next_due_ms is not None  # the deadlines of the first batch


async def test_what_waits_aside_becomes_overdue(wheel: WheelView, crowded: list[Timer]) -> None:
    policy = OverduePolicy("postpone", 1000)
    found = await claim(wheel, (1, "nonce-1"), "nonce-2", limit=LIMIT, overdue=policy)
    assert list(found.overdue) == crowded[:LIMIT]
    assert found.timers == []
    assert (await wheel.size(SHARD)).held == LIMIT


async def test_a_rebuild_replaces_what_waits_aside(wheel: WheelView, crowded: list[Timer]) -> None:
    await opened(wheel, crowded[:3])
    assert [list(each.timers) for each in await drained(wheel)] == [crowded[:3]]


async def test_no_lane_is_left(wheel: WheelView) -> None:
    if not isinstance(wheel, RedisWheel):
        return
    at = now() - HOUR_MS
    await wheel.add(
        SHARD, TOPIC, -1, 0, [*burst(9 * LIMIT, CROWD, at), *burst(9 * LIMIT, NEXT, at + 7)]
    )
    redis: Redis = wheel._redis
    keys = ShardKeys.of(wheel._prefix, SHARD)
    await claim(wheel, limit=LIMIT)
    assert await redis.zcount(keys.slots, 0, 15) == 2
    done = (1, "nonce-1")
    while not (found := await claim(wheel, done, f"n-{done[0] + 1}", limit=LIMIT)).empty:
        done = (found.seq, found.nonce)
    assert await redis.zcard(keys.slots) == 0
    slots = [key async for key in redis.scan_iter(f"{keys.slot_prefix}*")]
    assert [
        key for key in slots if await redis.type(key) == b"zset" and key.decode() != keys.awaited
    ] == []
