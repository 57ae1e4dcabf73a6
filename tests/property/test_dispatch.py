"""The dispatcher's protocol under every interleaving and death that chance can find.

Several owners of one shard run at once (a rightful one, zombies, those that come back), each dies
at random points between or inside its steps; the wheel is lost, or goes back in time; rows and
results come in meanwhile. However it goes: each activity fires exactly once, and never early; and
each whose result does not come is given up, also never early, but none whose result has come.
Where overdue timers are laid out anew or given up, each fires once or expires, and never both.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from scheduler import project
from scheduler.activity import Announcement, PlannedActivity, RowChange, Status
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.commands import CommandApplier
from scheduler.dispatch import ShardDispatcher
from scheduler.errors import EngineError, TransientError, WheelLostError
from scheduler.patience import Patience
from scheduler.policy import OverduePolicy, PacingPolicy
from scheduler.ports import Claim, SourceRecord
from scheduler.project import Projection
from scheduler.tasks import ended
from scheduler.timer import Timer, pack
from schemas.codec import encode
from schemas.ids import activity_id
from tests.property.shard_world import SHARD, STATUSES, Died, Shaky, ShardWorld

INPUT = "post-detected"
RESULTS = "engagement-executed"
COMMANDS = "pod-commands"
INPUTS = (INPUT, RESULTS, COMMANDS)
ACTIVITIES = 60
OWNERS = 3
AWAIT_MS = 250
OVERDUE_MS = 150
POSTPONE, EXPIRE = (
    OverduePolicy("postpone", OVERDUE_MS),
    OverduePolicy("expire", OVERDUE_MS),
)
POLICIES = ((None,), (POSTPONE,), (EXPIRE,), (None, POSTPONE))
PACING = PacingPolicy(like_cap_window_ms=100)


class World(ShardWorld):
    """One shard's stores, a clock, and chance. Without `accidents` the wheel is never lost."""

    def __init__(
        self,
        seed: int,
        *,
        accidents: bool = True,
        policies: Sequence[OverduePolicy | None] = (None,),
        lingers: bool = False,
    ) -> None:
        super().__init__(
            seed,
            inputs=INPUTS,
            await_ms=AWAIT_MS,
            death=0.02,
            policies=policies,
            lingers=lingers,
        )
        # Alone it keeps the shard for long enough to be overtaken while it gathers.
        self.owners = 1 if lingers else OWNERS
        self.accidents = accidents
        self.wheel: WatchedWheel = WatchedWheel(self)
        self.planned: list[PlannedActivity] = []
        self.answered: list[Timer] = []  # by the offset of the result
        self.seen: dict[int, Mapping[str, int]] = {}  # what each result follows from
        self.needless: list[Timer] = []
        self.statuses: list[Announcement] = []

    async def announce(self, shard: int, statuses: Sequence[Announcement]) -> None:
        self.statuses += statuses

    def reader(self) -> CommandApplier:
        """What applies the reports of this world; it dies as owners do."""
        ports: dict[str, Any] = {
            "record": Shaky(self.record, self.pause, without={"snapshot"}),
            "wheel": Shaky(self.wheel, self.pause),
            "outbox": Shaky(self, self.pause),
            "patience": Patience("test", sleep=lambda _: asyncio.sleep(0)),
        }
        return CommandApplier(
            SHARD, COMMANDS, inputs=INPUTS, policy=PACING, overdue=self.policy, **ports
        )


class WatchedWheel(MemoryWheel):
    """Takes note of each timeout that it hands out although it knows that the result has come."""

    def __init__(self, world: World) -> None:
        super().__init__(lambda: world.now_ms)
        self._world = world
        self.forgotten = 0

    async def forget(self, shard: int) -> None:
        self.forgotten += 1
        await super().forget(shard)

    async def claim(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        nonce: str,
        limit: int,
        await_ms: int,
        overdue: OverduePolicy | None = None,
    ) -> Claim:
        claim = await super().claim(shard, epoch, gen, done, nonce, limit, await_ms, overdue)
        if claim.nonce == nonce:  # not one that is handed out again
            known = self._of(shard).watermarks.get(RESULTS, -1)
            done_ids = {each.activity_id for each in self._world.answered[: known + 1]}
            self._world.needless += [t for t in claim.timeouts if t.activity_id in done_ids]
        return claim


