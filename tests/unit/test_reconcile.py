"""One shard's stores in memory, at rest: what is damaged is found by its name, and nothing else."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace as with_fields
from typing import Any

import pytest
from msgspec.structs import replace

from scheduler.activity import PlannedActivity, Status
from scheduler.adapters.memory_record import Row
from scheduler.adapters.memory_view import MemoryWheelView
from scheduler.difference import Kind
from scheduler.findings import Findings, ShardReport
from scheduler.ports import WheelSize
from scheduler.reconcile import LIVES, REBUILT, Reconciler
from scheduler.second_look import BEHIND
from scheduler.tasks import ended
from scheduler.timer import Timer, pack
from schemas.events import WheelCursor
from schemas.ids import activity_id
from schemas.topics import Topics
from tests.property.shard_world import SHARD, ShardWorld

pytestmark = pytest.mark.timeout(20)

TOPICS = Topics.prefixed()
POSTS, RESULTS, COMMANDS = INPUTS = TOPICS.inputs
STATUSES = TOPICS.engagement_status
AWAIT_MS, LATER_MS = 60_000, 9_000_000
EACH = 4


class Rest(ShardWorld):
    """Half of the activities have been sent and await their results, the others wait."""

    wheel: MemoryWheelView

    def __init__(self) -> None:
        super().__init__(0, inputs=INPUTS, await_ms=AWAIT_MS, death=0)
        self.wheel = MemoryWheelView(lambda: self.now_ms)
        self.calm = True
        self.logs: dict[str, list[tuple[int, bytes | None]]] = {topic: [] for topic in INPUTS}
        self.logs[POSTS] = [(0, b"{}")]
        self.acks = {POSTS: 0}
        self.kept_from = 0
        self.readings = 0

    async def begin(self) -> None:
        await self.record.apply_plan(
            POSTS,
            SHARD,
            -1,
            0,
            [_planned(n, self.now_ms - 1 if n < EACH else LATER_MS + n) for n in range(2 * EACH)],
        )
        await self.fire()

    async def fire(self, *, rebuild: bool = False) -> None:
        """A dispatcher comes, fires what is due, tells the record, and dies."""
        owner = self.owner()
        await owner.take(rebuild=rebuild)
        projecting = asyncio.create_task(owner.project())
        await owner.flush()
        while (await owner.run_once()).busy:
            pass
        await owner.flush()
        await ended(projecting)

    def row(self, status: Status) -> Row:
        return next(each for each in self.record.table.values() if each.status is status)

    def set(self, row: Row, **changes: Any) -> None:
        self.record._put(with_fields(row, **changes))

    def timer(self, status: Status = Status.SCHEDULED) -> Timer:
        row = self.row(status)
        return Timer(
            row.id,
            row.pod_id,
            row.post_id,
            row.member_id,
            row.engagement_type,
            row.attempt,
            row.scheduled_for_ms or 0,
        )

    def drop(self, timer: Timer) -> None:
        assert self.wheel._drop(self.wheel._of(SHARD), timer)

    def put(self, timer: Timer) -> None:
        self.wheel._put(self.wheel._of(SHARD), [timer])

    # The `LogView` port

    def _log(self, topic: str) -> Sequence[tuple[int, bytes | None]]:
        return self.logs[topic] if topic in self.logs else list(enumerate(self.kafka._statuses))

    async def cursors(self, shards: Sequence[int]) -> Mapping[int, WheelCursor | None]:
        return {SHARD: self.kafka.cursors[-1] if self.kafka.cursors else None}

    async def spans(
        self, topics: Sequence[str], shards: Sequence[int]
    ) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        return {
            topic: {SHARD: (self.kept_from, log[-1][0] + 1 if (log := self._log(topic)) else 0)}
            for topic in topics
        }

    async def acked(self) -> Mapping[str, Mapping[int, int]]:
        return {topic: {SHARD: at} for topic, at in self.acks.items()}

    async def offset_at(self, topic: str, shard: int, at_ms: int) -> int:
        return self.kept_from

    async def read(
        self, topic: str, shard: int, start: int, end: int, *, committed: bool
    ) -> AsyncGenerator[Sequence[tuple[int, bytes | None]], None]:
        self.readings += 1
        for offset, value in self._log(topic):
            if max(start, self.kept_from) <= offset < end and value is not None:
                yield [(offset, value)]

    async def report(self) -> ShardReport:
        ticks = iter(range(1_000_000))

        async def no_time(_: float) -> None:
            pass

        return await Reconciler(
            self.wheel,
            self.record,
            self,
            TOPICS,
            await_ms=AWAIT_MS,
            timeout_s=3,
            first=100,
            sleep=no_time,
            clock=lambda: float(next(ticks)),
        ).run_once(SHARD)


def _planned(number: int, due_ms: int) -> PlannedActivity:
    member = f"member-{number}"
    name = activity_id("pod", "post", member, "like")
    return PlannedActivity(name, "pod", "post", member, "like", due_ms, 0)


@pytest.fixture
async def world() -> Rest:
    rest = Rest()
    await rest.begin()
    return rest


async def test_at_rest_all_agree(world: Rest) -> None:
    report = await world.report()
    assert report.counts == {}
    assert report.undecided == {}
    assert (report.rows, report.timers, report.awaited) == (2 * EACH, EACH, EACH)
    assert report.offsets[POSTS] == {"postgresql": 0, "redis": 0, "kafka": 0, "acked": 0}


def _foreign(world: Rest) -> None:
    world.put(Timer(activity_id("a", "b", "c", "like"), "a", "b", "c", "like", 1, LATER_MS))


def _moved(world: Rest) -> None:
    timer = world.timer()
    world.drop(timer)
    world.put(replace(timer, due_ms=timer.due_ms + 20_000))


def _doubled(world: Rest) -> None:
    world.put(replace(world.timer(), due_ms=LATER_MS + 77))


def _attempt(world: Rest) -> None:
    timer = world.timer()
    world.drop(timer)
    world.put(replace(timer, attempt=2))


def _no_deadline(world: Rest) -> None:
    world.wheel._of(SHARD).awaited.pop(pack(world.timer(Status.DISPATCHED)))


def _deadline_moved(world: Rest) -> None:
    awaited = world.wheel._of(SHARD).awaited
    packed = pack(world.timer(Status.DISPATCHED))
    awaited[packed] = replace(awaited[packed], due_ms=awaited[packed].due_ms + 500_000)


def _deadline_of_waiting(world: Rest) -> None:
    timer = world.timer()
    world.wheel._of(SHARD).awaited[pack(timer)] = replace(timer, due_ms=LATER_MS)


def _never_sent(world: Rest) -> None:
    world.set(world.row(Status.SCHEDULED), status=Status.DISPATCHED, dispatched_at_ms=world.now_ms)


def _never_sent_and_lost(world: Rest) -> None:
    world.drop(world.timer())
    _never_sent(world)


def _set_back(world: Rest) -> None:
    world.set(world.row(Status.DISPATCHED), status=Status.SCHEDULED)


def _set_back_and_lost(world: Rest) -> None:
    _no_deadline(world)
    _set_back(world)


def _redis_back_before_the_claim(world: Rest) -> None:
    timer = world.timer(Status.DISPATCHED)
    world.wheel._of(SHARD).awaited.pop(pack(timer))
    world.put(replace(timer, due_ms=world.row(Status.DISPATCHED).scheduled_for_ms or 0))


def _ended(world: Rest) -> None:
    world.set(world.row(Status.SCHEDULED), status=Status.FAILED)


def _sent_and_ended(world: Rest) -> None:
    world.set(world.row(Status.DISPATCHED), status=Status.EXECUTED)


def _untimed(world: Rest) -> None:
    world.set(world.row(Status.SCHEDULED), scheduled_for_ms=None)


def _undated(world: Rest) -> None:
    world.set(world.row(Status.DISPATCHED), dispatched_at_ms=None)


def _of_another_shard(world: Rest) -> None:
    world.set(world.row(Status.SCHEDULED), source_partition=SHARD + 1)


def _wheel_back(world: Rest) -> None:
    world.wheel._of(SHARD).watermarks[POSTS] = -1


def _wheel_ahead(world: Rest) -> None:
    world.wheel._of(SHARD).watermarks[POSTS] = 3


def _record_ahead(world: Rest) -> None:
    world.record._watermarks[RESULTS, SHARD] = 3
    world.wheel._of(SHARD).watermarks[RESULTS] = 3


def _acked_ahead(world: Rest) -> None:
    world.logs[RESULTS] = [(5, b"{}")]
    world.acks[RESULTS] = 5


def _projection_back(world: Rest) -> None:
    world.record._watermarks[STATUSES, SHARD] = -1


def _projection_ahead(world: Rest) -> None:
    world.record._watermarks[STATUSES, SHARD] = 1000


def _no_gen(world: Rest) -> None:
    world.wheel._of(SHARD).gen = None


def _other_gen(world: Rest) -> None:
    world.wheel._of(SHARD).gen = "theirs"


def _seq_back(world: Rest) -> None:
    world.wheel._of(SHARD).seq -= 1


def _nonce(world: Rest) -> None:
    world.wheel._of(SHARD).nonce = "theirs"


def _no_cursor(world: Rest) -> None:
    world.kafka.cursors.clear()


def _overdue(world: Rest) -> None:
    world.now_ms = LATER_MS + 30_000


DAMAGES: dict[Callable[[Rest], None], set[Kind]] = {
    lambda world: world.drop(world.timer()): {Kind.MISSING_TIMER},
    _foreign: {Kind.TIMER_WITHOUT_ROW},
    _moved: {Kind.TIMER_ELSEWHERE},
    _doubled: {Kind.TIMER_TWICE},
    _attempt: {Kind.OTHER_ATTEMPT},
    _no_deadline: {Kind.MISSING_DEADLINE},
    _deadline_moved: {Kind.DEADLINE_ELSEWHERE},
    _deadline_of_waiting: {Kind.DEADLINE_OF_OTHER_ROW},
    _never_sent: {Kind.NEVER_SENT},
    _never_sent_and_lost: {Kind.NEVER_SENT},
    _set_back: {Kind.SENT_BEFORE},
    _set_back_and_lost: {Kind.SENT_BEFORE},
    _ended: {Kind.TIMER_OF_ENDED_ROW},
    _sent_and_ended: {Kind.DEADLINE_OF_OTHER_ROW},
    _untimed: {Kind.ROW_WITHOUT_TIME},
    _undated: {Kind.ROW_WITHOUT_TIME},
    _of_another_shard: {Kind.TIMER_WITHOUT_ROW},
    _wheel_back: {Kind.WHEEL_BEHIND},
    _wheel_ahead: {Kind.WHEEL_AHEAD},
    _record_ahead: {Kind.RECORD_AHEAD},
    _acked_ahead: {Kind.ACKED_AHEAD},
    _projection_back: {Kind.PROJECTION_BEHIND},
    _projection_ahead: {Kind.PROJECTION_AHEAD},
    _no_gen: {Kind.NO_WHEEL},
    _other_gen: {Kind.CURSOR},
    _seq_back: {Kind.CURSOR},
    _nonce: {Kind.CURSOR},
    _no_cursor: {Kind.CURSOR},
    _overdue: {Kind.NOT_FIRING},
    _redis_back_before_the_claim: {Kind.TIMER_OF_SENT_ROW},
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
async def test_each_damage_has_its_name(world: Rest, damage: Callable[[Rest], None]) -> None:
    damage(world)
    report = await world.report()
    assert report.counts == dict.fromkeys(DAMAGES[damage], 1), report.first
    assert report.undecided == {}
    blocked = {Kind.NEVER_SENT, Kind.SENT_BEFORE, Kind.ROW_WITHOUT_TIME}
    assert report.blocked == bool(blocked & DAMAGES[damage])
    if report.heals and not report.blocked:
        await world.fire(rebuild=True)
        again = await world.report()
        assert again.counts == {}, again.first


async def test_where_the_log_was_cut_nothing_is_ventured(world: Rest) -> None:
    world.kept_from = 99
    world.kafka._statuses += [None] * 100
    _no_deadline(world)
    assert (await world.report()).counts == {Kind.MISSING_DEADLINE: 1}
    _never_sent(world)
    report = await world.report()
    assert report.counts == {Kind.MISSING_DEADLINE: 1, Kind.NEVER_SENT: 1}
    assert report.blocked


async def test_what_a_wheel_that_is_behind_lacks_is_undecided(world: Rest) -> None:
    world.drop(world.timer())
    _wheel_back(world)
    report = await world.report()
    assert report.counts == {Kind.WHEEL_BEHIND: 1}
    assert report.undecided == {BEHIND: 1}
    assert not report.blocked


async def test_a_cancel_at_work_is_no_difference(world: Rest) -> None:
    world.logs[COMMANDS] = [(0, b"{}")]
    world.set(world.row(Status.SCHEDULED), status=Status.CANCELLED, command_offset=0)
    assert (await world.report()).counts == {}
    world.record._watermarks[COMMANDS, SHARD] = world.wheel._of(SHARD).watermarks[COMMANDS] = 0
    assert (await world.report()).counts == {Kind.TIMER_OF_ENDED_ROW: 1}


async def test_what_was_found_in_another_life_is_thrown_away(
    world: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drop(world.timer())
    lives = 0
    firing = world.wheel.size

    async def rebuilt(shard: int) -> WheelSize:
        nonlocal lives
        if lives < LIVES - 1:
            lives += 1
            await world.fire(rebuild=True)
        return await firing(shard)

    monkeypatch.setattr(world.wheel, "size", rebuilt)
    report = await world.report()
    assert report.counts == {}
    assert report.undecided == {}
    lives = -1
    assert (await world.report()).undecided == {REBUILT: 1}


async def test_what_agrees_costs_no_reading_of_the_log(world: Rest) -> None:
    assert world.record._watermarks[STATUSES, SHARD] == EACH - 1
    await world.report()
    assert world.readings == 1  # the marker behind the last transaction
    _set_back(world)
    report = await world.report()
    assert report.first[0].record is not None
    assert report.first[0].record["status"] == "scheduled"
    assert report.first[0].wheel is not None


async def test_only_the_first_are_kept_and_all_are_counted(world: Rest) -> None:
    world.wheel._of(SHARD).pending.clear()
    world.wheel._of(SHARD).order.clear()
    report = await world.report()
    assert report.counts == {Kind.MISSING_TIMER: EACH}
    findings = Findings(SHARD, 1)
    for difference in report.first:
        findings.add(difference)
        findings.add(difference)
    assert findings.report().counts == {Kind.MISSING_TIMER: EACH}
    assert len(findings.report().first) == 1


async def test_a_wheel_that_is_being_built_is_waited_for(
    world: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers = [row.timer for row in world.record.table.values() if row.timer]
    gen = world.wheel._of(SHARD).gen
    _no_gen(world)
    for timer in timers:
        world.drop(timer)
    size = world.wheel.size

    async def grown(shard: int) -> WheelSize:
        if timers:
            world.put(timers.pop())
        else:
            world.wheel._of(shard).gen = gen
        return await size(shard)

    monkeypatch.setattr(world.wheel, "size", grown)
    assert (await world.report()).counts == {}
