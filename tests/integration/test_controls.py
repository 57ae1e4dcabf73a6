"""What operators ask for, on real stores, with the engine at work and under kill -9."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from pod_automation import (
    InvalidArgumentError,
    NotAppliedError,
    NotFoundError,
    PodAutomation,
)
from pod_automation.cli.exit_codes import ExitCode
from scheduler.controls import OPTED_OUT
from scheduler.settings import Settings
from schemas.ids import activity_id
from tests.integration.scenario import EngineProcess
from tests.integration.test_cli import pod_automation, result_of
from tests.integration.test_client import engine, insert, rows, sent, until

pytestmark = pytest.mark.timeout(240)

# What is due at once, and is sent as soon as somebody may.
FAST = {
    "POD_AUTOMATION_COMMENT_MIN_DELAY_MS": "0",
    "POD_AUTOMATION_COMMENT_MAX_DELAY_MS": "0",
}


@pytest.fixture
async def pods(settings: Settings) -> AsyncIterator[PodAutomation]:
    async with PodAutomation(settings, actor="ann") as client:
        yield client


async def publish(
    environment: Mapping[str, str], post: str, members: list[str], **fields: Any
) -> None:
    event = {
        "event_id": str(uuid4()),
        "pod_id": "p",
        "post_id": post,
        "member_ids": members,
        "detected_at": datetime.now(UTC).isoformat(),
        "engagement_types": ["comment"],
        **fields,
    }
    outcome = await pod_automation(environment, "publish", stdin=json.dumps(event).encode())
    assert outcome.code == ExitCode.OK, outcome.err


async def statuses(settings: Settings) -> Counter[str]:
    return Counter(row["status"] for row in (await rows(settings)).values())


async def planned(settings: Settings, count: int) -> None:
    async def all_there() -> bool:
        return len(await rows(settings)) == count

    await until(all_there)


async def fired(settings: Settings) -> Counter[str]:
    """Members of all engagements that were sent."""
    events = await sent(settings, settings.topics.execute_engagement)
    return Counter(fields["member_id"] for _, fields in events)


async def test_cancel_says_of_each_what_became_of_it(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    async with engine(environment):
        await publish(environment, "x", ["a", "b", "c", "d"])
        await publish(environment, "y", ["a", "b"], pod_id="q")
        await planned(settings, 6)
        a, b, c, d = (activity_id("p", "x", member, "comment") for member in "abcd")
        await pods.execute_engagement_activity(a, "comment", wait_s=30)

        async def a_is_sent() -> bool:
            return str((await rows(settings))[a]["status"]) == "dispatched"

        await until(a_is_sent)
        await pods.mark_activity_executed(b, success=True, wait_s=30)
        answer = await pods.cancel([a, b, c], reason="too many", wait_s=30)
        assert (answer.cancelled, answer.too_late, answer.final) == (1, 1, 1)
        assert [(each.activity_id, each.answer) for each in answer.activities] == [
            (a, "too_late"),
            (b, "final"),
            (c, "cancelled"),
        ]
        assert (await rows(settings))[c]["last_error"] == "too many"
        answer = await pods.cancel(pod_id="p", wait_s=30)
        assert (answer.cancelled, answer.too_late, answer.final) == (1, 1, 2)
        assert answer.shards == settings.partitions
        answer = await pods.cancel(post_id="y", wait_s=30)
        assert (answer.cancelled, answer.shards) == (2, 1)
        with pytest.raises(NotFoundError):
            await pods.cancel(post_id="z", wait_s=30)
        with pytest.raises(NotFoundError):
            await pods.cancel([str(uuid4())], wait_s=30)

        history = await pods.get_activity_history(c)
        assert [step.what for step in history.steps] == ["planned", "cancelled"]
        assert history.steps[0].source is not None
        assert history.steps[0].source.startswith(settings.topics.post_detected)
        assert (history.steps[1].by, history.steps[1].reason) == ("ann", "too many")
        told = [fields for _, fields in await sent(settings, settings.topics.engagement_status)]
        assert {f["activity_id"] for f in told if f["status"] == "cancelled"} == {
            c,
            d,
            *(activity_id("q", "y", member, "comment") for member in "ab"),
        }
    assert await statuses(settings) == {"dispatched": 1, "executed": 1, "cancelled": 4}


async def test_what_makes_no_sense_is_refused_before_anything_is_sent(
    settings: Settings, pods: PodAutomation
) -> None:
    for call in (
        pods.cancel(),
        pods.cancel(pod_id="p", member_id="m"),
        pods.cancel([]),
        pods.cancel("a"),
        pods.pause(pod_id="p", member_id="m"),
        pods.pause(pod_id="p\n"),
        pods.pause(pod_id="p", reason="x" * 201),
        pods.reschedule(str(uuid4()), datetime(2026, 1, 1)),  # noqa: DTZ001
        pods.shift_post("x", timedelta(seconds=-1)),
        pods.opt_out(""),
        pods.get_audit(0),
    ):
        with pytest.raises(InvalidArgumentError):
            await call
    with pytest.raises(NotAppliedError, match="in 0 of 4 shards"):
        await pods.pause(pod_id="p", wait_s=0)


async def test_a_pause_outlives_its_engine(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    processes = [EngineProcess("run", {**environment, **FAST}) for _ in range(2)]
    try:
        await processes[0].start()
        await pods.pause(pod_id="p", reason="under review", wait_s=60)
        await publish(environment, "x", ["a", "b"])
        await publish(environment, "y", ["c"], pod_id="q")

        async def c_is_sent() -> bool:
            return await fired(settings) == {"c": 1}

        await until(c_is_sent)
        await processes[0].kill()
        # The wheel is lost as well: who is paused is in the record.
        await _lose_the_wheel(settings)
        await processes[1].start()
        await publish(environment, "z", ["d"], pod_id="q")

        async def d_is_sent() -> bool:
            return await fired(settings) == {"c": 1, "d": 1}

        await until(d_is_sent)
        (control,) = await pods.get_controls()
        assert (control.kind, control.scope, control.subject) == ("paused", "pod", "p")
        assert "\nPaused:      pod p\n" in (await pod_automation(environment, "status")).out
        assert (control.actor, control.reason, control.shards) == (
            "ann",
            "under review",
            settings.partitions,
        )
        await pods.resume(pod_id="p", wait_s=60)

        async def all_are_sent() -> bool:
            return await fired(settings) == dict.fromkeys("abcd", 1)

        await until(all_are_sent)
        assert await pods.get_controls() == []
    finally:
        for process in processes:
            await process.kill()


async def test_what_was_asked_for_while_no_worker_ran_comes_first(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    posts = 200
    async with engine(environment, "dispatcher", **FAST):
        for asked in (pods.pause(reason="an outage", wait_s=0), pods.opt_out("b", wait_s=0)):
            with pytest.raises(NotAppliedError):
                await asked
        for number in range(posts):
            await pods.publish_post_detected(
                {
                    "event_id": f"e{number}",
                    "pod_id": "p",
                    "post_id": f"x{number}",
                    "member_ids": ["a", "b"],
                    "detected_at": datetime.now(UTC).isoformat(),
                    "engagement_types": ["comment"],
                }
            )
        async with engine(environment, "worker", **FAST):
            await planned(settings, 2 * posts)

            async def opted_out() -> bool:
                return await statuses(settings) == {"scheduled": posts, "cancelled": posts}

            await until(opted_out)
            assert await fired(settings) == {}
            await pods.resume(wait_s=60)

            async def all_are_sent() -> bool:
                return await fired(settings) == {"a": posts}

            await until(all_are_sent)


async def _lose_the_wheel(settings: Settings) -> None:
    from redis.asyncio import Redis

    async with Redis.from_url(settings.redis_url) as redis:
        async for key in redis.scan_iter(match=f"{settings.topic_prefix}*"):
            await redis.delete(key)


async def test_who_has_opted_out_does_nothing_whoever_dies(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    async with engine(environment):
        await publish(environment, "x", ["a", "b"])
        await planned(settings, 2)
    # Nobody runs: the command waits in Kafka, and so does what is published behind it.
    with pytest.raises(NotAppliedError):
        await pods.opt_out("a", reason="asked by mail", wait_s=0)
    await publish(environment, "y", ["a", "b"])
    async with engine(environment):
        await planned(settings, 4)
        again = await pods.opt_out("a", wait_s=60)
        assert again.cancelled == 0

        async def nothing_of_a_waits() -> bool:
            waiting = [row for row in (await rows(settings)).values() if row["member_id"] == "a"]
            return all(row["status"] == "cancelled" for row in waiting)

        await until(nothing_of_a_waits)
        found = {(row["post_id"], row["member_id"]): row for row in (await rows(settings)).values()}
        assert found["x", "a"]["last_error"] == OPTED_OUT
        # Which of the two came first, the log of the post or that of the commands, nobody knows.
        assert found["y", "a"]["last_error"] == OPTED_OUT
        await publish(environment, "z", ["a", "b"])
        await planned(settings, 6)
        skipped = activity_id("p", "z", "a", "comment")
        history = await pods.get_activity_history(skipped)
        assert [(step.what, step.reason) for step in history.steps] == [
            ("planned and skipped", OPTED_OUT)
        ]
        preview = await pods.preview_plan(
            {
                "event_id": "e",
                "pod_id": "p",
                "post_id": "w",
                "member_ids": ["a", "b"],
                "detected_at": datetime.now(UTC).isoformat(),
            }
        )
        assert preview.opted_out == ("a",)
        assert {each.member_id for each in preview.engagements} == {"b"}
        await pods.opt_in("a", wait_s=60)
        await publish(environment, "v", ["a"])
        await planned(settings, 7)
    counts = Counter((row["member_id"], row["status"]) for row in (await rows(settings)).values())
    assert counts == {("a", "cancelled"): 3, ("b", "scheduled"): 3, ("a", "scheduled"): 1}


async def test_what_waits_can_be_moved(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    async with engine(environment):
        await publish(environment, "x", ["a", "b", "c"], engagement_types=["like", "comment"])
        await planned(settings, 6)
        before = await rows(settings)
        answer = await pods.shift_post("x", timedelta(hours=2), reason="later", wait_s=60)
        assert (answer.rescheduled, answer.too_late) == (6, 0)
        after = await rows(settings)
        for name, row in before.items():
            assert after[name]["scheduled_for"] - row["scheduled_for"] == timedelta(hours=2)
        comment = activity_id("p", "x", "a", "comment")
        at = datetime(2031, 5, 6, 7, 8, 9, 123_000, UTC)
        answer = await pods.reschedule(comment, at, wait_s=60)
        assert [each.answer for each in answer.activities] == ["rescheduled"]
        assert (await rows(settings))[comment]["scheduled_for"] == at
        like = activity_id("p", "x", "b", "like")
        await pods.reschedule(like, datetime.now(UTC), wait_s=60)

        async def b_is_sent() -> bool:
            return await fired(settings) == {"b": 1}

        await until(b_is_sent)
        answer = await pods.reschedule(like, at, wait_s=60)
        assert [each.answer for each in answer.activities] == ["too_late"]
        steps = (await pods.get_activity_history(comment)).steps
        assert [step.what for step in steps] == ["planned", "rescheduled", "rescheduled"]
        assert steps[-1].scheduled_for == at
        await pods.mark_activity_executed(like, success=True, wait_s=60)
        answer = await pods.shift_post("x", timedelta(), wait_s=60)
        assert (answer.rescheduled, answer.too_late, answer.final) == (5, 0, 1)


async def test_operators_have_a_command_line(
    environment: dict[str, str], settings: Settings
) -> None:
    async with engine(environment):
        await publish(environment, "x", ["a", "b", "c"])
        await planned(settings, 3)
        nothing = await pod_automation(environment, "controls")
        assert nothing.out == (
            "nobody is paused, nobody has opted out, and no pod has rules of its own\n"
        )
        done = await pod_automation(environment, "pause", "--pod", "p", "--reason", "why not")
        assert (done.code, done.out, done.err) == (ExitCode.OK, "paused pod p\n", "")
        done = await pod_automation(environment, "opt-out", "a", "--actor", "bob")
        assert done.out == "member a has opted out; cancelled 1 activity\n"
        found = await result_of(environment, "controls")
        assert [(each["kind"], each["subject"]) for each in found["controls"]] == [
            ("paused", "p"),
            ("opted_out", "a"),
        ]
        assert found["controls"][1]["actor"] == "bob"
        shown = await pod_automation(environment, "controls")
        assert "why not" in shown.out
        night = ("--from", "22:00", "--until", "07:00", "--zone", "Europe/Berlin")
        done = await pod_automation(environment, "quiet-hours", "--member", "c", *night)
        assert done.out.startswith("quiet hours of member c: 22:00 to 07:00, Europe/Berlin")
        done = await pod_automation(environment, "quiet-hours", "--member", "c", "--off")
        assert done.out == "member c has no quiet hours\n"
        done = await pod_automation(environment, "policy", "--pod", "q", "--like-delay", "5m-2h")
        assert done.out == "pod q has a policy of its own\n"
        shown = await pod_automation(environment, "controls")
        assert "like_max_delay_ms 7200000" in shown.out
        done = await pod_automation(environment, "policy", "--pod", "q", "--off")
        assert done.out == "pod q is planned by the settings\n"
        done = await pod_automation(environment, "resume", "--pod", "p")
        assert done.out == "resumed pod p\n"
        name = activity_id("p", "x", "b", "comment")
        done = await pod_automation(
            environment, "reschedule", "--activity", name, "--at", "2031-01-01T00:00:00Z"
        )
        assert done.out == "rescheduled 1 activity\n"
        done = await pod_automation(environment, "cancel", "--post", "x", "--yes")
        assert done.out == "cancelled 2 activities of post x; 1 had come to their end before\n"
        told = await result_of(environment, "history", name)
        assert [step["what"] for step in told["steps"]][-1] == "cancelled"
        shown = await pod_automation(environment, "history", name)
        assert "2031-01-01T00:00:00.000Z" in shown.out
        # Page by page, or a member's; each line tells whose it is.
        lines = {}
        for chosen in (("--all",), ("--pod", "p"), ("--post", "x"), ("--member", "b")):
            printed = await pod_automation(environment, "history", *chosen, "--ndjson")
            lines[chosen[0]] = [json.loads(line) for line in printed.out.splitlines()]
        assert lines["--all"] == lines["--pod"] == lines["--post"]
        assert len({each["activity_id"] for each in lines["--all"]}) == 3
        mine = [each for each in lines["--all"] if each["activity_id"] == name]
        assert mine == lines["--member"]
        assert [each["what"] for each in mine] == ["planned", "rescheduled", "cancelled"]
        assert all(each["source"] for each in mine)
        assert all(each["member_id"] == "b" for each in mine)
        listed = await pod_automation(environment, "audit", "--ndjson")
        entries = [json.loads(line) for line in listed.out.splitlines()]
        assert [each["command"] for each in entries] == [
            "cancel",
            "reschedule",
            "resume",
            "policy",
            "policy",
            "quiet_hours",
            "quiet_hours",
            "opt_out",
            "pause",
        ]
        assert entries[0]["outcome"] == {"cancelled": 2, "final": 1}
        assert entries[7]["actor"] == "bob"
        at_once = await pod_automation(environment, "audit", "--json")
        assert json.loads(at_once.out) == {"commands": entries}
        both = await pod_automation(environment, "audit", "--json", "--ndjson")
        assert (both.code, both.out) == (ExitCode.USAGE, "")
        shown = await pod_automation(environment, "audit", "--limit", "2")
        assert "cancel" in shown.out
        assert "pause" not in shown.out
    missing = await pod_automation(environment, "history", str(uuid4()))
    assert missing.code == ExitCode.NO
    for wrong in ((), (name, "--all"), ("--pod", "p", "--json")):
        refused = await pod_automation(environment, "history", *wrong)
        assert refused.code == ExitCode.USAGE, wrong
    late = await pod_automation(environment, "resume", "--all", "--timeout", "0")
    assert late.code == ExitCode.NO
    assert "is a worker running?" in late.err


async def test_a_pod_has_quiet_hours_and_a_policy_of_its_own(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    async with engine(environment):
        await publish(environment, "x", ["a", "b", "c"], engagement_types=["like", "comment"])
        await publish(environment, "y", ["a"], pod_id="q")
        await planned(settings, 7)
        before = await rows(settings)
        # It is quiet now, and for the next hours, wherever that is.
        start, end = (datetime.now(UTC) + timedelta(hours=by) for by in (-1, 12))
        hours = (f"{start:%H:%M}", f"{end:%H:%M}", "UTC")
        answer = await pods.set_quiet_hours(*hours, pod_id="p", reason="night", wait_s=60)
        assert answer.rescheduled == 6
        quiet_until = end.replace(second=0, microsecond=0)
        for name, row in (await rows(settings)).items():
            if row["pod_id"] == "q":
                assert row["scheduled_for"] == before[name]["scheduled_for"]
            else:
                assert row["scheduled_for"] >= quiet_until
        await publish(environment, "z", ["a"])
        await planned(settings, 8)
        late = (await rows(settings))[activity_id("p", "z", "a", "comment")]["scheduled_for"]
        assert late >= quiet_until
        await pods.clear_quiet_hours(pod_id="p", wait_s=60)

        await pods.set_policy(
            "p", comment_min_delay_ms=5_000_000, comment_max_delay_ms=5_000_000, comment_jitter=0
        )
        found = {each.kind: each.value for each in await pods.get_controls()}
        assert found == {
            "policy": {
                "comment_min_delay_ms": 5_000_000,
                "comment_max_delay_ms": 5_000_000,
                "comment_jitter": 0,
            }
        }
        detected = datetime.now(UTC).replace(microsecond=0)
        await publish(environment, "w", ["a", "b"], detected_at=detected.isoformat())
        await planned(settings, 10)
        for member in "ab":
            row = (await rows(settings))[activity_id("p", "w", member, "comment")]
            assert row["scheduled_for"] - detected == timedelta(seconds=5000)
        await pods.clear_policy("p", wait_s=60)
        assert await pods.get_controls() == []
    for call in (
        pods.set_quiet_hours("22:00", "07:00", "Nowhere/Land", pod_id="p"),
        pods.set_quiet_hours("22:00", "22:00", "UTC", pod_id="p"),
        pods.set_quiet_hours("25:00", "07:00", "UTC", pod_id="p"),
        pods.set_quiet_hours("22:00", "07:00", "UTC"),
        pods.set_policy("p"),
        pods.set_policy("p", like_min_delay_ms=5),
        pods.set_policy("p", like_min_delay_ms=5, like_max_delay_ms=4),
        pods.set_policy("p", like_jitter=1.0),
    ):
        with pytest.raises(InvalidArgumentError):
            await call


async def test_a_daily_cap_holds_over_all_shards(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    async with engine(environment):
        await pods.set_daily_cap("a", 2, wait_s=60)
        detected = datetime.now(UTC).isoformat()
        events = [
            {
                "event_id": f"e{number}",
                "pod_id": f"p{number % 3}",
                "post_id": f"x{number}",
                "member_ids": ["a", "b"],
                "detected_at": detected,
                "engagement_types": ["comment"],
            }
            for number in range(10)
        ]
        lines = "\n".join(map(json.dumps, events))
        outcome = await pod_automation(environment, "publish", stdin=lines.encode())
        assert outcome.code == ExitCode.OK
        await planned(settings, 20)
        found = (await rows(settings)).values()
        assert len({row["source_partition"] for row in found}) > 1
        mine = sorted(row["scheduled_for"] for row in found if row["member_id"] == "a")
        for first, third in zip(mine, mine[2:], strict=False):
            assert third - first >= timedelta(days=1)
        others = [row["scheduled_for"] for row in found if row["member_id"] == "b"]
        assert max(others) - min(others) < timedelta(days=1)
        done = await pod_automation(environment, "daily-cap", "a", "--off")
        assert done.out == "member a has no daily cap\n"


async def test_a_daily_cap_holds_for_rows_from_upstream_beside_events(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    for number in range(12):
        await insert(settings, 1, pod="u", post=f"u{number}", kind="comment")
    async with engine(environment):
        await pods.set_daily_cap("member-0", 2, wait_s=60)
        # Both at once, in all shards.
        posts = [publish(environment, f"x{number}", ["member-0"]) for number in range(4)]
        scheduling = asyncio.create_task(pods.schedule_comment_jobs("u", wait_s=60))
        await asyncio.gather(*posts)
        job = await scheduling
        assert (job.scheduled_count, job.applied) == (12, True)
        await planned(settings, 16)
        times = sorted(row["scheduled_for"] for row in (await rows(settings)).values())
        for first, third in zip(times, times[2:], strict=False):
            assert third - first >= timedelta(days=1)


async def test_a_member_is_forgotten_and_the_counts_stay(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    async with engine(environment):
        await publish(environment, "x", ["a", "b"])
        await publish(environment, "y", ["a"])
        await planned(settings, 3)
        done, out = (activity_id("p", post, "a", "comment") for post in "xy")
        await pods.reschedule(done, datetime.now(UTC), reason="ay asked, tel 123", wait_s=30)
        await pods.mark_activity_executed(done, success=True, wait_s=30)
        await pods.execute_engagement_activity(out, "comment", wait_s=30)

        async def is_out() -> bool:
            return str((await rows(settings))[out]["status"]) == "dispatched"

        await until(is_out)
        early = await pod_automation(environment, "forget-member", "a", "--yes")
        assert early.code == ExitCode.NO
        assert "forget_member" not in {each.command for each in await pods.get_audit()}
        assert "1 activity of member a are being carried out" in early.err
        assert {row["member_id"] for row in (await rows(settings)).values()} == {"a", "b"}
        await pods.mark_activity_executed(out, success=False, wait_s=30)
        named = await pod_automation(
            environment, "forget-member", "a", "--yes", "--reason", "since a asked"
        )
        assert named.code == ExitCode.USAGE
        assert "must not name the member" in named.err
        told = await pod_automation(
            environment, "forget-member", "a", "--yes", "--reason", "by mail", "--actor", "otto"
        )
        assert told.out == "member a is forgotten; 2 activities are nobody's now\n"
        found = await rows(settings)
        (name,) = {row["member_id"] for row in found.values()} - {"b"}
        assert name.startswith("forgotten-")
        assert found[out]["last_error"] is found[out]["failures"] is None
        stats = await pods.get_pod_engagement_stats("p")
        assert (stats.executed, stats.failed, stats.scheduled) == (1, 1, 1)
        assert await pods.update_member_engagement_metrics(name, 1) == 2
        subjects = {each.subject for each in await pods.get_audit() if each.scope == "member"}
        assert subjects == {name}
        reasons = {each.command: each.reason for each in await pods.get_audit()}
        assert (reasons["reschedule"], reasons["opt_out"]) == (None, None)
        (erased,) = (each for each in await pods.get_audit() if each.command == "forget_member")
        assert (erased.actor, erased.reason, erased.outcome) == ("otto", "by mail", {"erased": 2})
        # The opt-out holds: nothing is planned for the member any more, nor anew.
        await publish(environment, "x", ["a", "b"])
        await publish(environment, "z", ["a"])
        await planned(settings, 4)
        late = (await rows(settings))[activity_id("p", "z", "a", "comment")]
        assert (late["status"], late["last_error"]) == ("cancelled", OPTED_OUT)


async def test_a_dispatcher_is_drained_and_takes_part_again(
    environment: dict[str, str], settings: Settings
) -> None:
    def named(name: str) -> EngineProcess:
        more = {"POD_AUTOMATION_INSTANCE_ID": name, "POD_AUTOMATION_SESSION_TIMEOUT_MS": "1500"}
        return EngineProcess("dispatcher", {**environment, **more})

    one, other = named("one"), named("other")
    worker = EngineProcess("worker", environment)
    try:
        await worker.start()
        await one.start()
        await other.start()

        async def owners() -> set[str]:
            seen = await result_of(environment, "status")
            return {str(shard["dispatcher"]) for shard in seen["shards"]}

        async def both() -> bool:
            return await owners() == {"one", "other"}

        async def one_of_them() -> bool:
            return await owners() == {"other"}

        await until(both)
        told = await pod_automation(environment, "drain", "one", "--reason", "new kernel")
        assert told.out.startswith("dispatcher one gives up its shards")
        await until(one_of_them)
        assert one.running
        # It has been told for good: also when it comes back.
        await one.kill()
        await one.start()
        listed = await pod_automation(environment, "controls")
        assert "dispatcher one" in listed.out
        assert "new kernel" in listed.out
        assert await one_of_them()
        await pod_automation(environment, "drain", "one", "--off")
        await until(both)
        async with PodAutomation(settings) as pods:
            undrained, drained = await pods.get_audit()
        assert (drained.command, undrained.command) == ("drain", "undrain")
        for each in (drained, undrained):
            assert (each.scope, each.subject, set(each.offsets)) == ("dispatcher", "one", {0})
        assert drained.reason == "new kernel"
        assert await one.stop() == ExitCode.OK
        # Nobody applies it now: it says so.
        await worker.kill()
        late = await pod_automation(environment, "drain", "other", "--timeout", "0")
        assert late.code == ExitCode.NO
        assert "is a worker running?" in late.err
    finally:
        await worker.kill()
        await one.kill()
        await other.kill()


async def test_a_cancel_beside_firing_is_true(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    """Some of a pod are being sent while the others are cancelled: each is one or the other."""
    spread = {
        "POD_AUTOMATION_COMMENT_MIN_DELAY_MS": "0",
        # Long enough for some to be left when the cancel comes.
        "POD_AUTOMATION_COMMENT_MAX_DELAY_MS": "60000",
    }
    process = EngineProcess("run", {**environment, **spread})
    try:
        await process.start()
        members = [f"m{n}" for n in range(1500)]
        for number in range(4):
            await publish(environment, f"x{number}", members)
        await planned(settings, 6000)
        answer = await pods.cancel(pod_id="p", wait_s=60)
        assert answer.cancelled + answer.too_late + answer.final == 6000

        async def none_waits() -> bool:
            return "scheduled" not in await statuses(settings)

        await until(none_waits)
        assert (await statuses(settings))["cancelled"] == answer.cancelled > 0
        events = await sent(settings, settings.topics.execute_engagement)
        names = Counter(fields["activity_id"] for _, fields in events)
        cancelled = {
            name for name, row in (await rows(settings)).items() if row["status"] == "cancelled"
        }
        assert not cancelled & names.keys()
        assert set(names.values()) <= {1}
        assert len(names) == 6000 - answer.cancelled
    finally:
        await process.kill()
    connection = await asyncpg.connect(settings.postgres_dsn)
    noted = await connection.fetchval("select count(*) from activity_changes")
    await connection.close()
    assert noted == answer.cancelled