async def owning(world: World, until: Callable[[], bool]) -> None:
    """A process that owns the shard, dies, comes back, and does what the dispatcher does."""
    lost = False
    while not until():
        owner = world.owner()
        projecting = None
        try:
            await owner.take(rebuild=lost)
            lost = False
            projecting = asyncio.create_task(owner.project())
            for _ in range(world.rng.randint(1, 30)):
                await owner.run_once()
                await asyncio.sleep(0)
        except WheelLostError:
            lost = True
        except (EngineError, Died):
            pass
        finally:
            if projecting is not None:
                projecting.cancel()
                await asyncio.gather(projecting, return_exceptions=True)
        await asyncio.sleep(0)


async def ingesting(world: World) -> None:
    """What the worker does: the row first, then the timer, each with its watermark."""
    offset = -1
    while offset < ACTIVITIES - 1:
        world.now_ms += world.rng.randint(0, 30)
        if world.pushes and world.fate.random() < 0.1:
            world.now_ms += world.fate.randint(50, 3 * OVERDUE_MS)  # an outage
        ids = ("pod", "post", f"member-{offset + 1}", "like")
        row = PlannedActivity(
            activity_id(*ids),
            "pod",
            "post",
            ids[2],
            "like",
            world.now_ms + world.rng.randint(-50, 300),
            offset + 1,
        )
        there = await world.record.apply_plan(INPUT, SHARD, offset, offset + 1, [row])
        assert there == frozenset()
        world.planned.append(row)
        offset += 1
        if world.rng.random() < 0.8:
            await catch_up(world)
        for _ in range(world.rng.randint(0, 60)):
            await asyncio.sleep(0)


async def reporting(world: World, until: Callable[[], bool]) -> None:
    """A worker that applies the dispatchers' reports, and dies, and goes on where it had acked."""
    acked = 0
    while not until():
        applier = world.reader()
        try:
            while not until():
                if world.fate.random() < 0.1:
                    with suppress(TransientError):
                        await applier.catch_up()
                reports = world.reports[acked : acked + world.fate.randint(1, 3)]
                await applier.apply(
                    [
                        SourceRecord(COMMANDS, SHARD, acked + n, None, encode(report))
                        for n, report in enumerate(reports)
                    ]
                )
                await world.pause()
                acked += len(reports)
                for _ in range(world.fate.choice((1, 5, 40))):
                    await asyncio.sleep(0)
        except Died:
            # Some of what it has applied, or all of it, comes again.
            acked = max(0, acked - world.fate.randint(0, 3))


async def answering(world: World, until: Callable[[], bool]) -> None:
    """Executors that report some of what they are sent, sooner or later, and the worker that
    applies it: the row first, then the wheel, each with its watermark."""
    seen = 0
    waiting: list[Timer] = []
    while not until():
        fired = world.kafka.fired[seen:]
        seen += len(fired)
        waiting += [each.timer for each in fired if world.rng.random() < 0.6]
        if waiting and world.rng.random() < 0.3:
            await answer(world, waiting.pop(world.rng.randrange(len(waiting))))
        if world.rng.random() < 0.5:
            await catch_up(world)
        for _ in range(world.rng.randint(0, 20)):
            await asyncio.sleep(0)


async def answer(world: World, timer: Timer) -> None:
    offset = len(world.answered)
    world.answered.append(timer)
    moved = None
    while moved is None:  # the projection may change the row meanwhile
        row = (await world.record.rows([timer.activity_id]))[timer.activity_id]
        change = RowChange(
            row=row,
            cause=offset,
            status=Status.EXECUTED,
            attempt=row.attempt,
            scheduled_for_ms=row.scheduled_for_ms,
        )
        await asyncio.sleep(0)
        moved = await world.record.change(RESULTS, SHARD, offset - 1, offset, [change], by="result")
    world.seen[offset] = {topic: at for topic, at in moved.items() if topic in INPUTS}


