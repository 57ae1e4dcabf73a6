"""The applier: whatever is delivered how often, each activity is a row once and a timer once."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import pytest

from scheduler import apply
from scheduler.apply import PLANNED_PER_TURN
from scheduler.batch import MAX_ROWS
from scheduler.errors import DataRefusedError, StoreUnavailableError, WheelLostError
from scheduler.planner import plan
from tests.unit.applying import SHARD, TOPIC, UNACCEPTABLE, Around, World

Method = Callable[..., Awaitable[Any]]
Arguments = tuple[Any, ...]

BROKEN = [b"", b"{", b"null", b"[1]", b'{"post_id": 1}', None, b"[" * 100_000, b"\xff\xfe"]


class Crash(BaseException):
    """The process dies here; nothing in the engine may catch it."""


@pytest.fixture
async def world() -> World:
    world = World()
    await world.open_wheel()
    return world


async def test_a_batch_becomes_rows_timers_and_statuses(world: World) -> None:
    world.post("p1", ["a", "b"])
    world.post("p2", ["a", "b", "c"], author_id="c", engagement_types=["like"])
    await world.applier().apply(world.log)
    assert sorted(row.activity_id for row in world.outbox.statuses) == sorted(world.record.rows)
    await world.verify(4 + 2)


async def test_statuses_come_after_the_timers_and_these_after_the_rows(world: World) -> None:
    world.post("p1", ["a"])
    calls: list[str] = []

    async def noted(name: str, method: Method, args: Arguments) -> Any:
        calls.append(name)
        return await method(*args)

    await world.applier(noted).apply(world.log)
    assert [name for name in calls if name in ("apply_plan", "add", "announce")] == [
        "apply_plan",
        "add",
        "announce",
    ]


async def test_a_double_of_an_event_plans_nothing_new(world: World) -> None:
    world.post("p1", ["a", "b"])
    world.post("p1", ["b", "c"])  # in one batch
    applier = world.applier()
    await applier.apply(world.log)
    double = world.post("p1", ["a", "b", "c"])
    await applier.apply([double])
    await world.verify(6)
    assert len(world.outbox.statuses) == 6


async def test_a_later_event_of_a_batch_sees_the_likes_of_the_earlier(world: World) -> None:
    world.post("p1", ["a", "b", "c"])
    world.post("p1", ["d", "e", "f"])
    await world.applier().apply(world.log)
    likes = sorted(
        row.scheduled_for_ms for row in world.record.rows.values() if row.engagement_type == "like"
    )
    assert all(later - early >= 3_600_000 for early, later in zip(likes, likes[3:], strict=False))


async def test_broken_records_go_to_dead_letter_and_hold_nobody_up(world: World) -> None:
    for number, value in enumerate(BROKEN):
        world.raw(value)
        world.post(f"p{number}", ["a"])
    world.raw(b"last")
    await world.applier().apply(world.log)
    broken = [record.offset for record in world.log[::2]]
    assert [offset for offset, _ in world.outbox.letters] == broken
    assert all(reason for _, reason in world.outbox.letters)
    await world.verify(2 * len(BROKEN))


async def test_a_batch_of_broken_records_moves_the_watermarks(world: World) -> None:
    for value in BROKEN:
        world.raw(value)
    await world.applier().apply(world.log)
    await world.verify(0)


async def test_a_dead_letter_is_sent_before_the_watermark_moves(world: World) -> None:
    world.raw(b"{")

    async def crash(name: str, method: Method, args: Arguments) -> Any:
        if name == "apply_plan":
            raise Crash
        return await method(*args)

    with pytest.raises(Crash):
        await world.applier(crash).apply(world.log)
    assert [offset for offset, _ in world.outbox.letters] == [0]


async def test_large_batches_are_planned_one_after_the_other(world: World) -> None:
    world.post("p1", [f"m{number}" for number in range(PLANNED_PER_TURN // 2)])
    small = list(world.log)
    world.post("p2", [f"m{number}" for number in range(PLANNED_PER_TURN // 2 + 1)])
    asked = asyncio.Event()

    class Planning(asyncio.Lock):
        async def acquire(self) -> Literal[True]:
            asked.set()
            return await super().acquire()

    planning = Planning()
    async with planning:
        asked.clear()
        await world.applier(planning=planning).apply(small)
        assert not asked.is_set()
        large = asyncio.create_task(world.applier(planning=planning).apply(world.log[1:]))
        await asked.wait()
        assert len(world.record.rows) == PLANNED_PER_TURN
    await large
    await world.verify(2 * PLANNED_PER_TURN + 2)


async def test_nobody_waits_for_another_shard_that_waits_for_a_store(world: World) -> None:
    world.raw(b"{")
    world.post("p1", [f"m{number}" for number in range(PLANNED_PER_TURN)])
    planning = asyncio.Lock()

    async def free(name: str, method: Method, args: Arguments) -> Any:
        assert not planning.locked(), name
        return await method(*args)

    await world.applier(free, planning=planning).apply(world.log)
    assert [offset for offset, _ in world.outbox.letters] == [0]
    await world.verify(2 * PLANNED_PER_TURN)


async def test_gaps_between_offsets_are_ordinary(world: World) -> None:
    world.post("p1", ["a"])
    world.raw(b"{", gap=3)
    world.post("p2", ["a"])
    await world.applier().apply(world.log)
    await world.verify(4)


@pytest.mark.parametrize("culprits", [(0,), (7,), (3, 4), (0, 3, 7), tuple(range(8))])
async def test_what_postgresql_refuses_is_found_by_bisection(
    world: World, culprits: tuple[int, ...]
) -> None:
    for number in range(8):
        world.post(f"p{number}", ["a", UNACCEPTABLE if number in culprits else "b"])
        world.raw(b"{")
    await world.applier().apply(world.log)
    refused = [offset for offset, reason in world.outbox.letters if "refused" in reason]
    assert refused == [2 * number for number in culprits]
    assert len(world.outbox.letters) == len(culprits) + 8
    await world.verify(4 * (8 - len(culprits)))


async def test_a_refusal_that_no_event_can_have_caused_is_a_bug(world: World) -> None:
    async def refuse(name: str, method: Method, args: Arguments) -> Any:
        if name == "apply_plan":
            raise DataRefusedError("23505 the watermark's own row")
        return await method(*args)

    world.raw(b"{")
    with pytest.raises(DataRefusedError):
        await world.applier(refuse).apply(world.log)


async def test_a_very_large_event_passes_whole_and_large_batches_are_parted(world: World) -> None:
    members = [f"m{i}" for i in range(10_000)]
    world.post("small", ["a"])
    world.post("huge", members, engagement_types=["comment", "like"])
    for number in range(3):
        world.post(f"large{number}", members[: MAX_ROWS // 4])
    sizes: list[int] = []

    async def measured(name: str, method: Method, args: Arguments) -> Any:
        if name == "apply_plan":
            sizes.append(len(args[4]))
        return await method(*args)

    await world.applier(measured).apply(world.log)
    assert sizes == [2, 20_000, MAX_ROWS, MAX_ROWS // 2]
    await world.verify(sum(sizes))


@pytest.mark.parametrize("seed", range(40))
async def test_replays_with_other_boundaries_change_nothing(seed: int) -> None:
    rng = random.Random(seed)
    world = World()
    await world.open_wheel()
    activities = _mixed_log(world, rng)
    for turn in range(4):
        applier = world.applier()
        start = rng.randrange(len(world.log)) if turn else 0
        for batch in _batches(world, rng, start):
            await applier.apply(batch)
            if rng.random() < 0.3:
                await world.fire(rng.randrange(1, 10))
    await world.verify(activities)


@pytest.mark.parametrize("seed", range(60))
async def test_appliers_at_once_lose_swaps_and_nothing_else(seed: int) -> None:
    rng = random.Random(seed)
    world = World()
    await world.open_wheel()
    activities = _mixed_log(world, rng)

    async def interleaved(name: str, method: Method, args: Arguments) -> Any:
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        result = await method(*args)
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        return result

    async def worker() -> None:
        applier = world.applier(interleaved)
        for batch in _batches(world, rng, 0):
            await applier.apply(batch)
            if rng.random() < 0.2:
                await applier.catch_up()

    async def dispatcher() -> None:
        for _ in range(50):
            await asyncio.sleep(0)
            await world.fire(5)

    await asyncio.gather(worker(), worker(), worker(), dispatcher())
    await world.verify(activities)
    broken = {record.offset for record in world.log if record.value in BROKEN}
    assert {offset for offset, _ in world.outbox.letters} == broken


@pytest.mark.parametrize("seed", range(120))
async def test_a_crash_after_any_step_and_redelivery(seed: int) -> None:
    rng = random.Random(seed)
    world = World()
    await world.open_wheel()
    activities = _mixed_log(world, rng)
    acked = 0
    lives = 0
    while acked < len(world.log):
        lives += 1
        applier = world.applier(_crashing(rng, 0.2 if lives < 200 else 0))
        try:
            for batch in _batches(world, rng, acked):
                await applier.apply(batch)
                acked += len(batch)
                if rng.random() < 0.5:
                    await world.fire(rng.randrange(1, 20))
        except Crash:
            pass
    unannounced = set(world.record.rows) - {row.activity_id for row in world.outbox.statuses}
    # Fired between the crash and the redelivery: `dispatched` speaks for those.
    assert unannounced <= set(world.fired)
    await world.verify(activities)


async def test_scheduled_is_sent_again_for_what_had_been_applied(world: World) -> None:
    world.post("p1", ["a"])
    world.raw(b"{")
    world.post("p2", ["a"])
    with pytest.raises(Crash):
        await world.applier(_before("announce", Crash())).apply(world.log)
    assert not world.outbox.statuses
    await world.applier().apply(world.log)
    assert {row.activity_id for row in world.outbox.statuses} == set(world.record.rows)
    times = {row.activity_id: row.scheduled_for_ms for row in world.outbox.statuses}
    assert times == {row.activity_id: row.scheduled_for_ms for row in world.record.rows.values()}
    # The dead letter had been confirmed before the watermark moved, so once is enough.
    assert len(world.outbox.letters) == 1


async def test_stores_away_are_waited_for_without_doubles(world: World) -> None:
    for number in range(5):
        world.post(f"p{number}", ["a", "b"])
        world.raw(b"{")
    rng = random.Random(1)

    async def unreliable(name: str, method: Method, args: Arguments) -> Any:
        if rng.random() < 0.4:
            raise StoreUnavailableError("test", f"before {name}")
        result = await method(*args)
        if rng.random() < 0.4:
            raise StoreUnavailableError("test", f"after {name}")
        return result

    await world.applier(unreliable).apply(world.log)
    await world.verify(20)


async def test_back_off_doubles_up_to_its_limit_and_can_be_cancelled(world: World) -> None:
    world.post("p1", ["a"])
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 10:
            raise asyncio.CancelledError

    async def away(name: str, method: Method, args: Arguments) -> Any:
        raise StoreUnavailableError("test", "away")

    with pytest.raises(asyncio.CancelledError):
        await world.applier(away, sleep).apply(world.log)
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0]


async def test_a_dead_letter_is_not_repeated_while_postgresql_is_away(world: World) -> None:
    world.raw(b"{")
    tries = 0

    async def away_for_long(name: str, method: Method, args: Arguments) -> Any:
        nonlocal tries
        tries += name == "apply_plan"
        if name == "apply_plan" and tries < 50:
            raise StoreUnavailableError("test", "away")
        return await method(*args)

    await world.applier(away_for_long).apply(world.log)
    assert len(world.outbox.letters) == 1


async def test_anything_else_is_a_bug_and_goes_through(world: World) -> None:
    world.post("p1", ["a"])
    with pytest.raises(ZeroDivisionError):
        await world.applier(_before("add", ZeroDivisionError())).apply(world.log)


async def test_a_planner_that_fails_costs_one_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:

    def failing(event: Any, *args: Any) -> Any:
        if event.post_id == "bad":
            raise OverflowError("too late")
        return plan(event, *args)

    monkeypatch.setattr("scheduler.apply.plan", failing)
    world.post("good", ["a"])
    world.post("bad", ["a"])
    world.post("good too", ["a"])
    await world.applier().apply(world.log)
    assert [offset for offset, _ in world.outbox.letters] == [1]
    await world.verify(4)


async def test_a_lost_wheel_is_waited_for_until_it_is_rebuilt(world: World) -> None:
    world.post("p1", ["a"])
    world.post("p2", ["b"])
    await world.applier().apply(world.log[:1])
    world.wheel.lose()
    waits = 0

    async def sleep(_: float) -> None:
        nonlocal waits
        waits += 1
        if waits == 3:
            await world.open_wheel()  # from a snapshot that has the second event's rows already

    await world.applier(sleep=sleep).apply(world.log[1:])
    assert waits == 3
    await world.verify(4)


async def test_a_wheel_rebuilt_from_an_older_snapshot_gets_the_rest(world: World) -> None:
    applier = world.applier()
    for number in range(4):
        world.post(f"p{number}", ["a"])
    await applier.apply(world.log[:2])
    await world.open_wheel(watermark=0)
    await applier.apply(world.log[2:])
    await world.verify(8)


@pytest.mark.parametrize(
    ("offsets", "parts"),
    [
        (200, [(2, 6), (4, 8), (5, 40), (7, 10), (8, 2)]),
        (1, [(2, 6), (3, 6), (4, 2), (5, 40), (6, 2), (7, 8), (8, 2)]),
    ],
)
async def test_catch_up_reads_back_what_redis_has_lost_a_bounded_part_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch, offsets: int, parts: list[tuple[int, int]]
) -> None:
    limit = 10
    monkeypatch.setattr(apply, "MAX_ROWS", limit)
    monkeypatch.setattr(apply, "READ_BACK_OFFSETS", offsets)
    members = [2, 1, 3, 3, 1, 20, 1, 4, 1]  # two rows each; one event has more than the limit
    for number, count in enumerate(members):
        world.post(f"p{number}", [f"m{each}" for each in range(count)])
    await world.applier().apply(world.log)
    await world.open_wheel(watermark=1)
    added: list[tuple[int, int]] = []
    real = world.wheel.add

    async def noted(shard: int, topic: str, at: int, upto: int, timers: Any, **more: Any) -> int:
        added.append((upto, len(timers)))
        return await real(shard, topic, at, upto, timers, **more)

    monkeypatch.setattr(world.wheel, "add", noted)
    await world.applier().catch_up()
    assert added == parts
    await world.verify(2 * sum(members))


async def test_catch_up_says_so_when_the_wheel_is_lost(world: World) -> None:
    world.wheel.lose()
    with pytest.raises(WheelLostError):
        await world.applier().catch_up()


async def test_a_part_that_comes_again_sends_no_watermark_back(world: World) -> None:
    """What has fired and is not projected yet would be read back, and fire twice."""
    for number in range(6):
        world.post(f"p{number}", ["a"])
    await world.applier().apply(world.log)
    again = world.applier()
    await again.apply(world.log[:3])  # all of it had been applied, and more
    assert await world.wheel.watermark(SHARD, TOPIC) == 5
    await world.verify(12)


async def test_a_wheel_ahead_of_the_record_is_declared_lost(world: World) -> None:
    world.post("p1", ["a"])
    await world.applier().apply(world.log)
    world.record.rows.clear()
    world.record.at = -1  # as after a restore from a backup
    await world.applier().catch_up()
    assert (await world.wheel.size(SHARD)).gen is None
    await world.open_wheel()
    await world.applier().apply(world.log)
    await world.verify(2)


async def test_ids_that_are_there_already_get_no_timer_and_no_status(world: World) -> None:
    world.post("p1", ["a", "b"])
    await world.applier().apply(world.log)
    theirs = next(iter(world.record.rows.values()))
    other = World()
    await other.open_wheel()
    other.log = world.log

    async def inserted_meanwhile(name: str, method: Method, args: Arguments) -> Any:
        if name == "apply_plan":
            other.record.rows[theirs.activity_id] = theirs
        return await method(*args)

    await other.applier(inserted_meanwhile).apply(other.log)
    assert (await other.wheel.size(SHARD)).pending == 3
    assert theirs.activity_id not in {row.activity_id for row in other.outbox.statuses}
    assert await other.wheel.watermark(SHARD, TOPIC) == 0


async def test_a_watermark_that_never_moves_is_waited_for_not_spun_on(world: World) -> None:
    world.post("p1", ["a"])
    waits = 0

    async def sleep(_: float) -> None:
        nonlocal waits
        waits += 1

    async def stale(name: str, method: Method, args: Arguments) -> Any:
        if name == "apply_plan" and not waits:
            return None
        return await method(*args)

    await world.applier(stale, sleep).apply(world.log)
    assert waits == 1
    await world.verify(2)


def _mixed_log(world: World, rng: random.Random) -> int:
    """A log of good, doubled, broken and refused records; returns the activities it makes."""
    members: dict[str, set[str]] = {}
    for number in range(rng.randrange(5, 40)):
        kind = rng.random()
        if kind < 0.15:
            world.raw(rng.choice(BROKEN), gap=rng.choice((0, 0, 1)))
        else:
            post = f"p{rng.randrange(number + 1) if kind < 0.4 else number}"
            chosen = rng.sample("abcdefgh", rng.randrange(5))
            world.post(post, chosen)
            members.setdefault(post, set()).update(chosen)
    return sum(2 * len(those) for those in members.values())


def _batches(world: World, rng: random.Random, start: int) -> list[Any]:
    batches = []
    while start < len(world.log):
        size = rng.randrange(1, 8)
        batches.append(world.log[start : start + size])
        start += size
    return batches


def _crashing(rng: random.Random, share: float) -> Around:
    async def around(name: str, method: Method, args: Arguments) -> Any:
        if rng.random() < share / 2:
            raise Crash
        result = await method(*args)
        if rng.random() < share / 2:
            raise Crash
        return result

    return around


def _before(call: str, error: BaseException) -> Around:
    async def around(name: str, method: Method, args: Arguments) -> Any:
        if name == call:
            raise error
        return await method(*args)

    return around
