"""The whole life of activities under every interleaving and death that chance can find.

Workers apply three logs, dispatchers fire, an executor answers as it likes: late, twice, wrongly,
not at all. Each process dies at random points and comes back while its ghost is still at work; the
wheel is lost or goes back in time. However it goes: each activity comes to one end, each attempt is
fired exactly once, each executed one is counted once, and nothing is left behind in the wheel.
"""

import asyncio
import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from scheduler import project
from scheduler.activity import FINAL, Announcement, PostPlan, Status
from scheduler.adapters.memory_record import MemoryRecord, Row
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.apply import PostDetectedApplier
from scheduler.commands import CommandApplier
from scheduler.errors import EngineError, TransientError, WheelLostError
from scheduler.patience import Patience
from scheduler.planner import plan
from scheduler.policy import DelayWindow, OverduePolicy, PacingPolicy, RetryPolicy
from scheduler.ports import Claim, SourceRecord
from scheduler.results import ResultApplier
from scheduler.timer import Timer
from schemas import codec
from schemas.events import EngagementExecuted, PodCommand, PostDetected
from schemas.times import moment
from tests.property.shard_world import SHARD, Died, Shaky, ShardWorld

POSTS, RESULTS, COMMANDS = INPUTS = ("post-detected", "engagement-executed", "pod-commands")
EVENTS = 12
MEMBERS = 3
AWAIT_MS = 400
OVERDUE_MS = 300  # more than a timer waits for its dispatcher when nothing breaks
POSTPONE, EXPIRE = (
    OverduePolicy("postpone", OVERDUE_MS),
    OverduePolicy("expire", OVERDUE_MS),
)
MIXED = (None, POSTPONE, EXPIRE)  # an operator who cannot decide
POLICIES = ((None,), (POSTPONE,), (EXPIRE,), MIXED)
RETRIES = RetryPolicy(3, 60, 0.10)
POLICY = PacingPolicy(
    like=DelayWindow(20, 200, 0.10), comment=DelayWindow(50, 400, 0.15), like_cap_window_ms=100
)