async def catch_up(world: World) -> None:
    """Do to the wheel what the record has and the wheel's watermarks do not cover."""
    try:
        at = await world.wheel.watermark(SHARD, INPUT)
        upto = await world.record.watermark(INPUT, SHARD)
        if at < upto:
            timers = await world.record.unfired_between(SHARD, at, upto)
            await asyncio.sleep(0)
            await world.wheel.add(SHARD, INPUT, at, upto, timers)
        at = await world.wheel.watermark(SHARD, RESULTS)
        upto = await world.record.watermark(RESULTS, SHARD)
        if at < upto:
            # What each follows from is waited for: a timer that is yet to come cannot be removed.
            # One by one: a command may follow from the first of them, and the second from that.
            for offset in range(at + 1, upto + 1):
                after = world.seen[offset]
                done = [world.answered[offset]]
                await asyncio.sleep(0)
                await world.wheel.add(
                    SHARD, RESULTS, offset - 1, offset, [], remove=done, after=after
                )
    except TransientError:
        pass


async def catching_up(world: World) -> None:
    while True:
        await catch_up(world)
        await asyncio.sleep(0)


async def accidents(world: World, until: Callable[[], bool]) -> None:
    """FLUSHALL now and then, and a Redis that comes back from an older state."""
    older = copy.deepcopy(world.wheel._shards)
    while not until() and world.accidents:
        await asyncio.sleep(0)
        chance = world.rng.random()
        if chance < 0.002:
            world.wheel.lose()
        elif chance < 0.010:
            older = copy.deepcopy(world.wheel._shards)
        elif chance < 0.015:
            world.wheel._shards = copy.deepcopy(older)


async def live(world: World) -> None:
    ingest = asyncio.create_task(ingesting(world))
    # It waits for a wheel, however long there is none: not for ever once nobody builds one.
    reports = asyncio.create_task(reporting(world, ingest.done))
    turbulence = [
        *(asyncio.create_task(owning(world, ingest.done)) for _ in range(world.owners)),
        asyncio.create_task(answering(world, ingest.done)),
        asyncio.create_task(accidents(world, ingest.done)),
    ]
    await asyncio.gather(ingest, *turbulence)
    await ended(reports)
    # Calm at last: one owner, nothing breaks, and the clock passes the last due time.
    world.calm = True
    world.now_ms += 10_000
    still = [
        asyncio.create_task(reporting(world, lambda: False)),
        asyncio.create_task(catching_up(world)),
    ]
    # What is laid out anew takes its time.
    last = 1000 if world.pushes else 100
    rounds = iter(range(last))

    def over() -> bool:
        # Not while something is held back: it could come late for ever.
        world.now_ms += 40 if world.pushes and not world.wheel._of(SHARD).held else 0
        table = world.record.table.values()
        gone = sum(row.status is Status.EXPIRED for row in table)
        return len(world.kafka.fired) + gone >= ACTIVITIES or next(rounds, last) == last

    await owning(world, over)
    await catch_up(world)
    rounds = iter(range(3))
    await owning(world, lambda: next(rounds, 9) == 9)
    # And the last deadline.
    rounds = iter(range(10))
    world.now_ms += 10_000
    await owning(world, lambda: next(rounds, 99) == 99)
    for task in still:
        if task.done():
            task.result()
    await ended(*still)


def judge(world: World) -> None:
    fired = Counter(each.timer.activity_id for each in world.kafka.fired)
    planned = {row.activity_id: row for row in world.planned}
    table = world.record.table
    expired = {name for name, row in table.items() if row.status is Status.EXPIRED}
    assert not set(fired) & expired, "fired and expired"
    assert set(fired) | expired == set(planned), "lost, or never planned"
    assert not world.wheel._of(SHARD).held, "forgotten among what is held back"
    told = {each.activity_id for each in world.statuses if each.status is Status.EXPIRED}
    assert told == expired, "its end was not told"
    assert not {each: times for each, times in fired.items() if times > 1}, "twice"
    for each in world.kafka.fired:
        if world.agreed:
            assert each.timer.due_ms == table[each.timer.activity_id].scheduled_for_ms
        assert each.timer.due_ms >= planned[each.timer.activity_id].scheduled_for_ms
        assert each.at_ms >= each.timer.due_ms, "early"
    judge_timeouts(world)


