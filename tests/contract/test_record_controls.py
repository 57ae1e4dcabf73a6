"""What every record keeps of commands: what lasts, whom it binds, and what it has changed."""

from collections.abc import Collection
from typing import Any

import pytest
from msgspec.structs import replace

from scheduler.activity import ActivityRow, RowChange, Status
from scheduler.adapters.postgres_client import PostgresClient
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.controls import (
    EVERYBODY,
    OPTED_OUT,
    AppliedCommand,
    Control,
    Kind,
    Orders,
    Selection,
    Subject,
    Verdict,
)
from scheduler.policy import PacingPolicy
from scheduler.ports import Record
from scheduler.quiet_hours import QuietHours
from tests.contract.recording import (
    DUE_MS,
    SHARD,
    TOPIC,
    Store,
    first_batch,
    members,
    planned,
)

RESULTS, COMMANDS = "engagement-executed", "pod-commands"
POD, MEMBER = Subject("pod", "pod"), Subject("member", "m")

pytestmark = pytest.mark.timeout(60)


def a_control(kind: Kind, subject: Subject, offset: int, **changes: Any) -> Control:
    values: dict[str, Any] = {
        "kind": kind,
        "subject": subject,
        "active": True,
        "command_offset": offset,
        "issued_at_ms": DUE_MS,
        "actor": "ann",
        "reason": "holidays",
    }
    return Control(**(values | changes))


def a_command(offset: int, **outcome: int) -> AppliedCommand:
    return AppliedCommand(
        command_offset=offset,
        event_id=f"e-{offset}",
        command="pause",
        scope="pod",
        name="pod",
        issued_at_ms=DUE_MS,
        actor="ann",
        reason="holidays",
        outcome=outcome,
    )


async def order(
    record: Record, at: int, upto: int, *controls: Control, binding: Collection[str] = ()
) -> bool:
    """Whether the commands up to `upto` were applied."""
    verdict = Verdict(controls=controls, binding=tuple(binding))
    done = await record.change(COMMANDS, SHARD, at, upto, [], by="command", verdict=verdict)
    return done is not None


async def held(record: Record) -> tuple[set[Subject], set[str]]:
    async with record.snapshot(SHARD) as snapshot:
        return set(snapshot.paused), set(snapshot.opted_out)


async def test_controls_are_set_and_taken_back(store: Store) -> None:
    record = store.record
    assert await held(record) == (set(), set())
    assert await order(
        record, -1, 2, a_control("paused", POD, 1), a_control("paused", EVERYBODY, 2)
    )
    assert await order(record, 2, 3, a_control("opted_out", MEMBER, 3))
    assert await held(record) == ({POD, EVERYBODY}, {"m"})
    taken_back = a_control("paused", POD, 4, active=False, actor=None, reason=None)
    assert await order(record, 3, 4, taken_back)
    assert await held(record) == ({EVERYBODY}, {"m"})


async def test_what_holds_is_told_by_kind_scope_and_subject(record_dsn: str) -> None:
    record = await PostgresRecord.connect(record_dsn)
    client = await PostgresClient.connect(record_dsn)
    try:
        given: list[tuple[Kind, Subject]] = [
            ("paused", EVERYBODY),
            ("paused", POD),
            ("quiet_hours", POD),
            ("opted_out", MEMBER),
        ]
        controls = [a_control(kind, whom, at) for at, (kind, whom) in enumerate(given, 1)]
        assert await order(record, -1, 4, *controls)
        for wanted, found in (
            ({}, {1, 2, 3, 4}),
            ({"kind": "paused"}, {1, 2}),
            ({"scope": "pod"}, {2, 3}),
            ({"kind": "paused", "scope": "pod", "subject": POD.name}, {2}),
            ({"subject": MEMBER.name}, {4}),
            ({"subject": "nobody"}, set()),
        ):
            meant = {given[at - 1] for at in found}
            told = await client.controls(**wanted)  # type: ignore[arg-type] # by name
            assert {(each.kind, Subject(each.scope, each.subject)) for each in told} == meant
        assert len(await client.controls(limit=3)) == 3
    finally:
        await client.close()
        await record.close()


async def test_a_control_of_one_who_lost_the_swap_is_none(store: Store) -> None:
    assert await order(store.record, -1, 1)
    assert not await order(store.record, 0, 2, a_control("paused", POD, 2), binding=[TOPIC])
    assert await held(store.record) == (set(), set())
    assert await store.record.orders(TOPIC, SHARD, ["m"]) == Orders()