class Outbox:
    """Keeps what was sent; what is forwarded goes nowhere, as there is one shard."""

    def __init__(self) -> None:
        self.statuses: list[Announcement] = []
        self.letters: list[tuple[SourceRecord, str]] = []

    async def announce(self, shard: int, statuses: Sequence[Announcement]) -> None:
        self.statuses += statuses

    async def dead_letter(
        self, record: SourceRecord, reason: str, extra: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.letters.append((record, reason))

    async def forward(self, record: SourceRecord, partition: int) -> None:
        raise AssertionError("there is one shard only")


class WatchedWheel(MemoryWheel):
    """Notes what is claimed though it was over, or though its pod or member was paused or had opted
    out, and the wheel had been told so."""

    record: MemoryRecord
    commands: Sequence[SourceRecord] = ()

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.claimed_too_late: list[Timer] = []
        self.claimed_against_orders: list[Timer] = []

    async def claim(self, *args: Any) -> Claim:
        before = self._of(SHARD).seq
        claim = await super().claim(*args)
        if claim.seq != before:
            self.claimed_too_late += [each for each in claim.timers if self._is_over(each)]
            self.claimed_against_orders += [each for each in claim.timers if self._is_barred(each)]
        return claim

    def _is_over(self, timer: Timer) -> bool:
        row = self.record.table[timer.activity_id]
        told = self._of(SHARD).watermarks
        return row.status in FINAL and (
            -1 < (-1 if row.result_offset is None else row.result_offset) <= told.get(RESULTS, -1)
            or -1
            < (-1 if row.command_offset is None else row.command_offset)
            <= told.get(COMMANDS, -1)
        )

    def _is_barred(self, timer: Timer) -> bool:
        """By what stands in the log, as far as the wheel has come in it."""
        told = self._of(SHARD).watermarks.get(COMMANDS, -1)
        barred: dict[tuple[str, str | None, str | None], bool] = {}
        for record in self.commands:
            if record.offset > told:
                break
            with suppress(codec.InvalidEvent):
                command = codec.decode(PodCommand, record.value)
                if (way := BARS.get(command.command)) is not None:
                    barred[way[0], command.pod_id, command.member_id] = way[1]
        who = ((None, None), (timer.pod_id, None), (None, timer.member_id))
        return any(barred.get(("pause", *each), False) for each in who) or barred.get(
            ("opt_out", None, timer.member_id), False
        )


BARS = {
    "pause": ("pause", True),
    "resume": ("pause", False),
    "opt_out": ("opt_out", True),
    "opt_in": ("opt_out", False),
}


class World(ShardWorld):
    """One shard's stores and logs, a clock, and chance."""

    def __init__(
        self,
        seed: int,
        policies: Sequence[OverduePolicy | None] = (None,),
        death: float = 0.01,
        *,
        lingers: bool = False,
    ) -> None:
        super().__init__(
            seed,
            inputs=INPUTS,
            await_ms=AWAIT_MS,
            death=death,
            policies=policies,
            lingers=lingers,
        )
        self.wheel: WatchedWheel = WatchedWheel(lambda: self.now_ms)
        self.wheel.record = self.record
        self.outbox = Outbox()
        self.logs: dict[str, list[SourceRecord]] = {topic: [] for topic in INPUTS}
        self.wheel.commands = self.logs[COMMANDS]
        luck = self.fate.random()
        self.sound, self.returns = luck < 0.3, luck > 0.6
        """Whether nothing ever happens to the wheel, and whether it may go back in time."""
        self.committed = dict.fromkeys(INPUTS, 0)  # index into the log
        self.answered = 0
        self.timed_out = 0
        self.reported = 0
        self.marked: set[str] = set()
        self._held: list[bytes] = []

    def append(self, topic: str, value: bytes | None) -> None:
        log = self.logs[topic]
        # Gaps, as control records leave them.
        offset = log[-1].offset + self.rng.choice((1, 1, 1, 2)) if log else 0
        log.append(SourceRecord(topic, SHARD, offset, b"key", value))

    def applier(self, topic: str) -> Any:
        ports: dict[str, Any] = {
            "record": Shaky(self.record, self.pause, without={"snapshot"}),
            "wheel": Shaky(self.wheel, self.pause),
            "outbox": Shaky(self.outbox, self.pause),
            "patience": Patience("test", sleep=lambda _: asyncio.sleep(0)),
        }
        if topic == POSTS:
            return PostDetectedApplier(SHARD, topic, policy=POLICY, **ports)
        if topic == RESULTS:
            return ResultApplier(SHARD, topic, inputs=INPUTS, retries=RETRIES, **ports)
        return CommandApplier(
            SHARD, topic, inputs=INPUTS, policy=POLICY, overdue=self.policy, **ports
        )

    # What the world outside does

    def post(self, number: int) -> None:
        event = PostDetected(
            event_id=f"event-{number}",
            pod_id=f"pod-{number % 2}",
            post_id=f"post-{number // 2}",
            member_ids=tuple(f"member-{self.rng.randrange(6)}" for _ in range(MEMBERS)),
            detected_at=moment(self.now_ms),
        )
        self.append(POSTS, codec.encode(event))

    def insert_pending(self, number: int) -> None:
        row = Row(
            id=f"00000000-0000-4000-8000-{number:012}",
            pod_id="pod-9",
            post_id=f"post-{number % 3}",
            member_id=f"member-{number}",
            engagement_type=self.rng.choice(("like", "comment")),
        )
        assert self.record.insert(row)

    def command(self, name: str, **fields: Any) -> None:
        event = PodCommand(
            event_id=self.token(),
            command=name,  # type: ignore[arg-type]
            issued_at=moment(self.now_ms),
            **fields,
        )
        self.append(COMMANDS, codec.encode(event))

    def operate(self) -> None:
        rows = list(self.record.table.values())
        if not rows:
            return
        some = tuple(row.id for row in self.rng.sample(rows, min(4, len(rows))))
        pending = tuple(row.id for row in rows if row.status is Status.PENDING)
        choice = self.rng.random()
        if choice < 0.3:
            # What a client marks as done or failed, wherever it stands; mostly what is new.
            row = self.rng.choice(rows[-4:] if self.rng.random() < 0.7 else rows)
            if (timer := row.timer) is not None:
                self.marked.add(timer.activity_id)
                outcome = self.rng.choice(("executed", "failed"))
                self.append(RESULTS, self.answer(timer, outcome=outcome))
        elif choice < 0.5:
            self.command("schedule", post_id="post-0", activity_ids=(*pending, *some))
        elif choice < 0.82:
            self.command("dispatch", post_id="post-0", activity_ids=some)
        elif choice < 0.85:
            self.cancel(some)
        elif choice < 0.96:
            self.control(rows)
        else:
            self.append(COMMANDS, b"nonsense")

    def cancel(self, some: tuple[str, ...]) -> None:
        what: Any = self.fate.choice(
            (
                {"pod_id": "pod-1"},
                {"member_id": "member-2"},
                {"post_id": "post-1"},
                {"activity_ids": some},
                {},
            )
        )
        self.command("cancel", **what)

    def control(self, rows: list[Row]) -> None:
        """What an operator may want of members and pods."""
        member = f"member-{self.fate.randrange(6)}"
        who: Any = self.fate.choice(({}, {"pod_id": "pod-0"}, {"member_id": member}))
        match self.fate.randrange(9):
            case 6:
                own = {"like_min_delay_ms": 10, "like_max_delay_ms": 90, "like_cap": 2}
                self.command("policy", pod_id="pod-0", **self.fate.choice((own, {})))
            case 0 | 1:
                self.command("pause", **who)
            case 2:
                self.command("resume", **who)
            case 3:
                self.command("opt_out", member_id=member)
            case 4:
                self.command("opt_in", member_id=member)
            case _ if self.fate.random() < 0.5:
                self.command("reschedule", post_id="post-2", shift_ms=self.fate.randrange(200))
            case _:
                some = self.fate.sample(rows, min(3, len(rows)))
                times = tuple(moment(self.now_ms + self.fate.randrange(300)) for _ in some)
                ids = tuple(row.id for row in some)
                self.command("reschedule", activity_ids=ids, due_at=times)

    def resume(self) -> None:
        """Nobody is paused any more."""
        for who in ({}, {"pod_id": "pod-0"}, *({"member_id": f"member-{n}"} for n in range(6))):
            self.command("resume", **who)

    def answer(self, timer: Timer, **fields: Any) -> bytes:
        values: dict[str, Any] = {
            "event_id": self.token(),
            "activity_id": timer.activity_id,
            "pod_id": timer.pod_id,
            "post_id": timer.post_id,
            "member_id": timer.member_id,
            "engagement_type": timer.engagement_type,
            "attempt": timer.attempt,
            "outcome": "executed",
            "executed_at": moment(self.now_ms),
        }
        return codec.encode(EngagementExecuted(**(values | fields)))

    def execute(self) -> None:
        """The executor answers what has been fired since the last time, as it likes."""
        while self.answered < len(self.kafka.fired):
            timer = self.kafka.fired[self.answered].timer
            self.answered += 1
            if self.calm:
                self.append(RESULTS, self.answer(timer))
                continue
            choice = self.rng.random()
            if choice < 0.45:
                self.append(RESULTS, self.answer(timer))
            elif choice < 0.65:
                self.append(RESULTS, self.answer(timer, outcome="failed", error="again"))
            elif choice < 0.70:
                self.append(RESULTS, self.answer(timer, outcome="failed", retryable=False))
            elif choice < 0.85:
                self._held.append(self.answer(timer))  # late, perhaps after the time-out
            if choice < 0.10:
                self.append(RESULTS, self.answer(timer))  # twice
            elif choice < 0.15:
                self.append(RESULTS, self.answer(timer, attempt=timer.attempt + 1))
            elif choice < 0.20:
                self.append(RESULTS, self.answer(timer, pod_id="another"))
            elif choice < 0.22:
                self.append(RESULTS, b"\xff")
        if self._held and self.rng.random() < 0.2:
            self.append(RESULTS, self._held.pop(self.rng.randrange(len(self._held))))
        self.log_timeouts()
        while self.reported < len(self.reports):
            self.append(COMMANDS, codec.encode(self.reports[self.reported]))
            self.reported += 1

    def log_timeouts(self) -> None:
        """What the dispatcher has published as timed out stands in the log of results.

        Whoever reads that log calls this first: a record has its offset once it is committed.
        """
        while self.timed_out < len(self.kafka.timeouts):
            fired = self.kafka.timeouts[self.timed_out]
            self.timed_out += 1
            self.append(RESULTS, self.answer(fired.timer, outcome="failed", error="no result"))

    @property
    def quiet(self) -> bool:
        """Whether everything has come to its end."""
        return (
            all(self.committed[topic] == len(log) for topic, log in self.logs.items())
            and self.answered == len(self.kafka.fired)
            and self.timed_out == len(self.kafka.timeouts)
            and self.reported == len(self.reports)
            and all(row.status in (*FINAL, Status.PENDING) for row in self.record.table.values())
        )


async def working(world: World, topic: str, until: Callable[[], bool]) -> None:
    """A worker with one partition: it dies, comes back, and goes on where it had committed."""
    while not until():
        applier = world.applier(topic)
        at = world.committed[topic]
        try:
            for _ in range(world.rng.randint(1, 20)):
                batch = world.logs[topic][at : at + world.rng.randint(1, 5)]
                if batch:
                    await applier.apply(batch)
                    at += len(batch)
                    await world.pause()
                    world.committed[topic] = max(at, world.committed[topic])
                elif world.rng.random() < 0.2:
                    await look(applier)
                await asyncio.sleep(0)
                if until():
                    break
        except Died:
            pass
        await asyncio.sleep(0)


async def look(applier: Any) -> None:
    with suppress(TransientError):
        await applier.catch_up()


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
                if until():
                    break
        except WheelLostError:
            lost = True
        except (EngineError, Died):
            pass
        finally:
            if projecting is not None:
                projecting.cancel()
                await asyncio.gather(projecting, return_exceptions=True)
        await asyncio.sleep(0)


async def outside(world: World, events: int = EVENTS) -> None:
    """Upstream, operators and the executor."""
    for number in range(events):
        world.post(number)
        if world.rng.random() < 0.5:
            world.insert_pending(number)
        for _ in range(world.rng.randint(1, 15)):
            world.now_ms += world.rng.randint(0, 20)
            if world.pushes and world.fate.random() < 0.1:
                world.now_ms += OVERDUE_MS + world.fate.randint(-50, 400)  # an outage
            world.execute()
            if world.rng.random() < 0.3:
                world.operate()
            for _ in range(world.rng.randint(0, 20)):
                await asyncio.sleep(0)


async def accidents(world: World, until: Callable[[], bool]) -> None:
    """FLUSHALL now and then, and a Redis that comes back from an older state."""
    older = copy.deepcopy(world.wheel._shards)
    while not until() and not world.sound:
        await asyncio.sleep(0)
        chance = world.rng.random()
        if chance < 0.001:
            world.wheel.lose()
        elif chance < 0.006:
            older = copy.deepcopy(world.wheel._shards)
        elif chance < 0.008 and world.returns:
            world.wheel._shards = copy.deepcopy(older)


async def live(world: World) -> None:
    life = asyncio.create_task(outside(world))
    await asyncio.gather(
        life,
        *(working(world, topic, life.done) for topic in INPUTS for _ in range(2)),
        *(owning(world, life.done) for _ in range(2)),
        accidents(world, life.done),
    )
    # Calm at last: nothing breaks, the executor answers, and the clock goes on.
    world.calm = True
    world.resume()
    rounds = count()

    def over() -> bool:
        world.now_ms += 5
        world.execute()
        return world.quiet or next(rounds) > 20_000

    await asyncio.gather(*(working(world, topic, over) for topic in INPUTS), owning(world, over))


async def judge(world: World) -> None:
    rows = world.record.table
    asked: set[str] = set()
    broken: dict[str, set[int]] = {topic: set() for topic in INPUTS}
    types: tuple[Any, ...] = (PostDetected, EngagementExecuted, PodCommand)
    for topic, event_type in zip(INPUTS, types, strict=True):
        for record in world.logs[topic]:
            try:
                event = codec.decode(event_type, record.value)
            except codec.InvalidEvent:
                broken[topic].add(record.offset)
                continue
            if isinstance(event, PostDetected):
                asked |= {each.activity_id for each in plan(event, POLICY, PostPlan(), 0)}
    assert asked == {row.id for row in rows.values() if row.source_offset is not None}, "the plan"
    for topic, offsets in broken.items():
        buried = {record.offset for record, _ in world.outbox.letters if record.topic == topic}
        assert offsets <= buried, "a broken record is not among the dead letters"
    unfinished = [row for row in rows.values() if row.status not in (*FINAL, Status.PENDING)]
    assert not unfinished, "it has come to no end"
    attempts = Counter((each.timer.activity_id, each.timer.attempt) for each in world.kafka.fired)
    assert not {each: times for each, times in attempts.items() if times > 1}, "fired twice"
    for each in world.kafka.fired:
        assert each.at_ms >= each.timer.due_ms, "early"
    for name, row in rows.items():
        made = sorted(attempt for activity, attempt in attempts if activity == name)
        assert len(made) <= RETRIES.attempts
        if row.status is Status.EXPIRED and world.agreed:
            assert (name, row.attempt) not in attempts, "expired and fired"
        if name in world.marked:
            # What a client has said of an attempt that was still to come has taken its place.
            continue
        assert made == list(range(1, len(made) + 1)), "an attempt was left out"
        if row.status in (Status.EXECUTED, Status.FAILED):
            # A late `executed` may have won while its retry was on its way already.
            assert len(made) - 1 <= row.attempt <= len(made), "an attempt without an event"
    executed = Counter(row.member_id for row in rows.values() if row.status is Status.EXECUTED)
    counted = {member: n for member, n in world.record.engagements.items() if n}
    assert counted == dict(executed), "counted wrongly"
    assert world.wheel.claimed_too_late == [], "fired though it was over"
    assert world.wheel.claimed_against_orders == [], "fired though it was paused or opted out"
    for name, row in rows.items():
        if row.status is Status.CANCELLED and row.command_offset is not None and not world.returns:
            # Who was told that it is cancelled must not see it fire.
            assert (name, row.attempt) not in attempts, "cancelled and fired"
    size = await world.wheel.size(SHARD)
    left = (size.pending, size.held, size.parked, size.awaited)
    assert left == (0, 0, 0, 0), "something is left in the wheel"
    applied = {offset for _, offset in world.record.applied}
    commands = {record.offset for record in world.logs[COMMANDS]} - broken[COMMANDS]
    assert applied == commands, "the audit"
    told = {(each.activity_id, each.status) for each in world.outbox.statuses}
    for name, row in rows.items():
        if row.status in FINAL:
            assert (name, row.status) in told, "its end was not told"
    failed = {name for name, row in rows.items() if row.status is Status.FAILED}
    assert failed == {
        codec.decode(EngagementExecuted, record.value).activity_id
        for record, reason in world.outbox.letters
        if reason.startswith("failed")
    }, "what has failed has its dead letter"


@given(
    seed=st.integers(0, 2**32),
    kept=st.sampled_from((8, 100_000)),
    lingers=st.booleans(),
    policies=st.sampled_from(POLICIES),
)
@example(seed=161, kept=8, lingers=False, policies=(None,))
@example(seed=261, kept=8, lingers=False, policies=(None,))
@settings(
    max_examples=80,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_each_activity_comes_to_one_end(
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    kept: int,
    lingers: bool,
    policies: Sequence[OverduePolicy | None],
) -> None:
    # Few: then a projection that is behind is overtaken by what is fired meanwhile.
    monkeypatch.setattr(project, "KEPT_CHANGES", kept)
    world = World(seed, policies, lingers=lingers)
    asyncio.run(live(world))
    asyncio.run(judge(world))


async def test_chance_tries_everything() -> None:
    seen: Counter[Status] = Counter()
    deaths = timeouts = lives = postponed = 0
    cancelled: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    # The rarest, what a result cancels, comes in one world of thirty.
    for seed in range(70):
        world = World(seed, POLICIES[seed % len(POLICIES)])
        await live(world)
        postponed += sum(each.postponed for each in world.outbox.statuses)
        seen.update(row.status for row in world.record.table.values())
        for row in world.record.table.values():
            if row.status is Status.CANCELLED:
                by = "command" if row.command_offset is not None else "result"
                cancelled[by if row.command_offset != row.result_offset else "planner"] += 1
        for command in world.record.applied.values():
            outcomes.update({f"{command.command} {what}": n for what, n in command.outcome.items()})
        deaths += world.deaths
        timeouts += world.timed_out
        lives += len({cursor.gen for cursor in world.kafka.cursors})
    assert {Status.EXECUTED, Status.FAILED, Status.CANCELLED, Status.EXPIRED} <= seen.keys()
    assert postponed > 50
    assert deaths > 50
    assert timeouts > 20
    assert lives > 40
    assert {"command", "result", "planner"} == cancelled.keys()
    for what in ("cancel cancelled", "cancel too_late", "cancel final", "opt_out cancelled"):
        assert outcomes[what] > 5
    assert outcomes["reschedule rescheduled"] > 5


# The judge must be able to fail. Each of these breaks one step of the protocol on purpose.


async def _no_order(
    add: Callable[..., Awaitable[int]], self: MemoryWheel, *args: Any, **kwargs: Any
) -> int:
    return await add(self, *args, **(kwargs | {"after": {}}))


async def _moved_blindly(
    add: Callable[..., Awaitable[int]], self: MemoryWheel, *args: Any, **kwargs: Any
) -> int:
    *others, timers = args
    if timers and kwargs.get("remove"):
        await add(self, *others[:3], others[2], [], **kwargs)
        kwargs = {}
    return await add(self, *others, timers, **kwargs)


async def _any_version(
    change: Callable[..., Awaitable[Any]],
    self: MemoryRecord,
    topic: str,
    shard: int,
    expected: int,
    upto: int,
    changes: Sequence[Any],
    **others: Any,
) -> Any:
    current = [
        msgspec.structs.replace(
            each,
            row=msgspec.structs.replace(each.row, version=self.table[each.row.activity_id].version),
        )
        for each in changes
    ]
    return await change(self, topic, shard, expected, upto, current, **others)


async def _believed(
    set_aside: Callable[..., Awaitable[Any]], self: MemoryWheel, *args: Any, **kwargs: Any
) -> Any:
    held = await set_aside(self, *args, **kwargs)
    return held and msgspec.structs.replace(held, held=[True for _ in held.held])


async def _any_orders(
    apply_plan: Callable[..., Awaitable[Any]], self: MemoryRecord, *args: Any, **kwargs: Any
) -> Any:
    return await apply_plan(self, *args, **(kwargs | {"decided_by": None}))


async def _nobody_paused(
    opened: Callable[..., Awaitable[None]], self: MemoryWheel, *args: Any, **kwargs: Any
) -> None:
    await opened(self, *args, **(kwargs | {"paused": ()}))


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        pytest.param(MemoryWheel, "add", _no_order, id="no-order-between-topics"),
        pytest.param(MemoryWheel, "add", _moved_blindly, id="moved-blindly"),
        pytest.param(MemoryRecord, "change", _any_version, id="row-changed-meanwhile"),
        pytest.param(MemoryWheel, "set_aside", _believed, id="cancelled-unseen"),
        pytest.param(MemoryRecord, "apply_plan", _any_orders, id="planned-by-old-orders"),
        pytest.param(MemoryWheel, "open", _nobody_paused, id="pauses-forgotten"),
    ],
)
async def test_a_broken_protocol_is_noticed(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, broken: Callable[..., Any]
) -> None:
    right = getattr(owner, name)
    wrong = partial(broken, right)
    monkeypatch.setattr(owner, name, lambda self, *args, **kw: wrong(self, *args, **kw))
    for seed in range(1000):
        world = World(seed, POLICIES[seed % len(POLICIES)])
        await live(world)
        try:
            await judge(world)
        except AssertionError:
            return
    pytest.fail("the judge has not noticed")
