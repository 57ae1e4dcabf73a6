"""What a shard makes of commands that are not as they ought to be."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from scheduler import commands
from scheduler.activity import Announcement, Status
from scheduler.adapters.memory_record import MemoryRecord, Row
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.command import control
from scheduler.commands import CommandApplier
from scheduler.controls import OPTED_OUT, Subject, Verdict
from scheduler.planner import DAY_MS
from scheduler.policy import PacingPolicy
from scheduler.ports import SourceRecord
from scheduler.tasks import ended
from schemas import codec
from schemas.events import PodCommand
from schemas.times import moment

pytestmark = pytest.mark.timeout(30)

TOPIC, EVENTS = "pod-commands", "post-detected"
NOW_MS = 1_000_000
HOUR_MS = 3_600_000
X, Y = "00000000-0000-4000-8000-000000000001", "00000000-0000-4000-8000-000000000002"


def quiet(start: str, end: str) -> dict[str, Any]:
    return {"pod_id": "pod", "quiet_from": start, "quiet_until": end, "time_zone": "UTC"}


class Site:
    """Shards that forward to each other."""

    def __init__(self) -> None:
        self.record = MemoryRecord()
        self.wheel = MemoryWheel(lambda: NOW_MS)
        self.forwarded: list[int] = []
        self.letters: list[str] = []
        self.next_offset = 0

    async def open(self, *shards: int) -> None:
        for shard in shards:
            await self.wheel.take(shard, "epoch")
            await self.wheel.wipe(shard, "epoch")
            await self.wheel.open(shard, "epoch", "gen", (0, ""), {})

    def insert(self, name: str, shard: int | None, **fields: Any) -> None:
        values: dict[str, Any] = {"pod_id": "pod", "member_id": name, "post_id": "post"}
        values["engagement_type"] = "like"
        row = Row(id=name, source_partition=shard, **(values | fields))
        assert self.record.insert(row)

    async def apply(self, shard: int, name: Any, *ids: str, offset: int | None = None) -> None:
        command = PodCommand(
            event_id="e", command=name, issued_at=moment(NOW_MS), post_id="post", activity_ids=ids
        )
        await self.deliver(shard, codec.encode(command), offset)

    async def deliver(self, shard: int, value: bytes, offset: int | None = None) -> None:
        await self.deliver_all(shard, [value], offset)

    async def deliver_all(
        self, shard: int, values: Sequence[bytes], offset: int | None = None
    ) -> None:
        if offset is None:
            offset = self.next_offset + 1
            self.next_offset += len(values)
        applier = CommandApplier(
            shard,
            TOPIC,
            inputs=[TOPIC, EVENTS],
            policy=PacingPolicy(),
            record=self.record,
            wheel=self.wheel,
            outbox=self,
        )
        await applier.apply(
            [
                SourceRecord(TOPIC, shard, at, b"post", each)
                for at, each in enumerate(values, offset)
            ]
        )

    async def announce(self, shard: int, statuses: Sequence[Announcement]) -> None:
        pass

    async def dead_letter(
        self, record: SourceRecord, reason: str, extra: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.letters.append(reason)

    async def forward(self, record: SourceRecord, partition: int) -> None:
        self.forwarded.append(partition)
        assert len(self.forwarded) < 10, "to and fro"
        await self.deliver(partition, record.value or b"")


async def test_a_dispatch_for_two_shards_is_not_sent_to_and_fro() -> None:
    site = Site()
    await site.open(0, 1, 2)
    later = {"status": Status.SCHEDULED, "scheduled_for_ms": NOW_MS + 60_000}
    site.insert(X, 0, **later)
    site.insert(Y, 1, **later)
    await site.apply(2, "dispatch", X, Y)
    assert site.forwarded == [0]
    assert site.record.table[X].scheduled_for_ms == NOW_MS
    assert site.record.table[Y].scheduled_for_ms == NOW_MS + 60_000


@pytest.mark.parametrize("command", ["schedule", "dispatch"])
@pytest.mark.parametrize("field", ["pod_id", "member_id", "post_id"])
@pytest.mark.parametrize("text", ["", "ann\n", "x" * 201, "x" * 70_000])
async def test_a_row_that_no_event_can_tell_of_is_left_alone(
    command: str, field: str, text: str
) -> None:
    site = Site()
    await site.open(0)
    site.insert(X, None, **{field: text})
    site.insert(Y, None)
    await site.apply(0, command, X, Y)
    assert site.record.table[X].status is Status.PENDING
    assert site.record.table[Y].status is Status.SCHEDULED
    assert (await site.wheel.size(0)).pending == 1


async def test_what_another_shard_has_scheduled_is_not_put_into_this_wheel() -> None:
    site = Site()
    await site.open(0, 1)
    site.insert(X, None)
    await site.apply(1, "schedule", X, offset=0)
    # Shard 0 has a copy at the same offset; its worker dies before it comes to the wheel.
    assert await site.record.change(TOPIC, 0, -1, 0, [], by="command") is not None
    await site.apply(0, "schedule", X, offset=0)
    assert (await site.wheel.size(1)).pending == 1
    assert (await site.wheel.size(0)).pending == 0


async def test_a_cancel_that_names_activities_is_no_report_of_overdue_ones() -> None:
    site = Site()
    await site.open(0)
    applying = asyncio.create_task(site.apply(0, "cancel", X, Y))
    while await site.record.watermark(TOPIC, 0) < 0:  # noqa: ASYNC110 (a turn of the loop each)
        await asyncio.sleep(0)
    # It then waits for a wheel that is built anew, which nobody does here.
    await ended(applying)
    assert site.letters == []


async def send(
    site: Site, shard: int, command: str, offset: int | None = None, **more: Any
) -> None:
    event = PodCommand(
        event_id="e",
        command=command,  # type: ignore[arg-type]
        issued_at=moment(NOW_MS),
        **more,
    )
    await site.deliver(shard, codec.encode(event), offset)


LATER: dict[str, Any] = {"status": Status.SCHEDULED, "scheduled_for_ms": NOW_MS + 60_000}


@pytest.mark.parametrize(
    ("command", "fields", "reason"),
    [
        ("cancel", {"pod_id": "pod", "member_id": X}, "about member_id and pod_id"),
        ("cancel", {"activity_ids": (X,), "pod_id": "pod"}, "about activity_ids and pod_id"),
        ("pause", {"pod_id": "pod", "member_id": X}, "pod_id, or member_id, or neither"),
        ("pause", {"post_id": "post"}, "pod_id, or member_id, or neither"),
        ("resume", {"activity_ids": (X,)}, "pod_id, or member_id, or neither"),
        ("opt_out", {}, "member_id is needed"),
        ("opt_out", {"member_id": X, "pod_id": "pod"}, "member_id is needed"),
        ("opt_in", {"pod_id": "pod"}, "member_id is needed"),
        ("drain", {}, "instance_id is for drain and undrain, which need it"),
        ("undrain", {"instance_id": "one", "pod_id": "pod"}, "nothing else allowed"),
        ("cancel", {"instance_id": "one"}, "instance_id is for drain and undrain"),
        ("reschedule", {"activity_ids": (X,)}, "as many due_at"),
        ("reschedule", {"post_id": "post"}, "shift_ms, are needed"),
        ("reschedule", {"shift_ms": 5}, "shift_ms, are needed"),
        ("quiet_hours", {}, "pod_id, or member_id, is needed"),
        ("quiet_hours", {"pod_id": "pod", "quiet_from": "22:00"}, "or none of them"),
        (
            "quiet_hours",
            {
                "pod_id": "pod",
                "quiet_from": "22:00",
                "quiet_until": "21:00",
                "time_zone": "UTC",
            },
            "up to 20 hours, not 23",
        ),
        ("policy", {"member_id": X}, "pod_id is needed"),
        ("policy", {"pod_id": "pod", "like_min_delay_ms": 5}, "or neither"),
        (
            "policy",
            {"pod_id": "pod", "like_min_delay_ms": 5, "like_max_delay_ms": 4},
            "0 <= min <= max",
        ),
    ],
)
async def test_a_command_that_makes_no_sense_is_buried(
    command: str, fields: dict[str, Any], reason: str
) -> None:
    site = Site()
    await site.open(0)
    site.insert(X, 0, **LATER)
    before = site.record.table[X]
    await send(site, 0, command, **fields)
    assert len(site.letters) == 1
    assert reason in site.letters[0]
    assert site.record.table[X] == before
    assert not site.record.controls
    assert not site.record.applied
    assert await site.record.watermark(TOPIC, 0) == 1


async def test_a_cancel_of_another_shards_activities_is_forwarded() -> None:
    site = Site()
    await site.open(0, 1)
    site.insert(X, 1, **LATER)
    await add(site, 1, X)
    await send(site, 0, "cancel", activity_ids=(X,))
    assert site.forwarded == [1]
    assert site.record.table[X].status is Status.CANCELLED
    assert (await site.wheel.size(1)).pending == 0


async def test_a_cancel_of_another_shards_post_is_forwarded() -> None:
    site = Site()
    await site.open(0, 1, 2)
    site.insert(X, 1, **LATER)
    site.insert(Y, 2, **LATER)
    await add(site, 1, X)
    await add(site, 2, Y)
    await send(site, 2, "cancel", post_id="post")
    assert site.forwarded == [1]
    assert {row.status for row in site.record.table.values()} == {Status.CANCELLED}
    assert [(await site.wheel.size(shard)).pending for shard in (1, 2)] == [0, 0]


@pytest.mark.parametrize(
    ("rule", "command", "fields"),
    [
        ("postponed_times", "reschedule", {"post_id": "post", "shift_ms": 1000}),
        ("after", "quiet_hours", quiet("00:00", "01:00")),
        ("scheduled_times", "schedule", {"post_id": "post", "activity_ids": (Y,)}),
    ],
)
async def test_a_bug_in_the_rules_holds_up_no_neighbour(
    rule: str, command: str, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site()
    await site.open(0)
    site.insert(X, 0, **LATER)
    site.insert(Y, None)
    await add(site, 0, X)

    def fail(*_: object) -> None:
        raise ZeroDivisionError("no such time")

    monkeypatch.setattr(commands, rule, fail)
    events = [
        PodCommand(event_id="e", issued_at=moment(NOW_MS), **each)
        for each in (
            {"command": "pause", "member_id": "ann"},
            {"command": command, **fields},
            {"command": "cancel", "activity_ids": (X,)},
        )
    ]
    await site.deliver_all(0, [codec.encode(event) for event in events])
    assert site.letters == ["cannot be applied: ZeroDivisionError('no such time')"]
    assert site.record.table[X].status is Status.CANCELLED
    assert [each.command for each in site.record.applied.values()] == ["pause", "cancel"]
    assert (await site.wheel.size(0)).pending == 0


async def add(site: Site, shard: int, name: str) -> None:
    timer = site.record.table[name].timer
    assert timer
    await site.wheel.add(shard, "post-detected", -1, 0, [timer])


async def test_what_is_pending_can_be_cancelled_by_its_id_alone() -> None:
    site = Site()
    await site.open(0)
    site.insert(X, None)
    site.insert(Y, None)
    await send(site, 0, "cancel", pod_id="pod")
    assert site.record.table[X].status is Status.PENDING
    await send(site, 0, "cancel", activity_ids=(X,))
    assert site.record.table[X].status is Status.CANCELLED
    assert site.record.table[Y].status is Status.PENDING
    assert dict(site.record.applied[0, 2].outcome) == {"cancelled": 1}


async def test_a_timer_that_is_not_in_the_wheel_is_too_late() -> None:
    site = Site()
    await site.open(0)
    site.insert(X, 0, **LATER)
    site.insert(Y, 0, status=Status.EXECUTED)
    await send(site, 0, "cancel", pod_id="pod")
    assert site.record.table[X].status is Status.SCHEDULED
    assert dict(site.record.applied[0, 1].outcome) == {"too_late": 1, "final": 1}


@pytest.mark.parametrize("command", ["schedule", "dispatch"])
async def test_what_is_pending_of_who_has_opted_out_is_cancelled(command: str) -> None:
    site = Site()
    await site.open(0)
    site.insert(X, None, member_id="ann")
    site.insert(Y, None, member_id="bob")
    await send(site, 0, "opt_out", member_id="ann", actor="ann", reason="no more")
    control = site.record.controls[0, "opted_out", Subject("member", "ann")]
    assert (control.active, control.actor, control.reason) == (True, "ann", "no more")
    await site.apply(0, command, X, Y)
    assert site.record.table[X].status is Status.CANCELLED
    assert site.record.table[X].last_error == OPTED_OUT
    assert site.record.table[Y].status is Status.SCHEDULED
    await send(site, 0, "opt_in", member_id="ann")
    assert not site.record.controls[0, "opted_out", Subject("member", "ann")].active


async def test_what_is_scheduled_keeps_the_daily_cap_of_its_member() -> None:
    site = Site()
    await site.open(0)
    names = [str(UUID(int=number)) for number in range(1, 6)]
    for number, name in enumerate(names):
        site.insert(name, None, member_id="ann", post_id=f"post-{number}")
    # Of another pod, and long planned.
    due_ms = NOW_MS + 3_600_000
    site.insert(X, 0, member_id="ann", status=Status.SCHEDULED, scheduled_for_ms=due_ms)
    await send(site, 0, "daily_cap", member_id="ann", daily_cap=2)
    for name in names:
        await site.apply(0, "schedule", name)
    times = sorted(row.scheduled_for_ms or 0 for row in site.record.table.values())
    assert len(times) == 6
    for first, third in zip(times, times[2:], strict=False):
        assert third - first >= DAY_MS
    # Each says that it has planned, so that another shard does not plan by what was before.
    assert (await site.record.orders(TOPIC, 0, ["ann"])).plans == {"ann": 5}


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        ("policy", {"pod_id": "pod", "like_cap": 2}),
        ("quiet_hours", {"pod_id": "pod"}),
        ("daily_cap", {"member_id": "ann", "daily_cap": 2}),
        ("opt_in", {"member_id": "ann"}),
    ],
)
async def test_who_plans_events_is_bound(command: str, fields: dict[str, Any]) -> None:
    site = Site()
    await site.open(0)
    await send(site, 0, "pause", pod_id="pod")
    assert (await site.record.orders(EVENTS, 0, ["ann"])).version == -1
    await send(site, 0, command, **fields)
    assert (await site.record.orders(EVENTS, 0, ["ann"])).version == 2


@pytest.mark.parametrize("bound", [False, True], ids=["at once", "after a crash"])
async def test_quiet_hours_take_the_place_of_those_before(bound: bool) -> None:
    site = Site()
    await site.open(0)
    # Now it is 0:16:40.
    due_ms = 2 * HOUR_MS
    site.insert(X, 0, engagement_type="comment", status=Status.SCHEDULED, scheduled_for_ms=due_ms)
    await add(site, 0, X)
    # One hour of its delay is left when it gets quiet.
    for hours, hour in (
        (("01:00", "05:00"), 6),
        (("01:00", "05:00"), 6),
        (("01:00", "06:00"), 7),
        (("02:00", "03:00"), 3),
        (("01:30", "08:00"), 8.5),
    ):
        if bound:
            # A worker that has died got no further than that.
            event = PodCommand(
                event_id="e", command="quiet_hours", issued_at=moment(NOW_MS), **quiet(*hours)
            )
            at = await site.record.watermark(TOPIC, 0)
            verdict = Verdict(controls=(control(event, site.next_offset + 1),), binding=(EVENTS,))
            done = await site.record.change(TOPIC, 0, at, at, [], by="command", verdict=verdict)
            assert done is not None
        await send(site, 0, "quiet_hours", **quiet(*hours))
        assert site.record.table[X].scheduled_for_ms == hour * HOUR_MS


async def test_a_batch_is_decided_by_the_commands_in_it() -> None:
    site = Site()
    await site.open(0)
    site.insert(X, None, member_id="ann", pod_id="one")
    site.insert(Y, None, member_id="ann", pod_id="other")
    cap: dict[str, Any] = {"command": "daily_cap", "member_id": "ann", "daily_cap": 1}
    schedule: dict[str, Any] = {"command": "schedule", "post_id": "post", "activity_ids": (X, Y)}
    events = [
        PodCommand(event_id="e", issued_at=moment(NOW_MS), **fields) for fields in (cap, schedule)
    ]
    await site.deliver_all(0, [codec.encode(event) for event in events])
    first, second = sorted(row.scheduled_for_ms or 0 for row in site.record.table.values())
    assert second - first >= DAY_MS


async def test_a_drain_lasts_until_it_is_taken_back() -> None:
    site = Site()
    await site.open(0)
    await send(site, 0, "drain", instance_id="one", actor="ann", reason="new kernel")
    control = site.record.controls[0, "drained", Subject("dispatcher", "one")]
    assert (control.active, control.actor, control.reason) == (True, "ann", "new kernel")
    await send(site, 0, "undrain", instance_id="one")
    assert not site.record.controls[0, "drained", Subject("dispatcher", "one")].active
    assert [(each.command, each.scope, each.name) for each in site.record.applied.values()] == [
        ("drain", "dispatcher", "one"),
        ("undrain", "dispatcher", "one"),
    ]


async def test_a_drain_in_another_shard_goes_to_the_first() -> None:
    site = Site()
    await site.open(0, 1)
    await send(site, 1, "drain", instance_id="one")
    assert site.forwarded == [0]
    assert set(site.record.controls) == {(0, "drained", Subject("dispatcher", "one"))}
    assert {shard for shard, _ in site.record.applied} == {0}


async def test_a_sweep_is_in_the_audit_and_others_too() -> None:
    site = Site()
    await site.open(0)
    site.insert(X, 0, **LATER)
    await add(site, 0, X)
    await send(site, 0, "pause", pod_id="pod", actor="ann\x00", reason="why\nnot")
    await send(site, 0, "reschedule", post_id="post", shift_ms=1000)
    await send(site, 0, "cancel", actor="bob")
    first, second, third = site.record.applied.values()
    assert (first.command, first.scope, first.name) == ("pause", "pod", "pod")
    assert (first.actor, first.reason) == ("ann ", "why not")
    assert (second.scope, second.name, dict(second.outcome)) == ("post", "post", {"rescheduled": 1})
    assert (third.scope, third.actor, dict(third.outcome)) == ("all", "bob", {"cancelled": 1})
