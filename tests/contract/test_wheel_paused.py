"""What every wheel does for who is paused, and with timers that are about to be changed."""

import random
from collections.abc import AsyncIterator, Sequence
from uuid import uuid4

import pytest
from msgspec.structs import replace

from scheduler.controls import EVERYBODY, Subject
from scheduler.errors import WheelBehindError, WheelLostError
from scheduler.policy import OverduePolicy
from scheduler.ports import Claim, Sight, WheelView
from scheduler.timer import Timer
from tests.contract.test_wheel import (
    EPOCH,
    GEN,
    HOUR_MS,
    NONCE,
    RESULTS,
    SHARD,
    TOPIC,
    claim,
    now,
    timer,
)
from tests.contract.test_wheel_view import viewed

COMMANDS = "pod-commands"
POD, MEMBER, OTHER = str(uuid4()), str(uuid4()), str(uuid4())

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def wheel(server: str | None) -> AsyncIterator[WheelView]:
    """Each wheel, open and empty."""
    async with viewed(server) as view:
        yield view


async def pause(wheel: WheelView, at: int, *who: Subject, on: bool = True) -> None:
    """The command at offset `at`."""
    moved = await wheel.add(SHARD, COMMANDS, at - 1, at, [], pauses=dict.fromkeys(who, on))
    assert moved == at


async def resume(wheel: WheelView, at: int, *who: Subject) -> None:
    await pause(wheel, at, *who, on=False)


async def parked(wheel: WheelView) -> tuple[int, int]:
    """Timers that wait, and how many of them are parked."""
    size = await wheel.size(SHARD)
    return size.pending, size.parked


def due(count: int, **changes: str) -> list[Timer]:
    at = now() - HOUR_MS
    return [timer(at + i, **changes) for i in range(count)]


@pytest.mark.parametrize(
    ("who", "changes"),
    [
        (Subject("pod", POD), {"pod_id": POD}),
        (Subject("member", MEMBER), {"member_id": MEMBER}),
        (Subject("opted_out", MEMBER), {"member_id": MEMBER}),
        (Subject("pod", "a pod of tea"), {"pod_id": "a pod of tea"}),
        (Subject("member", "Zoë"), {"member_id": "Zoë", "pod_id": "p", "post_id": "q"}),
    ],
    ids=["pod", "member", "opted out", "pod with a name", "all named"],
)
async def test_who_is_paused_does_not_fire_and_the_others_do(
    wheel: WheelView, who: Subject, changes: dict[str, str]
) -> None:
    theirs, others = due(3, **changes), due(2)
    later = timer(now() + HOUR_MS, **changes)
    await wheel.add(SHARD, TOPIC, -1, 0, [*theirs, *others, later])
    await pause(wheel, 0, who)
    first = await claim(wheel)
    assert list(first.timers) == others
    assert await parked(wheel) == (4, 3)
    assert (await claim(wheel, (1, "nonce-1"), "nonce-2")).empty
    await resume(wheel, 1, who)
    second = await claim(wheel, (1, "nonce-1"), "nonce-2")
    assert list(second.timers) == theirs
    assert second.next_due_ms == later.due_ms
    assert await parked(wheel) == (1, 0)


async def test_when_all_are_paused_nothing_is_due(wheel: WheelView) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, due(3))
    await pause(wheel, 0, EVERYBODY)
    found = await claim(wheel)
    assert found.empty
    assert found.next_due_ms is None
    size = await wheel.size(SHARD)
    assert (size.pending, size.due, size.parked, size.next_due_ms) == (3, 0, 0, None)
    await resume(wheel, 1, EVERYBODY)
    assert len((await claim(wheel)).timers) == 3


async def test_deadlines_come_when_all_are_paused(wheel: WheelView) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, due(1))
    await claim(wheel, await_ms=0)
    await pause(wheel, 0, EVERYBODY)
    found = await claim(wheel, (1, "nonce-1"), "nonce-2", await_ms=0)
    if found.empty:  # the same millisecond
        found = await claim(wheel, (1, "nonce-1"), "nonce-2", await_ms=0)
    assert len(found.timeouts) == 1


