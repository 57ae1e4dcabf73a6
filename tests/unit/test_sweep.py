"""Two workers at one sweep, each stopped at every step there is, while timers fire between them.

A worker that has been stopped may be dead, or be slow and go on when the other one is through.
"""

import copy
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from scheduler.activity import UNFIRED, Announcement, RowChange, Status
from scheduler.adapters.memory_log import MemoryPartition
from scheduler.adapters.memory_record import MemoryRecord, Row
from scheduler.adapters.memory_view import MemoryWheelView
from scheduler.commands import CommandApplier
from scheduler.patience import Patience
from scheduler.policy import OverduePolicy, PacingPolicy
from scheduler.ports import Claim, SourceRecord
from scheduler.project import Projection
from scheduler.rebuild import Rebuild
from schemas import codec
from schemas.events import PodCommand, WheelCursor
from schemas.times import moment
from tests.property.shard_world import Shaky

SHARD, TOPIC, POSTS, STATUSES = 0, "pod-commands", "post-detected", "engagement-status"
INPUTS = (TOPIC, POSTS)
NOW_MS = 1_764_000_000_000  # 16:00 in UTC
HOUR_MS = 3_600_000
AWAIT_MS = 900_000
IDS = tuple(f"00000000-0000-4000-8000-{n:012}" for n in range(7))
DUE, OVERDUE, LATER, MUCH_LATER, OTHER_POD, FINAL, NEW = IDS
OFFSET = 7

COMMANDS: dict[str, dict[str, Any]] = {
    "cancel a pod": {"command": "cancel", "pod_id": "pod"},
    "cancel all": {"command": "cancel"},
    "cancel by id": {"command": "cancel", "activity_ids": (DUE, OVERDUE, MUCH_LATER, FINAL)},
    "opt out": {"command": "opt_out", "member_id": "ann"},
    "shift a post": {"command": "reschedule", "post_id": "post", "shift_ms": 2 * HOUR_MS},
    "reschedule by id": {
        "command": "reschedule",
        "activity_ids": (DUE, OVERDUE, LATER),
        "due_at": tuple(moment(NOW_MS + n * HOUR_MS) for n in (0, 5, 6)),
    },
    "quiet hours": {
        "command": "quiet_hours",
        "member_id": "ann",
        "quiet_from": "15:00",
        "quiet_until": "19:30",
        "time_zone": "UTC",
    },
}


def driven(steps: Coroutine[Any, Any, Any]) -> Any:
    """The result of what never really waits."""
    while True:
        try:
            steps.send(None)
        except StopIteration as stop:
            return stop.value


class Turn:
    """Gives way to the others, once."""

    def __await__(self) -> Generator[None]:
        yield


async def turn(*_: object) -> None:
    await Turn()


async def at_once() -> None:
    """No pause."""