async def test_orders_tell_who_has_opted_out(store: Store) -> None:
    record = store.record
    assert await record.orders(TOPIC, SHARD, ["m", "n"]) == Orders(-1, frozenset())
    assert await order(record, -1, -1, a_control("opted_out", MEMBER, 7), binding=[TOPIC])
    assert await record.watermark(COMMANDS, SHARD) == -1
    assert await record.orders(TOPIC, SHARD, ["m", "n"]) == Orders(7, frozenset({"m"}))
    assert await record.orders(TOPIC, SHARD, ["n"]) == Orders(7, frozenset())
    assert await record.orders(RESULTS, SHARD, ["m"]) == Orders(-1, frozenset({"m"}))
    assert await record.orders(TOPIC, SHARD + 1, ["m"]) == Orders()
    back = a_control("opted_out", MEMBER, 9, active=False)
    assert await order(record, -1, 9, back, binding=[TOPIC, RESULTS])
    assert await record.orders(TOPIC, SHARD, ["m"]) == Orders(9, frozenset())
    assert await record.orders(RESULTS, SHARD, ["m"]) == Orders(9, frozenset())


@pytest.mark.parametrize("begun", [False, True], ids=["first batch", "later"])
async def test_a_plan_by_older_orders_is_refused(store: Store, begun: bool) -> None:
    record = store.record
    at = -1
    if begun:
        await first_batch(record, members(0, 1))
        at = 0
    assert await order(record, -1, -1, a_control("opted_out", MEMBER, 5), binding=[TOPIC])
    more = members(1, 2)
    for version in (-1, 4, 6):
        assert await record.apply_plan(TOPIC, SHARD, at, 1, more, decided_by=version) is None
    assert await record.watermark(TOPIC, SHARD) == at
    assert await record.apply_plan(TOPIC, SHARD, at, 1, more, decided_by=5) == frozenset()
    assert await record.apply_plan(TOPIC, SHARD, 1, 2, [], decided_by=None) == frozenset()


async def test_a_change_for_a_wheel_that_was_lost_is_refused(store: Store) -> None:
    record = store.record

    async def change(topic: str, shard: int, at: int, upto: int, gen: str | None) -> bool:
        done = await record.change(topic, shard, at, upto, [], by="command", wheel_gen=gen)
        return done is not None

    assert await record.wheel_gen(COMMANDS, SHARD) is None
    # As long as nobody has said which one it is, any will do.
    assert await change(COMMANDS, SHARD, -1, -1, "old")
    for at in (-1, 4):
        await record.begin_wheel(COMMANDS, SHARD, "new")
        assert await record.wheel_gen(COMMANDS, SHARD) == "new"
        assert await record.watermark(COMMANDS, SHARD) == at
        assert not await change(COMMANDS, SHARD, at, at + 5, "old")
        assert await record.watermark(COMMANDS, SHARD) == at
        assert await change(COMMANDS, SHARD, at, at, "new")
        assert await change(COMMANDS, SHARD, at, at + 5, None)
        assert await change(RESULTS, SHARD, at, at + 5, "old")
        assert await change(COMMANDS, SHARD + 1, at, at + 5, "old")
    await record.begin_wheel(COMMANDS, SHARD, "newer", instead_of="old")
    assert await record.wheel_gen(COMMANDS, SHARD) == "new"
    await record.begin_wheel(COMMANDS, SHARD, "newer", instead_of="new")
    assert await record.wheel_gen(COMMANDS, SHARD) == "newer"
    await first_batch(record, members(0, 1))
    assert await record.watermark(TOPIC, SHARD) == 0


async def test_a_result_by_older_orders_is_refused(store: Store) -> None:
    record = store.record
    await first_batch(record, members(0, 1))
    assert await order(record, -1, 3, a_control("opted_out", MEMBER, 3), binding=[RESULTS])
    change = record.change
    assert await change(RESULTS, SHARD, -1, 0, [], by="result", decided_by=-1) is None
    assert await change(RESULTS, SHARD, -1, 0, [], by="result", decided_by=3) is not None
    assert await change(RESULTS, SHARD, 0, 1, [], by="result") is not None


@pytest.mark.parametrize("again", [False, True], ids=["new", "around what is there"])
async def test_what_is_skipped_is_cancelled_from_the_beginning(store: Store, again: bool) -> None:
    record = store.record
    at = -1
    kept = planned(1, member="kept")
    if again:
        await first_batch(record, [kept])
        at = 0
    skipped = planned(1, member="m")
    activities = [kept, replace(skipped, skipped=OPTED_OUT)]
    there = await record.apply_plan(TOPIC, SHARD, at, 1, activities, decided_by=-1)
    assert there == (frozenset({kept.activity_id}) if again else frozenset())
    row = (await store.rows())[skipped.activity_id]
    assert (row.status, row.last_error) == (Status.CANCELLED, OPTED_OUT)
    assert row.scheduled_for_ms == DUE_MS
    assert [each.activity_id for each in await record.unfired_between(SHARD, -1, 1)] == [
        kept.activity_id
    ]
    (told,) = await record.skipped_between(SHARD, 0, 1)
    assert (told.activity_id, told.status, told.reason) == (
        skipped.activity_id,
        Status.CANCELLED,
        OPTED_OUT,
    )
    assert await record.skipped_between(SHARD, 1, 5) == []
    assert await record.skipped_between(SHARD + 1, 0, 1) == []


