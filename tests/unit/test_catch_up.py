"""What a shard makes of the dispatcher's reports of overdue timers."""

from collections.abc import Sequence
from typing import Any

import pytest

from scheduler.activity import Announcement, Status
from scheduler.adapters.kafka_outbox import _status_record
from scheduler.adapters.memory_record import MemoryRecord, Row
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.commands import CommandApplier
from scheduler.errors import SettingsError
from scheduler.overdue import reports
from scheduler.policy import OverduePolicy, PacingPolicy
from scheduler.ports import Claim, SourceRecord
from scheduler.settings import load_settings
from scheduler.timer import Timer
from schemas import codec
from schemas.events import MAX_COMMAND_ACTIVITIES, MAX_SHIFT_MS, EngagementStatus, PodCommand
from schemas.times import moment

pytestmark = pytest.mark.timeout(30)

TOPIC, SHARD, NOW_MS, LATE_MS = "pod-commands", 0, 10_000_000, 3_600_000
DUE_MS = NOW_MS - LATE_MS
POSTPONE, EXPIRE = OverduePolicy("postpone", 60_000), OverduePolicy("expire", 60_000)
X, Y, Z = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2, 3))


class Site:
    """A shard whose overdue timers have been claimed under `policy`, and are held back."""

    def __init__(self, policy: OverduePolicy | None) -> None:
        self.policy = policy
        self.record = MemoryRecord()
        self.wheel = MemoryWheel(lambda: NOW_MS)
        self.statuses: list[Announcement] = []
        self.letters: list[str] = []
        self.applied: list[SourceRecord] = []
        self.reported: Sequence[PodCommand] = ()

    async def begin(self, **due_ms: int) -> None:
        """Likes of one post by their due time, and a claim that finds them."""
        for name, at_ms in due_ms.items():
            row = Row(
                id={"x": X, "y": Y, "z": Z}[name],
                pod_id="pod",
                post_id="post",
                member_id=name,
                engagement_type="like",
                status=Status.SCHEDULED,
                scheduled_for_ms=at_ms,
                source_partition=SHARD,
            )
            assert self.record.insert(row)
        await self.wheel.take(SHARD, "epoch")
        await self.wheel.wipe(SHARD, "epoch")
        timers = [row.timer for row in self.record.table.values() if row.timer]
        await self.wheel.load(SHARD, "epoch", timers)
        await self.wheel.open(SHARD, "epoch", "gen", (0, ""), {})
        self.reported = reports(SHARD, await self.claim((0, ""), "nonce"))

    async def claim(self, done: tuple[int, str], nonce: str) -> Claim:
        return await self.wheel.claim(SHARD, "epoch", "gen", done, nonce, 100, 1000, self.policy)

    def applier(self) -> CommandApplier:
        return CommandApplier(
            SHARD,
            TOPIC,
            inputs=[TOPIC],
            policy=PacingPolicy(like_cap=2, like_cap_window_ms=1000),
            record=self.record,
            wheel=self.wheel,
            outbox=self,
            overdue=self.policy,
        )

    async def apply(self, *commands: PodCommand) -> None:
        records = [
            SourceRecord(TOPIC, SHARD, len(self.applied) + n, None, codec.encode(command))
            for n, command in enumerate(commands)
        ]
        self.applied += records
        await self.applier().apply(records)

    async def announce(self, shard: int, statuses: Sequence[Announcement]) -> None:
        self.statuses += statuses

    async def dead_letter(
        self, record: SourceRecord, reason: str, extra: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.letters.append(reason)

    async def forward(self, record: SourceRecord, partition: int) -> None:
        raise AssertionError("the dispatcher knows the shard")

    @property
    def due(self) -> dict[str, int | None]:
        return {row.member_id: row.scheduled_for_ms for row in self.record.table.values()}


def command(name: Any, *ids: str, **fields: Any) -> PodCommand:
    return PodCommand(
        event_id="e", command=name, issued_at=moment(NOW_MS), activity_ids=ids, **fields
    )


async def test_a_backlog_is_laid_out_anew() -> None:
    site = Site(POSTPONE)
    await site.begin(x=DUE_MS, y=DUE_MS + 10, z=DUE_MS + 20)
    await site.apply(*site.reported)
    # An hour later, as far apart as they were; but the cap takes two in a second.
    assert site.due == {"x": NOW_MS, "y": NOW_MS + 10, "z": NOW_MS + 1000}
    size = await site.wheel.size(SHARD)
    assert (size.pending, size.held, size.next_due_ms) == (3, 0, NOW_MS)
    assert [each.status for each in site.statuses] == [Status.SCHEDULED] * 3
    assert site.statuses[2].reason == "found 3599 s late, postponed by 3600 s"


async def test_a_backlog_is_given_up() -> None:
    site = Site(EXPIRE)
    await site.begin(x=DUE_MS, y=NOW_MS + 1)
    await site.apply(*site.reported)
    assert site.record.table[X].status is Status.EXPIRED
    assert site.record.table[X].last_error == "found 3600 s late"
    assert site.record.table[Y].status is Status.SCHEDULED
    size = await site.wheel.size(SHARD)
    assert (size.pending, size.held) == (1, 0)
    assert [(each.activity_id, each.status, each.reason) for each in site.statuses] == [
        (X, Status.EXPIRED, "found 3600 s late")
    ]


@pytest.mark.parametrize("policy", [POSTPONE, EXPIRE])
async def test_a_copy_of_a_report_does_nothing(policy: OverduePolicy) -> None:
    site = Site(policy)
    await site.begin(x=DUE_MS, y=DUE_MS + 10)
    await site.apply(*site.reported, *site.reported)
    before = (site.due, dict(site.record.table), await site.wheel.size(SHARD), len(site.statuses))
    await site.apply(*site.reported)
    after = (site.due, dict(site.record.table), await site.wheel.size(SHARD), len(site.statuses))
    assert before[:2] == after[:2]
    assert before[2].pending == after[2].pending
    assert before[3] == after[3] == 2


@pytest.mark.parametrize("policy", [POSTPONE, EXPIRE])
async def test_who_died_before_the_wheel_did_not_lose_it(
    monkeypatch: pytest.MonkeyPatch, policy: OverduePolicy
) -> None:
    site = Site(policy)
    await site.begin(x=DUE_MS, y=DUE_MS + 10)
    (report,) = site.reported
    record = SourceRecord(TOPIC, SHARD, 0, None, codec.encode(report))
    dying = site.applier()

    async def dies(*_: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(dying, "_follow", dies)
    with pytest.raises(ConnectionResetError):
        await dying.apply([record])
    assert (await site.wheel.size(SHARD)).held == 2
    await site.applier().apply([record])
    size = await site.wheel.size(SHARD)
    assert (size.gen, size.held) == ("gen", 0)  # exact, without a rebuild
    assert size.pending == (2 if policy is POSTPONE else 0)
    assert len(site.statuses) == 2
    wanted = Status.SCHEDULED if policy is POSTPONE else Status.EXPIRED
    assert {each.status for each in site.statuses} == {wanted}
    assert all(each.reason and each.reason.startswith("found 3") for each in site.statuses)


@pytest.mark.parametrize("policy", [POSTPONE, EXPIRE])
async def test_a_copy_that_did_not_come_to_the_wheel_is_no_reason_to_rebuild_it(
    policy: OverduePolicy,
) -> None:
    site = Site(policy)
    await site.begin(x=DUE_MS, y=DUE_MS + 10)
    await site.apply(*site.reported)
    # The record has the copy, and whoever applied it has died.
    assert await site.record.change(TOPIC, SHARD, 0, 1, [], by="command") is not None
    await site.apply(*site.reported)
    assert await site.wheel.watermark(SHARD, TOPIC) == 1
    assert (await site.wheel.size(SHARD)).gen == "gen"
    assert len(site.statuses) == 2


async def test_a_command_by_hand_takes_a_timer_out() -> None:
    site = Site(POSTPONE)
    await site.begin(x=DUE_MS, y=DUE_MS + 10)
    await site.apply(command("dispatch", X, post_id="post"), *site.reported)
    assert site.due == {"x": NOW_MS, "y": NOW_MS + 10}
    batch = await site.claim((1, "nonce"), "nonce-2")
    assert [timer.activity_id for timer in batch.timers] == [X]
    assert (await site.wheel.size(SHARD)).held == 0


async def test_without_a_policy_a_command_leaves_what_is_due_as_it_is() -> None:
    site = Site(None)
    await site.begin(x=DUE_MS)
    assert site.reported == ()
    await site.apply(command("dispatch", X, post_id="post"))
    assert site.due == {"x": DUE_MS}


async def test_a_report_about_another_shard_or_nothing_does_nothing() -> None:
    site = Site(POSTPONE)
    await site.begin(x=DUE_MS)
    elsewhere = Row(
        id=Y,
        pod_id="pod",
        post_id="post",
        member_id="y",
        engagement_type="like",
        status=Status.SCHEDULED,
        scheduled_for_ms=DUE_MS,
        source_partition=SHARD + 1,
    )
    assert site.record.insert(elsewhere)
    at = moment(DUE_MS)
    await site.apply(command("postpone", Y, Z, due_at=(at, at), shift_ms=5))
    assert site.due == {"x": DUE_MS, "y": DUE_MS}
    assert site.statuses == []


async def test_a_report_with_a_time_too_few_is_a_dead_letter() -> None:
    site = Site(POSTPONE)
    await site.begin(x=DUE_MS)
    await site.apply(
        command("expire", X), command("postpone", X, Y, due_at=(moment(DUE_MS),), shift_ms=1)
    )
    assert site.letters == ["as many due_at as activity_ids are needed"] * 2
    assert site.due == {"x": DUE_MS}


def test_a_large_backlog_takes_several_reports() -> None:
    timers = [
        Timer(f"id-{number}", "pod", "post", "member", "like", 1, DUE_MS + number)
        for number in range(2 * MAX_COMMAND_ACTIVITIES + 1)
    ]
    claim = Claim(7, "nonce", (), None, NOW_MS, overdue=timers, shift_ms=MAX_SHIFT_MS * 50)
    made = reports(3, claim)
    assert [each.event_id for each in made] == [f"overdue:3:nonce:{n}" for n in range(3)]
    assert [len(each.activity_ids) for each in made] == [MAX_COMMAND_ACTIVITIES] * 2 + [1]
    for each in made:
        assert codec.decode(PodCommand, codec.encode(each)) == each
        assert each.shift_ms == MAX_SHIFT_MS


def test_a_postponed_status_has_an_id_of_its_own() -> None:
    first = Announcement(X, "pod", "post", "member", "like", Status.SCHEDULED, 1, DUE_MS)
    later = Announcement(
        X, "pod", "post", "member", "like", Status.SCHEDULED, 1, NOW_MS, "late", True
    )
    ids = []
    for each in (first, later):
        _, value, headers = _status_record(each, NOW_MS, [])
        event = codec.decode(EngagementStatus, value)
        assert dict(headers)["ce_id"].decode() == event.event_id
        ids.append(event.event_id)
    assert ids == [f"{X}:scheduled:1", f"{X}:scheduled:1:{NOW_MS}"]


def test_the_policy_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().overdue is None
    monkeypatch.setenv("POD_AUTOMATION_CATCH_UP", "paced")
    assert load_settings().overdue == OverduePolicy("postpone", 60_000)
    monkeypatch.setenv("POD_AUTOMATION_CATCH_UP", "expire")
    assert load_settings().overdue == OverduePolicy("expire", 6 * 3_600_000)
    for name in ("CATCH_UP", "PACED_AFTER_MS", "EXPIRE_AFTER_MS"):
        with monkeypatch.context() as wrong:
            wrong.setenv(f"POD_AUTOMATION_{name}", "0")
            with pytest.raises(SettingsError, match=f"^POD_AUTOMATION_{name}: "):
                load_settings()