async def test_who_is_paused_twice_waits_for_both(wheel: WheelView) -> None:
    (one,) = due(1, pod_id=POD, member_id=MEMBER)
    await wheel.add(SHARD, TOPIC, -1, 0, [one])
    await pause(wheel, 0, Subject("pod", POD))
    assert (await claim(wheel)).empty
    await pause(wheel, 1, Subject("member", MEMBER), Subject("pod", POD))
    await resume(wheel, 2, Subject("pod", POD))
    assert (await claim(wheel)).empty
    assert await parked(wheel) == (1, 1)
    await resume(wheel, 3, Subject("member", MEMBER))
    assert list((await claim(wheel)).timers) == [one]


async def test_what_comes_while_its_pod_is_paused_is_parked(wheel: WheelView) -> None:
    await pause(wheel, 0, Subject("pod", POD))
    await wheel.add(SHARD, TOPIC, -1, 0, due(2, pod_id=POD))
    assert (await claim(wheel)).empty
    assert await parked(wheel) == (2, 2)


async def test_a_crowd_that_is_paused_holds_nobody_up(wheel: WheelView) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, [*due(50, pod_id=POD), *due(3)])
    await pause(wheel, 0, Subject("pod", POD))
    claimed: list[Timer] = []
    for _ in range(12):
        found = await claim(wheel, limit=10)
        claimed += found.timers
        if claimed:
            break
        # What has been done is to be gone on with at once.
        assert found.next_due_ms is not None
        assert found.next_due_ms <= found.now_ms
    assert len(claimed) == 3


async def test_a_lane_is_parked_too(wheel: WheelView) -> None:
    crowd = due(60, pod_id=POD)
    await wheel.add(SHARD, TOPIC, -1, 0, [*crowd, *due(3)])
    first = await claim(wheel, limit=10)
    await pause(wheel, 0, Subject("pod", POD))
    claimed = [*first.timers]
    done = (1, "nonce-1")
    for n in range(20):
        found = await claim(wheel, done, f"n-{n}", limit=10)
        claimed += found.timers
        if not found.empty:
            done = (found.seq, found.nonce)
    left = 60 - sum(each.pod_id == POD for each in claimed)
    assert await parked(wheel) == (left, left)
    await resume(wheel, 1, Subject("pod", POD))
    for n in range(20):
        found = await claim(wheel, done, f"m-{n}", limit=10)
        claimed += found.timers
        if not found.empty:
            done = (found.seq, found.nonce)
    assert [each for each in claimed if each.pod_id == POD] == crowd
    assert len(claimed) == 63


async def test_what_was_paused_is_overdue_afterwards(wheel: WheelView) -> None:
    theirs = due(3, pod_id=POD)
    await wheel.add(SHARD, TOPIC, -1, 0, theirs)
    policy = OverduePolicy("expire", 1000)
    await pause(wheel, 0, Subject("pod", POD))
    assert (await claim(wheel, overdue=policy)).empty
    await resume(wheel, 1, Subject("pod", POD))
    assert list((await claim(wheel, overdue=policy)).overdue) == theirs


async def test_a_rebuilt_wheel_knows_who_is_paused(wheel: WheelView) -> None:
    theirs, others = due(2, pod_id=POD), due(2)
    await wheel.add(SHARD, TOPIC, -1, 0, due(4, pod_id=OTHER))
    await pause(wheel, 0, Subject("pod", OTHER))
    assert (await claim(wheel)).empty
    await wheel.wipe(SHARD, EPOCH)
    await wheel.load(SHARD, EPOCH, [*theirs, *others])
    await wheel.open(
        SHARD, EPOCH, GEN, (0, NONCE), {COMMANDS: 5}, holding=(4, 0), paused=[Subject("pod", POD)]
    )
    found = await claim(wheel)
    assert list(found.timers) == others
    assert await parked(wheel) == (2, 2)
    assert len([each async for page in wheel.timers(SHARD) for each in page]) == 2


