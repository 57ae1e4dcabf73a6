"""What every wheel shows to an onlooker."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from msgspec.structs import replace

from scheduler.adapters import memory_view, redis_view
from scheduler.adapters.memory_view import MemoryWheelView
from scheduler.adapters.redis_view import RedisWheelView
from scheduler.adapters.redis_wheel import SLOT_MS
from scheduler.ports import Placed, Sight, WheelCount, WheelView
from scheduler.timer import Timer
from tests.contract.test_wheel import (
    EPOCH,
    GEN,
    HOUR_MS,
    NONCE,
    POSTPONE,
    SHARD,
    TOPIC,
    claim,
    fired,
    late,
    now,
    opened,
    overdue,
    timer,
)
from tests.fixtures.redis import flush

pytestmark = pytest.mark.timeout(60)

NOWHERE = Sight(waits=False, in_flight=False)
WAITS = Sight(waits=True, in_flight=False)


@asynccontextmanager
async def viewed(server: str | None) -> AsyncIterator[WheelView]:
    """A wheel, open and empty; what is left in its server is nothing."""
    if server is None:
        twin = MemoryWheelView()
        await opened(twin)
        yield twin
        return
    prefix = f"t{uuid4().hex}-"
    view = RedisWheelView(server, prefix=prefix)
    await opened(view)
    yield view
    await view.close()
    await flush(server, prefix)


@pytest.fixture
async def wheel(server: str | None, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[WheelView]:
    """Each wheel, open and empty, read in pages of three."""
    monkeypatch.setattr(memory_view, "PAGE", 3)
    monkeypatch.setattr(redis_view, "PAGE", 3)
    monkeypatch.setattr(redis_view, "PAGE_SLOTS", 2)
    monkeypatch.setattr(redis_view, "COUNTED_SLOTS", 2)
    async with viewed(server) as view:
        yield view


async def placed(wheel: WheelView) -> list[Placed]:
    pages: list[Sequence[Placed]] = [page async for page in wheel.timers(SHARD)]
    assert all(len(page) <= 3 for page in pages)
    return [each for page in pages for each in page]


def of(found: list[Placed], *, fired: bool) -> list[Timer]:
    timers = [each.timer for each in found if each.fired is fired]
    return sorted(timers, key=lambda each: (each.due_ms, each.activity_id))


def ordered(timers: list[Timer]) -> list[Timer]:
    return sorted(timers, key=lambda each: (each.due_ms, each.activity_id))


async def test_what_it_says_of_itself(wheel: WheelView) -> None:
    meta = await wheel.meta(SHARD)
    assert (meta.gen, meta.seq, meta.nonce, meta.owned) == (GEN, 0, NONCE, True)
    await wheel.add(SHARD, TOPIC, -1, 41, [])
    assert (await wheel.meta(SHARD)).watermarks == {TOPIC: 41}
    await wheel.forget(SHARD)
    meta = await wheel.meta(SHARD)
    assert (meta.gen, meta.owned) == (None, False)
    assert (await wheel.meta(SHARD + 1)).gen is None
    assert (await wheel.find(SHARD, [])).meta == meta


async def test_all_timers_are_seen_page_by_page(wheel: WheelView) -> None:
    at = now() + HOUR_MS
    spread = [timer(at + number * SLOT_MS // 4) for number in range(40)]
    crowded = [timer(at + 7 * HOUR_MS) for _ in range(11)]
    await wheel.add(SHARD, TOPIC, -1, 0, [*spread, *crowded])
    found = await placed(wheel)
    assert of(found, fired=False) == ordered([*spread, *crowded])
    assert of(found, fired=True) == []
    assert await wheel.count(SHARD) == WheelCount(51, 0, 0)


async def test_awaited_ones_are_seen_with_their_deadline(wheel: WheelView) -> None:
    timers = overdue(10)
    settled = await fired(wheel, timers)
    found = of(await placed(wheel), fired=True)
    assert len(found) == 10
    assert {replace(each, due_ms=0) for each in found} == {
        replace(each, due_ms=0) for each in timers
    }
    for each in found:
        assert 0 <= settled.now_ms + HOUR_MS - each.due_ms < 5_000
    assert await wheel.count(SHARD) == WheelCount(0, 0, 10)


async def test_where_a_timer_is(wheel: WheelView) -> None:
    later = timer(now() + HOUR_MS)
    due = overdue(3)
    await wheel.add(SHARD, TOPIC, -1, 0, [later, *due])
    sighting = await wheel.find(SHARD, [later, *due, timer(later.due_ms)])
    assert list(sighting.sights) == [WAITS, WAITS, WAITS, WAITS, NOWHERE]
    assert abs(sighting.now_ms - now()) < 60_000

    batch = await claim(wheel, limit=2)
    sighting = await wheel.find(SHARD, [later, *due])
    claimed = Sight(waits=False, in_flight=True)
    assert list(sighting.sights) == [WAITS, claimed, claimed, WAITS]
    assert (sighting.meta.seq, sighting.meta.nonce) == (batch.seq, batch.nonce)
    assert (await wheel.count(SHARD)).in_flight == 2

    await claim(wheel, (batch.seq, batch.nonce), "nonce-2", limit=1)
    sighting = await wheel.find(SHARD, [later, *due])
    assert sighting.sights[0] == WAITS
    assert all(each.deadline_ms is not None for each in sighting.sights[1:3])
    assert not any(each.in_flight for each in sighting.sights[1:3])
    assert sighting.sights[3] == claimed


async def test_what_is_held_back_as_overdue_waits(wheel: WheelView) -> None:
    held = late(4)
    await wheel.add(SHARD, TOPIC, -1, 0, held)
    batch = await claim(wheel, overdue=POSTPONE)
    for _ in ("claimed", "settled"):
        assert list((await wheel.find(SHARD, held)).sights) == [WAITS] * 4
        assert of(await placed(wheel), fired=False) == ordered(held)
        assert await wheel.count(SHARD) == WheelCount(4, 0, 0)
        await claim(wheel, (batch.seq, batch.nonce), "nonce-2", overdue=POSTPONE)


async def test_a_deadline_that_is_claimed_is_in_flight(wheel: WheelView) -> None:
    timers = overdue(2)
    await fired(wheel, timers, await_ms=0)
    done = (1, "nonce-1")
    while not (batch := await claim(wheel, done, "nonce-3")).timeouts:
        done = (batch.seq, batch.nonce)
    sighting = await wheel.find(SHARD, timers)
    assert [each.in_flight for each in sighting.sights] == [True, True]


async def test_one_that_waits_elsewhere_is_not_where_it_is_looked_for(wheel: WheelView) -> None:
    one = timer(now() + HOUR_MS)
    await wheel.add(SHARD, TOPIC, -1, 0, [one])
    for by in (1, -1, SLOT_MS, 10 * SLOT_MS):
        moved = replace(one, due_ms=one.due_ms + by)
        assert (await wheel.find(SHARD, [moved])).sights == [NOWHERE]
    assert (await wheel.find(SHARD, [replace(one, attempt=2)])).sights == [NOWHERE]
    assert (await wheel.find(SHARD, [one])).sights == [WAITS]


async def test_looking_changes_nothing(wheel: WheelView) -> None:
    timers = [timer(now() + HOUR_MS) for _ in range(5)]
    await wheel.add(SHARD, TOPIC, -1, 0, timers)
    before = await wheel.size(SHARD)
    await placed(wheel)
    await wheel.find(SHARD, timers)
    await wheel.count(SHARD)
    assert await wheel.size(SHARD) == before
    assert (await wheel.take(SHARD, EPOCH)).gen == GEN