class Site:
    """A shard whose wheel and record agree, with timers that are due, held back, and to come."""

    def __init__(self, command: dict[str, Any]) -> None:
        event = PodCommand(event_id="e", issued_at=moment(NOW_MS), **command)
        self.source = SourceRecord(TOPIC, SHARD, OFFSET, b"key", codec.encode(event))
        self.record = MemoryRecord()
        self.now_ms = NOW_MS - 1
        self.wheel = MemoryWheelView(lambda: self.now_ms)
        self.kafka = MemoryPartition(SHARD)
        self.tokens = count()
        self.builders = 0
        self.begins = True
        self.told: list[Announcement] = []
        rows = (
            self.row(OVERDUE, NOW_MS - HOUR_MS, engagement_type="like"),
            self.row(DUE, NOW_MS),
            self.row(LATER, NOW_MS + HOUR_MS, post_id="post 2"),
            self.row(MUCH_LATER, NOW_MS + 4 * HOUR_MS, member_id="bob"),
            self.row(OTHER_POD, NOW_MS + HOUR_MS, pod_id="another"),
            self.row(FINAL, NOW_MS, status=Status.EXECUTED, post_id="post 3"),
        )
        for row in rows:
            assert self.record.insert(row)
        driven(self.build())
        # What is overdue is held back from here on.
        held = driven(self.claim())
        assert [timer.activity_id for timer in held.overdue] == [OVERDUE]
        assert driven(self.claim()).empty
        self.now_ms = NOW_MS

    def row(self, name: str, due_ms: int, **fields: Any) -> Row:
        values: dict[str, Any] = {
            "pod_id": "pod",
            "member_id": "ann",
            "post_id": "post",
            "engagement_type": "comment",
            "status": Status.SCHEDULED,
        }
        return Row(
            id=name,
            source_partition=SHARD,
            scheduled_for_ms=due_ms,
            **(values | fields),
        )

    def token(self) -> str:
        return f"token-{next(self.tokens)}"

    async def happened(self, **command: Any) -> None:
        """Another command, some offsets before."""
        event = PodCommand(event_id="before", issued_at=moment(NOW_MS), **command)
        source = SourceRecord(TOPIC, SHARD, OFFSET - 3, b"key", codec.encode(event))
        await self.worker().apply([source])

    async def plan(self) -> None:
        """One more activity."""
        row = self.row(NEW, NOW_MS + HOUR_MS, engagement_type="like")
        row = replace(row, post_id="post", member_id="ann", pod_id="pod 2")
        assert self.record.insert(row)
        assert row.timer is not None
        await self.wheel.add(SHARD, POSTS, -1, 0, [row.timer])

    async def build(self, pause: Callable[[], Awaitable[None]] = at_once) -> None:
        """A dispatcher takes the shard and builds its wheel; it pauses as often as it can."""
        self.builders += 1
        wheel: Any = Shaky(self.wheel, pause)
        record: Any = Shaky(self.record, pause, without={"snapshot"})
        if not self.begins:
            record = Older(self.record)
        rebuild = Rebuild(
            wheel, record, input_topics=INPUTS, commands=TOPIC, token=self.token, await_ms=AWAIT_MS
        )
        epoch = self.token()
        await self.wheel.take(SHARD, epoch)
        self.log = self.kafka.open()
        await self.log.fence()
        last = await self.log.cursor()
        projection = Projection(SHARD, STATUSES, self.record, self.kafka)
        self.cursor = await rebuild.run(SHARD, epoch, self.log, projection, last)
        self.epoch = epoch
        self.builders -= 1

    async def claim(self) -> Claim:
        overdue = OverduePolicy("expire", HOUR_MS // 2)
        done = (self.cursor.seq, self.cursor.nonce)
        nonce = self.token()
        batch = await self.wheel.claim(
            SHARD, self.epoch, self.cursor.gen, done, nonce, 100, AWAIT_MS, overdue
        )
        if not batch.empty:
            self.cursor = WheelCursor(seq=batch.seq, nonce=batch.nonce, gen=self.cursor.gen)
            await self.log.commit(batch.timers, batch.now_ms, self.cursor)
        return batch

    async def fire(self) -> None:
        """The dispatcher sends what is due, and the record is told of it."""
        await self.claim()
        await self.claim()
        projection = Projection(SHARD, STATUSES, self.record, self.kafka)
        await projection.drain(self.log.status_end)

    async def work(self) -> None:
        """A worker that reads the command."""
        await self.worker().apply([self.source])

    async def settle(self) -> None:
        """What workers do now and then: they look whether the wheel has lost something."""
        worker = self.worker()
        for _ in range(2):
            await worker.catch_up()
            if (await self.wheel.meta(SHARD)).gen is None:
                await self.build()

    def worker(self) -> CommandApplier:
        async def patiently(_: float) -> None:
            await turn()
            if (await self.wheel.meta(SHARD)).gen is None and not self.builders:
                await self.build()

        ports: dict[str, Any] = {
            "record": Shaky(self.record, turn, without={"snapshot"}),
            "wheel": Shaky(self.wheel, turn),
            "outbox": Shaky(Ears(self.told), turn),
            "patience": Patience("test", sleep=patiently),
        }
        return CommandApplier(SHARD, TOPIC, inputs=INPUTS, policy=PacingPolicy(), **ports)

    async def judge(self, *, exactly: bool = True) -> None:
        rows = self.record.table
        fired = [each.timer.activity_id for each in self.kafka.fired]
        assert len(fired) == len(set(fired)), "fired twice"
        sights = {
            name: (await self.wheel.find(SHARD, [timer])).sights[0]
            for name, row in rows.items()
            if (timer := row.timer)
        }
        for name, row in rows.items():
            if row.status in UNFIRED:
                assert sights[name].waits, f"{name} waits elsewhere, or nowhere"
            if row.status is Status.CANCELLED:
                assert name not in fired, "called cancelled, and sent"
        size = await self.wheel.size(SHARD)
        statuses = [row.status for row in rows.values()]
        assert size.pending == sum(status in UNFIRED for status in statuses), "left in the wheel"
        assert size.awaited == statuses.count(Status.DISPATCHED), "a deadline is lost, or left"
        assert not await self.wheel.aside(SHARD, TOPIC)
        # What is sent is told in one transaction with it, by the dispatcher.
        assert all(each.status is not Status.DISPATCHED for each in self.told)
        changed = sum(row.command_offset == OFFSET for row in rows.values())
        outcome = dict(self.record.applied[SHARD, OFFSET].outcome)
        counted = outcome.get("cancelled", 0) + outcome.get("rescheduled", 0)
        assert counted == changed or not exactly, "miscounted"


class Ears:
    """Those who are told."""

    def __init__(self, told: list[Announcement]) -> None:
        self._told = told

    async def announce(self, _: int, statuses: Sequence[Announcement]) -> None:
        self._told += statuses


class Older:
    """The record, as a dispatcher of an older release asks it: that says nothing of wheels."""

    def __init__(self, behind: MemoryRecord) -> None:
        self._behind = behind

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    async def begin_wheel(self, *_: object) -> None:
        pass


def advanced(steps: Coroutine[Any, Any, Any], far: int) -> bool:
    """Whether it is at its end before, or after, `far` turns."""
    for _ in range(far):
        try:
            steps.send(None)
        except StopIteration:
            return True
    return False


def finished(*workers: Coroutine[Any, Any, Any]) -> None:
    left = list(workers)
    for turns in count():
        left = [each for each in left if not advanced(each, 1)]
        if not left:
            return
        assert turns < 1000, "they wait for each other"


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> dict[str, Any]:
    return COMMANDS[request.param]


def test_a_sweep_by_one_changes_what_it_is_about(command: dict[str, Any]) -> None:
    site = Site(command)
    driven(site.work())
    driven(site.judge())
    changed = {row.id for row in site.record.table.values() if row.command_offset == OFFSET}
    assert {OVERDUE, DUE} <= changed


def test_whoever_dies_another_one_finishes(command: dict[str, Any]) -> None:
    for far in count():
        site = Site(command)
        first = site.work()
        over = advanced(first, far)
        first.close()
        driven(site.fire())
        driven(site.work())
        driven(site.judge())
        if over:
            return


def test_two_at_one_sweep_do_not_undo_each_others_work(command: dict[str, Any]) -> None:
    for far in count():
        over = False
        for fires in (False, True):
            site = Site(command)
            first = site.work()
            over = advanced(first, far)
            if fires:
                driven(site.fire())
            finished(site.work())
            if not over:
                finished(first)
            driven(site.judge())
        if over:
            return


def test_two_at_one_sweep_may_change_places_twice(command: dict[str, Any]) -> None:
    with suppress(StopIteration):
        for far in count():
            for further in count():
                site = Site(command)
                first, second = site.work(), site.work()
                if advanced(first, far):
                    second.close()
                    raise StopIteration
                over = advanced(second, further)
                finished(first, *([] if over else [second]))
                driven(site.judge())
                if over:
                    break


def test_what_is_changed_while_the_wheel_is_lost_and_rebuilt_is_known_to_it(
    command: dict[str, Any],
) -> None:
    for far in count():
        for further in count():
            site = Site(command)
            worker = site.work()
            if advanced(worker, far):
                return
            site.wheel.lose()
            builder = site.build(turn)
            built = advanced(builder, further)
            # As far as it comes without a wheel.
            over = advanced(worker, 50)
            finished(*([] if built else [builder]))
            driven(site.fire())
            finished(*([] if over else [worker]))
            driven(site.settle())
            driven(site.judge())
            if built:
                break


def test_a_wheel_that_has_gone_back_in_time_is_noticed(command: dict[str, Any]) -> None:
    """As when a replica becomes the master that had not got the last writes."""
    for far in count():
        for further in count():
            site = Site(command)
            worker = site.work()
            if advanced(worker, far):
                return
            older = copy.deepcopy(site.wheel._shards)
            over = advanced(worker, further)
            site.wheel._shards = older
            finished(*([] if over else [worker]))
            driven(site.settle())
            driven(site.judge())
            if over:
                break


def test_a_wheel_that_has_gone_back_in_time_while_nobody_was_there_is_mended(
    command: dict[str, Any],
) -> None:
    """As when all is on one machine, and that loses power."""
    for far in count():
        for further in count():
            site = Site(command)
            worker = site.work()
            if advanced(worker, far):
                return
            older = copy.deepcopy(site.wheel._shards)
            over = advanced(worker, further)
            worker.close()
            site.wheel._shards = older
            driven(site.work())
            driven(site.settle())
            driven(site.judge())
            if over:
                break


@pytest.mark.parametrize("goes_back", [False, True])
def test_who_reads_before_another_one_begins_sees_what_that_one_did(
    command: dict[str, Any], goes_back: bool
) -> None:
    """The other one dies then; and the wheel may have lost all that it did."""
    for far in count():
        for further in count():
            site = Site(command)
            first, second = site.work(), site.work()
            if advanced(first, far):
                second.close()
                return
            older = copy.deepcopy(site.wheel._shards)
            over = advanced(second, further)
            second.close()
            if goes_back:
                site.wheel._shards = older
            finished(first)
            driven(site.settle())
            driven(site.judge())
            if over:
                break


def test_who_has_not_even_read_what_another_one_did_sees_it_in_the_end(
    command: dict[str, Any],
) -> None:
    for far in count():
        for further in count():
            site = Site(command)
            first, second = site.work(), site.work()
            if advanced(first, far):
                second.close()
                return
            driven(site.plan())
            older = copy.deepcopy(site.wheel._shards)
            over = advanced(second, further)
            second.close()
            site.wheel._shards = older
            finished(first)
            driven(site.settle())
            driven(site.judge(exactly=False))
            if over:
                break


def test_a_wheel_that_lost_an_earlier_command_holds_up_nobody(command: dict[str, Any]) -> None:
    site = Site(command)
    older = copy.deepcopy(site.wheel._shards)
    driven(site.happened(command="pause", pod_id="another"))
    site.wheel._shards = older
    finished(site.work())
    driven(site.settle())
    driven(site.judge())


def test_what_a_result_ends_while_it_is_aside_is_not_put_back(command: dict[str, Any]) -> None:
    site = Site(command)
    row = site.record.table[LATER]
    assert row.timer is not None
    driven(site.wheel.set_aside(SHARD, TOPIC, -1, [row.timer]))
    read = driven(site.record.rows([LATER]))[LATER]
    done = RowChange(
        row=read,
        cause=0,
        status=Status.EXECUTED,
        attempt=1,
        scheduled_for_ms=None,
        executed_at_ms=NOW_MS,
    )
    # Its statement overlapped the command's, so that neither waits for the other in the wheel.
    assert driven(site.record.change("results", SHARD, -1, 0, [done], by="result")) is not None
    driven(site.work())
    driven(site.judge())


def test_dispatchers_that_do_not_begin_wheels_do_no_harm(command: dict[str, Any]) -> None:
    site = Site(command)
    site.begins = False
    driven(site.wheel.forget(SHARD))
    driven(site.build())
    finished(site.work())
    driven(site.judge())


def test_a_wheel_of_another_time_is_built_anew(command: dict[str, Any]) -> None:
    """Whoever began to build one had lost the shard already, and never comes back."""
    site = Site(command)
    driven(site.record.begin_wheel(TOPIC, SHARD, "of a dispatcher that was replaced"))
    gen = site.cursor.gen
    driven(site.work())
    driven(site.judge())
    assert site.cursor.gen != gen