async def test_parked_timers_are_seen_changed_and_removed(wheel: WheelView) -> None:
    one, two, three = due(3, pod_id=POD)
    await wheel.add(SHARD, TOPIC, -1, 0, [one, two, three])
    await pause(wheel, 0, Subject("pod", POD))
    assert (await claim(wheel)).empty
    sighting = await wheel.find(SHARD, [one, two, replace(three, due_ms=three.due_ms + 1)])
    assert [each.waits for each in sighting.sights] == [True, True, False]
    seen = {each.timer for page in [p async for p in wheel.timers(SHARD)] for each in page}
    assert seen == {one, two, three}
    assert (await wheel.count(SHARD)).waiting == 3
    later = replace(two, due_ms=now() + HOUR_MS)
    await wheel.add(SHARD, COMMANDS, 0, 1, [later], remove=[one, two])
    assert await parked(wheel) == (2, 1)
    await resume(wheel, 2, Subject("pod", POD))
    # Those that are no longer paused wait before all others, where they were.
    assert (await wheel.find(SHARD, [three])).sights == [Sight(waits=True, in_flight=False)]
    assert (await wheel.count(SHARD)).waiting == 2
    found = await claim(wheel)
    assert list(found.timers) == [three]
    assert found.next_due_ms == later.due_ms


async def test_an_owner_that_sleeps_is_woken_by_a_resume(wheel: WheelView) -> None:
    await wheel.add(SHARD, TOPIC, -1, 0, due(1, pod_id=POD))
    await pause(wheel, 0, Subject("pod", POD))
    assert (await claim(wheel)).empty
    async with wheel.wakes([SHARD]) as heard:
        await resume(wheel, 1, Subject("pod", POD))
        assert await anext(heard) == SHARD


async def test_a_pause_that_lost_its_swap_does_nothing(wheel: WheelView) -> None:
    await pause(wheel, 0, Subject("pod", OTHER))
    assert await wheel.add(SHARD, COMMANDS, -1, 1, [], pauses={EVERYBODY: True}) == 0
    await wheel.add(SHARD, TOPIC, -1, 0, due(1))
    assert len((await claim(wheel)).timers) == 1


def due_of(timer: Timer) -> int:
    return timer.due_ms


async def aside(wheel: WheelView, timers: Sequence[Timer], at: int = -1) -> Sequence[bool] | None:
    found = await wheel.set_aside(SHARD, COMMANDS, at, timers)
    assert found is None or found.gen == GEN
    return None if found is None else found.held


async def test_what_is_set_aside_cannot_fire(wheel: WheelView) -> None:
    here, flying = due(2)
    later = timer(now() + HOUR_MS)
    await wheel.add(SHARD, TOPIC, -1, 0, [flying])
    await claim(wheel)
    await wheel.add(SHARD, TOPIC, 0, 1, [here, later])
    found = await aside(wheel, [here, flying, later, timer(now())])
    assert found == [True, False, True, False]
    again = await aside(wheel, [here, flying, later])
    assert again == [True, False, True]
    assert sorted(await wheel.aside(SHARD, COMMANDS), key=due_of) == [here, later]
    assert await wheel.aside(SHARD, RESULTS) == []
    assert (await claim(wheel, (1, "nonce-1"), "nonce-2")).empty
    assert len([each async for page in wheel.timers(SHARD) for each in page]) == 3
    assert (await wheel.count(SHARD)).waiting == 2
    assert (await wheel.find(SHARD, [here])).sights[0].waits
    moved = replace(here, due_ms=now() + 2 * HOUR_MS)
    await wheel.add(SHARD, COMMANDS, -1, 0, [moved], remove=[here, later])
    assert await wheel.aside(SHARD, COMMANDS) == []
    size = await wheel.size(SHARD)
    assert (size.pending, size.held) == (1, 0)
    assert (await wheel.find(SHARD, [moved])).sights[0].waits