async def test_orders_tell_quiet_hours_and_policies(store: Store) -> None:
    record = store.record
    night = {"from": "22:00", "until": "07:30", "zone": "Europe/Berlin"}
    own = {"like_cap": 2, "like_jitter": 0.25}
    assert await order(
        record,
        -1,
        3,
        a_control("quiet_hours", POD, 1, value=night),
        a_control("quiet_hours", MEMBER, 2, value=night),
        a_control("policy", POD, 3, value=own),
        binding=[TOPIC],
    )
    hours = QuietHours(22 * 60, 7 * 60 + 30, "Europe/Berlin")
    found = await record.orders(TOPIC, SHARD, ["m", "n"], ["pod", "other"])
    assert found == Orders(3, frozenset(), {POD: hours, MEMBER: hours}, {"pod": own})
    assert found.quiet_for("pod", "n") == (hours,)
    assert found.quiet_for("other", "n") == ()
    policy = found.policy("pod", PacingPolicy())
    assert (policy.like_cap, policy.like.jitter) == (2, 0.25)
    assert policy.comment == PacingPolicy().comment
    assert found.policy("other", PacingPolicy()) == PacingPolicy()
    assert await record.orders(TOPIC, SHARD, ["n"], ["other"]) == Orders(3)
    off = a_control("policy", POD, 4, active=False)
    assert await order(record, 3, 4, off, binding=[TOPIC])
    assert (await record.orders(TOPIC, SHARD, [], ["pod"])).policies == {}


async def test_what_matches_is_found(store: Store) -> None:
    record = store.record
    mine = [planned(0, pod="a", post="p", member="m"), planned(0, pod="a", post="q", member="n")]
    other = planned(0, pod="b", post="p", member="n", kind="comment")
    await first_batch(record, [*mine, other])
    elsewhere = planned(0, pod="a", post="p", member="x")
    assert await record.apply_plan(TOPIC, SHARD + 1, -1, 0, [elsewhere]) == frozenset()

    async def found(selection: Selection, *statuses: Status) -> set[str]:
        async with record.snapshot(SHARD) as snapshot:
            chunks = [each async for each in snapshot.matching(selection, statuses, 1)]
        assert all(len(chunk) == 1 for chunk in chunks)
        return {name for chunk in chunks for name in chunk}

    first, second, third = (each.activity_id for each in (*mine, other))
    waits = Status.SCHEDULED
    assert await found(Selection("pod", "a"), waits) == {first, second}
    assert await found(Selection("post", "p"), waits) == {first, third}
    assert await found(Selection("member", "n"), waits) == {second, third}
    assert await found(Selection("all"), waits) == {first, second, third}
    assert await found(Selection("pod", "a"), Status.DISPATCHED, Status.CANCELLED) == set()
    assert await found(Selection("pod", "c"), waits) == set()
    shards = await record.shards_of_posts(["p", "q", "r"])
    assert shards == {"p": min(SHARD, SHARD + 1), "q": SHARD}


async def changed(record: Record, at: int, upto: int, *changes: RowChange) -> None:
    done = await record.change(COMMANDS, SHARD, at, upto, changes, by="command")
    assert done is not None


async def test_what_a_command_has_changed_is_known(store: Store) -> None:
    record = store.record
    one, two = members(0, 2)
    await first_batch(record, [one, two])

    async def commanded(offset: int) -> set[str]:
        async with record.snapshot(SHARD) as snapshot:
            rows = [row async for chunk in snapshot.commanded(offset, 1) for row in chunk]
        return {row.activity_id for row in rows}

    await changed(record, -1, -1, cancel(await read(record, one.activity_id), 4))
    await changed(record, -1, 4, cancel(await read(record, two.activity_id), 4))
    assert await commanded(4) == {one.activity_id, two.activity_id}
    assert await record.count_commanded(SHARD, 4) == 2
    assert await record.count_commanded(SHARD + 1, 4) == 0
    await changed(record, 4, 5, cancel(await read(record, two.activity_id), 5))
    assert await commanded(4) == {one.activity_id}
    assert await record.count_commanded(SHARD, 4) == 1
    assert await commanded(5) == {two.activity_id}