def judge_timeouts(world: World) -> None:
    sent_ms = {each.timer.activity_id: each.at_ms for each in world.kafka.fired}
    given_up = Counter(each.timer.activity_id for each in world.kafka.timeouts)
    for each in world.kafka.timeouts:
        assert each.timer.due_ms >= sent_ms[each.timer.activity_id] + AWAIT_MS, "given up early"
        assert each.at_ms >= each.timer.due_ms, "given up before its deadline"
    assert not sent_ms.keys() - given_up.keys() - {t.activity_id for t in world.answered}, (
        "forgotten"
    )
    assert not world.needless, "given up although the wheel knew the result"
    if not world.accidents and not world.wheel.forgotten:
        assert not {each: times for each, times in given_up.items() if times > 1}, "given up twice"


@given(
    seed=st.integers(0, 2**32),
    kept=st.sampled_from((1, 8, 100_000)),
    lingers=st.booleans(),
    policies=st.sampled_from(POLICIES),
)
@example(seed=1, kept=100_000, lingers=False, policies=(None,))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_each_activity_fires_exactly_once_and_never_early(
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    kept: int,
    lingers: bool,
    policies: Sequence[OverduePolicy | None],
) -> None:
    # Few: then a projection is overtaken by what is fired while it gathers or waits.
    monkeypatch.setattr(project, "KEPT_CHANGES", kept)
    world = World(seed, policies=policies, lingers=lingers)
    asyncio.run(live(world))
    judge(world)


@given(seed=st.integers(0, 2**32), policies=st.sampled_from(POLICIES))
@settings(max_examples=60)
def test_as_long_as_the_wheel_is_kept_each_attempt_is_given_up_once(
    seed: int, policies: Sequence[OverduePolicy | None]
) -> None:
    world = World(seed, accidents=False, policies=policies)
    asyncio.run(live(world))
    judge(world)


async def test_the_record_ends_up_knowing_all_that_fired() -> None:
    world = World(3)
    await live(world)
    await Projection(SHARD, STATUSES, world.record, world.kafka).drain(
        world.kafka.open().status_end
    )
    answered = {timer.activity_id for timer in world.answered}
    for row in world.record.table.values():
        assert row.status is (Status.EXECUTED if row.id in answered else Status.DISPATCHED)
    assert answered


async def test_chance_really_kills_and_rebuilds() -> None:
    world = World(4)
    await live(world)
    assert world.deaths > 5
    assert len({cursor.gen for cursor in world.kafka.cursors}) > 2
    assert len(world.answered) > 5
    assert len(world.kafka.timeouts) > 5