async def test_what_is_aside_when_its_command_is_over_waits_again(wheel: WheelView) -> None:
    here, later = due(1)[0], timer(now() + HOUR_MS)
    await wheel.add(SHARD, TOPIC, -1, 0, [here, later])
    assert await aside(wheel, [here, later]) == [True, True]
    # Another topic's input has nothing to do with it.
    await wheel.add(SHARD, TOPIC, 0, 1, [])
    assert (await claim(wheel)).empty
    async with wheel.wakes([SHARD]) as heard:
        await wheel.add(SHARD, COMMANDS, -1, 0, [])
        assert await anext(heard) == SHARD
    found = await claim(wheel)
    assert list(found.timers) == [here]
    assert found.next_due_ms == later.due_ms


async def test_what_is_held_back_can_be_set_aside(wheel: WheelView) -> None:
    one, other = due(2)
    await wheel.add(SHARD, TOPIC, -1, 0, [one, other])
    overdue = OverduePolicy("postpone", 1_000)
    held = await claim(wheel, overdue=overdue)
    assert list(held.overdue) == [one, other]
    assert await aside(wheel, [one, other]) == [True, True]
    assert await wheel.aside(SHARD, COMMANDS) == [one, other]
    size = await wheel.size(SHARD)
    assert (size.pending, size.held) == (2, 0)
    # One is let go; the other waits in its slot, and is found overdue once more.
    await wheel.add(SHARD, COMMANDS, -1, 0, [], remove=[one])
    again = await claim(wheel, (1, "nonce-1"), "nonce-2", overdue=overdue)
    assert list(again.overdue) == [other]


async def test_a_wheel_that_knows_of_fewer_steps_has_gone_back_in_time(wheel: WheelView) -> None:
    one, other = due(2)
    await wheel.add(SHARD, TOPIC, -1, 0, [one, other])
    first = await wheel.set_aside(SHARD, COMMANDS, -1, [one])
    assert first is not None
    # A step of its own counts, and so does that of somebody else.
    assert await wheel.add(SHARD, COMMANDS, -1, -1, [], remove=[one], seen=first) == -1
    seen = replace(first, step=first.step + 1)
    again = await wheel.set_aside(SHARD, COMMANDS, -1, [other], seen=seen)
    assert again == replace(first, step=first.step + 2)
    # What is said of another life says nothing of this one.
    ahead = replace(again, step=again.step + 1)
    assert await wheel.set_aside(SHARD, COMMANDS, -1, [], seen=replace(ahead, gen="another"))
    assert await wheel.add(SHARD, COMMANDS, -1, -1, [], seen=replace(ahead, gen="another")) == -1
    async with wheel.wakes([SHARD]) as heard:
        with pytest.raises(WheelLostError):
            await wheel.add(SHARD, COMMANDS, -1, 0, [], seen=replace(again, step=99))
        assert await anext(heard) == SHARD
    assert (await wheel.meta(SHARD)).gen is None


async def test_who_sets_aside_in_a_wheel_that_has_gone_back_in_time(wheel: WheelView) -> None:
    first = await wheel.set_aside(SHARD, COMMANDS, -1, [])
    assert first is not None
    with pytest.raises(WheelLostError):
        await wheel.set_aside(SHARD, COMMANDS, -1, [], seen=replace(first, step=first.step + 1))
    assert (await wheel.meta(SHARD)).gen is None


async def test_a_wheel_that_is_lost_has_nothing_aside(wheel: WheelView) -> None:
    await wheel.forget(SHARD)
    with pytest.raises(WheelLostError):
        await wheel.aside(SHARD, COMMANDS)