async def test_the_quiet_hours_before_a_command_are_known(store: Store) -> None:
    record = store.record
    night: dict[str, str | int | float] = {"from": "22:00", "until": "07:00", "zone": "UTC"}
    others = (
        replace(a_command(0), command="quiet_hours", value=night),
        replace(a_command(1), command="quiet_hours", scope="member", value={**night, "zone": "X"}),
        replace(a_command(2), command="policy", value={"like_cap": 2}),
        replace(a_command(3), command="quiet_hours", value=None),
    )
    done = await record.change(
        COMMANDS, SHARD, -1, 3, [], by="command", verdict=Verdict(applied=others)
    )
    assert done is not None

    async def before(offset: int, shard: int = SHARD) -> QuietHours | None:
        return await record.quiet_before(shard, POD, offset)

    assert await before(0) is None
    assert [await before(offset) for offset in (1, 2, 3)] == [QuietHours(1320, 420, "UTC")] * 3
    assert await before(4) is None
    assert await before(1, SHARD + 1) is None


async def test_when_what_a_command_moved_was_due_before_is_known(store: Store) -> None:
    record = store.record
    one, two = members(0, 2)
    await first_batch(record, [one, two])
    for later_ms in (3_600_000, 7_200_000):
        row = await read(record, one.activity_id)
        change = replace(
            cancel(row, 4), status=Status.SCHEDULED, scheduled_for_ms=DUE_MS + later_ms
        )
        await changed(record, -1, -1, change)
    ids = [one.activity_id, two.activity_id]
    # As of the first time: what one command does is one change.
    was = one.scheduled_for_ms
    assert await record.were_due(SHARD, 4, ids) == {one.activity_id: was}
    assert await record.were_due(SHARD, 4, {two.activity_id}) == {}
    assert await record.were_due(SHARD, 5, ids) == {}
    assert await record.were_due(SHARD + 1, 4, ids) == {}


async def read(record: Record, activity_id: str) -> ActivityRow:
    return (await record.rows([activity_id]))[activity_id]


def cancel(row: ActivityRow, offset: int) -> RowChange:
    return RowChange(
        row=row,
        cause=offset,
        status=Status.CANCELLED,
        attempt=row.attempt,
        scheduled_for_ms=row.scheduled_for_ms,
    )


async def test_applying_a_command_twice_notes_it_once(store: Store) -> None:
    record = store.record
    verdict = Verdict(applied=(a_command(0, cancelled=3), a_command(1)))
    assert await record.change(COMMANDS, SHARD, -1, 1, [], by="command", verdict=verdict) == {}
    assert await record.change(COMMANDS, SHARD, -1, 1, [], by="command", verdict=verdict) is None
    assert await record.change(COMMANDS, SHARD, 1, 1, [], by="command", verdict=verdict) == {}


async def test_shards_plan_for_a_capped_member_one_after_the_other(store: Store) -> None:
    record = store.record
    cap = a_control("daily_cap", MEMBER, 1, value={"cap": 3})
    assert await order(record, -1, 1, cap, binding=[TOPIC])
    orders = await record.orders(TOPIC, SHARD, ["m", "n"])
    assert (orders.version, orders.caps, orders.plans) == (1, {"m": 3}, {"m": 0})
    first, second = planned(0, member="m"), planned(1, member="m", post="q", due_ms=DUE_MS + 5)

    async def apply(shard: int, at: int, activity: Any, known: int) -> Any:
        return await record.apply_plan(
            TOPIC, shard, at, at + 1, [activity], plans={"m": known}, decided_by=None
        )

    assert await apply(SHARD, -1, first, 0) == frozenset()
    # Another shard has planned by what it knew before.
    assert await apply(SHARD + 1, -1, second, 0) is None
    assert await record.watermark(TOPIC, SHARD + 1) == -1
    assert await apply(SHARD + 1, -1, second, 1) == frozenset()
    assert (await record.orders(TOPIC, SHARD, ["m"])).plans == {"m": 2}
    assert await record.member_times(["m", "n"], DUE_MS) == {"m": (DUE_MS, DUE_MS + 5), "n": ()}
    assert await record.member_times(["m"], DUE_MS + 1) == {"m": (DUE_MS + 5,)}
    # So does who plans by a command.
    for known, done in ((1, None), (2, {TOPIC: 0})):
        answer = await record.change(COMMANDS, SHARD, 1, 2, [], by="command", plans={"m": known})
        assert answer == done
    assert (await record.orders(TOPIC, SHARD, ["m"])).plans == {"m": 3}
    off = a_control("daily_cap", MEMBER, 3, active=False)
    assert await order(record, 2, 3, off, binding=[TOPIC])
    found = await record.orders(TOPIC, SHARD, ["m"])
    assert (found.caps, found.plans) == ({}, {})
    # And where nothing is known of one: whoever is forgotten may get a cap in the same moment.
    for shard, known, moved in ((5, 0, True), (6, 0, False), (6, 1, True)):
        activity = planned(0, member="x", post=f"of {shard}")
        there = await record.apply_plan(TOPIC, shard, -1, 0, [activity], plans={"x": known})
        assert (there is not None) == moved