async def test_where_the_epoch_stands_is_not_what_exactness_rests_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever has fenced last is the only one who can commit, wherever the epoch is taken."""
    monkeypatch.setattr(ShardDispatcher, "take", _epoch_at_last)
    for seed in range(40):
        world = World(seed)
        await live(world)
        judge(world)


# The judge must be able to fail. Each of these breaks one step of the protocol on purpose.


async def _cursor_before_fence(self: ShardDispatcher, *, rebuild: bool = False) -> None:
    self._epoch = self._token()
    state = await self._wheel.take(self._shard, self._epoch)
    cursor = await self._log.cursor()
    await self._log.fence()
    if rebuild or cursor is None or state.gen != cursor.gen:
        cursor = await self._rebuild.run(
            self._shard, self._epoch, self._log, self._projection, cursor
        )
    self._done = cursor


async def _epoch_at_last(self: ShardDispatcher, *, rebuild: bool = False) -> None:
    await self._log.fence()
    cursor = await self._log.cursor()
    self._epoch = self._token()
    state = await self._wheel.take(self._shard, self._epoch)
    if rebuild or cursor is None or state.gen != cursor.gen:
        cursor = await self._rebuild.run(
            self._shard, self._epoch, self._log, self._projection, cursor
        )
    self._done = cursor


async def _no_drain(self: Projection, asked_end: object) -> None:
    pass


async def _over_a_gap(self: Projection) -> int:
    if self._commits:
        self._behind = False
    return await _run_once(self)


async def _any_batch_is_settled(
    self: MemoryWheel,
    shard: int,
    epoch: str,
    gen: str,
    done: tuple[int, str],
    nonce: str,
    limit: int,
    await_ms: int,
    overdue: OverduePolicy | None = None,
) -> Claim:
    state = self._of(shard)
    if state.gen == gen:
        done = (state.seq, state.nonce)
    return await _claim(self, shard, epoch, gen, done, nonce, limit, await_ms, overdue)


async def _awaited_from_the_claim_on(
    self: MemoryWheel,
    shard: int,
    epoch: str,
    gen: str,
    done: tuple[int, str],
    nonce: str,
    limit: int,
    await_ms: int,
    overdue: OverduePolicy | None = None,
) -> Claim:
    claim = await _claim(self, shard, epoch, gen, done, nonce, limit, await_ms, overdue)
    if claim.nonce == nonce:
        self._of(shard).awaited.update(
            (pack(timer), replace(timer, due_ms=claim.now_ms + await_ms)) for timer in claim.timers
        )
    return claim


async def _not_loaded(self: MemoryWheel, shard: int, epoch: str, timers: Sequence[Timer]) -> None:
    pass


def _nothing_is_awaited(self: MemoryWheel, state: Any, deadline_ms: int) -> None:
    state.in_flight = None


def _answers_are_forgotten(self: MemoryWheel, state: Any, deadline_ms: int) -> None:
    state.answered.clear()
    _settle(self, state, deadline_ms)


def _held_and_fired(
    self: MemoryWheel,
    state: Any,
    due: Sequence[Timer],
    now_ms: int,
    policy: OverduePolicy | None,
) -> tuple[Sequence[Timer], int | None]:
    shift_ms = _hold(self, state, due, now_ms, policy)[1]
    return (), shift_ms


async def _never_released(self: MemoryWheel, shard: int, *args: Any, **kwargs: Any) -> int:
    state = self._of(shard)
    held, state.held = state.held, {}
    try:
        return await _add(self, shard, *args, **kwargs)
    finally:
        state.held = held


async def _moved_blindly(
    self: MemoryWheel, shard: int, topic: str, expected: int, upto: int, timers: Any, **kwargs: Any
) -> int:
    if timers and kwargs.get("remove"):
        await _add(self, shard, topic, expected, expected, [], **kwargs)
        kwargs = {}
    return await _add(self, shard, topic, expected, upto, timers, **kwargs)


async def _not_wiped(self: MemoryWheel, shard: int, epoch: str) -> None:
    held = self._of(shard).held
    await _wipe(self, shard, epoch)
    self._of(shard).held = held


_add = MemoryWheel.add
_hold = MemoryWheel._hold
_wipe = MemoryWheel.wipe
_claim = MemoryWheel.claim
_settle = MemoryWheel._settle
_run_once = Projection.run_once


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        pytest.param(ShardDispatcher, "take", _cursor_before_fence, id="cursor-before-fence"),
        pytest.param(Projection, "drain", _no_drain, id="rebuild-without-drain"),
        pytest.param(Projection, "run_once", _over_a_gap, id="projected-over-a-gap"),
        pytest.param(MemoryWheel, "claim", _any_batch_is_settled, id="settle-before-commit"),
        pytest.param(MemoryWheel, "claim", _awaited_from_the_claim_on, id="awaited-from-the-claim"),
        pytest.param(MemoryWheel, "_settle", _nothing_is_awaited, id="settle-without-awaiting"),
        pytest.param(MemoryWheel, "_settle", _answers_are_forgotten, id="answers-forgotten"),
        pytest.param(MemoryWheel, "_hold", _held_and_fired, id="held-and-fired"),
        pytest.param(MemoryWheel, "add", _never_released, id="held-for-ever"),
        pytest.param(MemoryWheel, "add", _moved_blindly, id="moved-blindly"),
        pytest.param(MemoryWheel, "wipe", _not_wiped, id="held-beyond-a-rebuild"),
        pytest.param(MemoryWheel, "load_awaited", _not_loaded, id="rebuild-without-awaited"),
    ],
)
async def test_a_broken_protocol_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: object
) -> None:
    monkeypatch.setattr(owner, name, broken)
    if owner is Projection:
        monkeypatch.setattr(project, "KEPT_CHANGES", 1)
    for seed in range(300):
        lingers = owner is Projection
        world = World(seed, policies=POLICIES[seed % len(POLICIES)], lingers=lingers)
        await live(world)
        try:
            judge(world)
        except AssertionError:
            return
    pytest.fail("the judge has not noticed")