async def test_a_wheel_that_is_built_anew_has_nothing_aside(wheel: WheelView) -> None:
    (one,) = due(1)
    await wheel.add(SHARD, TOPIC, -1, 0, [one])
    assert await aside(wheel, [one]) == [True]
    await wheel.wipe(SHARD, EPOCH)
    await wheel.open(SHARD, EPOCH, GEN, (0, NONCE), {}, holding=(0, 0))
    assert (await wheel.count(SHARD)).waiting == 0


async def test_what_is_parked_can_be_set_aside(wheel: WheelView) -> None:
    (one,) = due(1, pod_id=POD)
    await wheel.add(SHARD, TOPIC, -1, 0, [one])
    await pause(wheel, 0, Subject("pod", POD))
    assert (await claim(wheel)).empty
    assert await aside(wheel, [one], 0) == [True]
    assert await parked(wheel) == (1, 0)
    await resume(wheel, 1, Subject("pod", POD))
    assert list((await claim(wheel)).timers) == [one]


async def test_a_late_writer_sets_nothing_aside(wheel: WheelView) -> None:
    (one,) = due(1)
    await wheel.add(SHARD, TOPIC, -1, 0, [one])
    await pause(wheel, 0, Subject("pod", OTHER))
    assert await aside(wheel, [one]) is None
    assert len((await claim(wheel)).timers) == 1


async def test_nothing_is_set_aside_before_what_it_follows_from(wheel: WheelView) -> None:
    (one,) = due(1)
    await wheel.add(SHARD, TOPIC, -1, 0, [one])
    with pytest.raises(WheelBehindError):
        await wheel.set_aside(SHARD, COMMANDS, -1, [one], after={RESULTS: 3})
    assert len((await claim(wheel)).timers) == 1
    await wheel.forget(SHARD)
    with pytest.raises(WheelLostError):
        await aside(wheel, [one])


@pytest.mark.parametrize("seed", range(8))
async def test_whoever_is_paused_each_is_claimed_once(wheel: WheelView, seed: int) -> None:
    rng = random.Random(seed)
    pods = [str(uuid4()) if rng.random() < 0.8 else f"pod {n}" for n in range(6)]
    members = [str(uuid4()) if rng.random() < 0.8 else f"member {n}" for n in range(6)]
    everyone = [EVERYBODY, *(Subject("pod", each) for each in pods)]
    everyone += [Subject("member", each) for each in members]
    limit = rng.choice((7, 40, 200))
    at = now() - 50_000
    timers = [
        timer(at + rng.randrange(50_000), pod_id=rng.choice(pods), member_id=rng.choice(members))
        for _ in range(300)
    ]
    paused: set[Subject] = set()
    claimed: list[Timer] = []
    done, added, commands = (0, NONCE), -1, -1

    async def turn() -> Claim:
        nonlocal done
        found = await claim(wheel, done, f"n-{done[0] + 1}", limit=limit)
        for each in found.timers:
            assert EVERYBODY not in paused
            assert Subject("pod", each.pod_id) not in paused
            assert Subject("member", each.member_id) not in paused
        claimed.extend(found.timers)
        if not found.empty:
            done = (found.seq, found.nonce)
        return found

    for _ in range(120):
        if rng.random() < 0.3 and (some := timers[(added + 1) * 30 : (added + 2) * 30]):
            added = await wheel.add(SHARD, TOPIC, added, added + 1, some)
        if rng.random() < 0.4:
            who, on = rng.choice(everyone), rng.random() < 0.5
            commands += 1
            await pause(wheel, commands, who, on=on)
            paused = paused | {who} if on else paused - {who}
        await turn()
    while some := timers[(added + 1) * 30 : (added + 2) * 30]:
        added = await wheel.add(SHARD, TOPIC, added, added + 1, some)
    await resume(wheel, commands + 1, *everyone)
    paused.clear()
    while not (found := await turn()).empty or (found.next_due_ms or found.now_ms) < found.now_ms:
        pass
    assert sorted(claimed, key=str) == sorted(timers, key=str)
    size = await wheel.size(SHARD)
    assert (size.pending, size.due, size.parked, size.in_flight) == (0, 0, 0, 0)
