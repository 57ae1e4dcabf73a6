"""The client where it needs no store: delays, arguments, errors, the shape of what it sends."""

import asyncio
import json
import re
from datetime import datetime, time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka.partitioner import murmur2

import pod_automation
from pod_automation import (
    InvalidArgumentError,
    NotAppliedError,
    NotFoundError,
    NotReadyError,
    PodAutomation,
    PodAutomationError,
    StoreAwayError,
    WrongSettingError,
    client,
)
from pod_automation.client import commands, sender
from pod_automation.client.arguments import now
from pod_automation.client.bounds import answered
from pod_automation.client.errors import translated
from pod_automation.client.results import QueueStatus
from scheduler.errors import (
    DataRefusedError,
    EngineError,
    PermanentError,
    SettingsError,
    StoreUnavailableError,
    TransientError,
)
from scheduler.policy import HOUR_MS, MINUTE_MS
from scheduler.settings import load_settings
from scheduler.stagger import delay_ms, seed_of
from schemas.codec import InvalidEvent, decode
from schemas.events import MAX_EVENT_ID_CHARS, PodCommand, PostDetected
from schemas.ids import activity_id
from schemas.times import millis

ID = activity_id("p", "x", "ann", "like")
EVENT = {
    "event_id": "e",
    "pod_id": "p",
    "post_id": "x",
    "member_ids": ["ann"],
    "detected_at": "2026-11-24T08:00:00Z",
}


def post(**wrong: Any) -> PostDetected:
    """As a program makes one, which checks nothing."""
    event = decode(PostDetected, json.dumps(EVENT).encode())
    return msgspec.structs.replace(event, **wrong)


@pytest.fixture
def pods() -> PodAutomation:
    return PodAutomation(load_settings())


def test_delays_are_those_of_the_planner(pods: PodAutomation) -> None:
    policy = pods.settings.policy
    for index in range(10):
        like = pods.calculate_like_delay(index, 10, activity_id=ID)
        assert like.delay_ms == delay_ms(policy.like, index, 10, seed_of(ID))
        comment = pods.calculate_comment_delay(index, 10, activity_id=ID)
        assert comment.delay_ms == delay_ms(policy.comment, index, 10, seed_of(ID))


def test_delays_stay_in_their_windows_and_grow(pods: PodAutomation) -> None:
    for _ in range(50):
        likes = [pods.calculate_like_delay(index, 2).delay_ms for index in range(2)]
        assert 5 * MINUTE_MS <= likes[0] < likes[1] <= 30 * MINUTE_MS
        comments = [pods.calculate_comment_delay(index, 2).delay_ms for index in range(2)]
        assert HOUR_MS <= comments[0] < comments[1] <= 6 * HOUR_MS


def test_a_delay_without_an_activity_has_jitter_of_chance(pods: PodAutomation) -> None:
    assert len({pods.calculate_like_delay(1, 3).delay_ms for _ in range(50)}) > 1


def test_scheduled_for_is_now_and_the_delay(pods: PodAutomation) -> None:
    before = millis(now())
    delay = pods.calculate_like_delay(0, 1)
    after = millis(now())
    assert before <= millis(delay.scheduled_for) - delay.delay_ms <= after
    assert re.fullmatch(r"\S+T\S+Z", delay.as_dict()["scheduled_for"])


@pytest.mark.parametrize("arguments", [(-1, 3), (3, 3), (0, 0), (True, 3), ("0", 3), (0.0, 3)])
def test_members_that_are_none(pods: PodAutomation, arguments: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="whole number"):
        pods.calculate_like_delay(*arguments)


def test_a_delay_needs_a_uuid(pods: PodAutomation) -> None:
    with pytest.raises(InvalidArgumentError, match="no UUID"):
        pods.calculate_like_delay(0, 1, activity_id="x")


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        ("get_pending_activities", ("",), {}),
        ("get_pending_activities", ("p\n",), {}),
        ("get_pending_activities", ("p", 0), {}),
        ("get_pending_activities", ("p", 10_001), {}),
        ("get_pending_activities", (7,), {}),
        ("get_pod_engagement_stats", ("x" * 201,), {}),
        ("get_pod_automation_stats", (None,), {}),
        ("schedule_like_jobs", ("",), {}),
        ("schedule_comment_jobs", ("p",), {"wait_s": -1}),
        ("schedule_comment_jobs", ("p",), {"wait_s": float("nan")}),
        ("schedule_like_activities", ([ID], 0), {}),
        ("schedule_like_activities", (ID,), {}),
        ("schedule_comment_activities", ([7],), {}),
        ("execute_engagement_activity", (ID, "share"), {}),
        ("execute_engagement_activity", ("", "like"), {}),
        ("mark_activity_executed", (ID, "yes"), {}),
        ("mark_activity_executed", (ID, 1), {}),
        ("update_member_engagement_metrics", ("ann", 0), {}),
        ("update_member_engagement_metrics", ("ann", -1), {}),
        ("update_member_engagement_metrics", ("ann", 2**31), {}),
        ("update_member_engagement_metrics", ("a\x00n",), {}),
        ("clear_automation_jobs", (), {"pod_id": ""}),
        ("clear_automation_jobs", (), {"wait_s": "long"}),
        ("clear_automation_jobs", (), {"reason": 5}),
        ("forget_member", (5,), {}),
        ("pause", (), {"reason": 5}),
        ("shift_post", ("x", "1h"), {}),
        ("cancel", (5,), {}),
        ("set_quiet_hours", (time(22), time(7), "UTC"), {"pod_id": "p"}),
        ("set_quiet_hours", (None, None, None), {"pod_id": "p"}),
        ("get_activities", (), {"pod_id": "p", "after": 5}),
        ("get_activities", (), {"pod_id": "p", "after": f"{10**30}_{ID}"}),
        ("get_audit", (), {"since": datetime(2026, 1, 1)}),  # noqa: DTZ001
        ("publish_post_detected", (EVENT,), {"traceparent": 5}),
        ("publish_post_detected", (EVENT,), {"traceparent": "00-my-trace-01"}),
        ("publish_post_detected", (EVENT,), {"traceparent": "\ud800"}),
        ("publish_post_detected", (post(pod_id=""),), {}),
        ("publish_post_detected", (post(member_ids="ann"),), {}),
        ("publish_post_detected", (post(detected_at="2026-11-24T08:00:00Z"),), {}),
        ("publish_post_detected", (post(detected_at=datetime(2026, 1, 1)),), {}),  # noqa: DTZ001
        ("preview_plan", (post(post_id="\ud800"),), {}),
    ],
)
async def test_arguments_are_checked_before_any_store_is_asked(
    name: str, arguments: tuple[Any, ...], options: dict[str, Any]
) -> None:
    # Nobody listens there: whoever asked a store would get another error.
    pods = PodAutomation(
        kafka_bootstrap="127.0.0.1:1",
        redis_url="redis://127.0.0.1:1/0",
        postgres_dsn="postgresql://nobody@127.0.0.1:1/nothing",
    )
    with pytest.raises(InvalidArgumentError) as raised:
        await getattr(pods, name)(*arguments, **options)
    assert "\n" not in str(raised.value)
    await pods.close()


def test_settings_are_checked_at_once() -> None:
    with pytest.raises(WrongSettingError, match="POD_AUTOMATION_PARTITIONS"):
        PodAutomation(partitions=0)
    with pytest.raises(InvalidArgumentError, match="no setting kafka_boostrap"):
        PodAutomation(kafka_boostrap="x")
    for wrong in (0, -1, "1", float("inf")):
        with pytest.raises(InvalidArgumentError, match="timeout_s"):
            PodAutomation(timeout_s=wrong)  # type: ignore[arg-type]


async def test_settings_that_show_their_fault_late_are_the_clients_errors_too() -> None:
    async with PodAutomation(
        kafka_security_protocol="SSL", kafka_ca_file="/nowhere/ca.pem"
    ) as pods:
        with pytest.raises(WrongSettingError, match="POD_AUTOMATION_KAFKA_CA_FILE"):
            await pods.publish_post_detected(EVENT)
    async with PodAutomation(redis_url="redis://127.0.0.1:1/0?no_such_option=1") as pods:
        with pytest.raises(WrongSettingError, match="POD_AUTOMATION_REDIS_URL"):
            await pods.get_automation_queue_status()


def test_overrides_come_before_settings() -> None:
    pods = PodAutomation(load_settings(partitions=3), topic_prefix="x.")
    assert (pods.settings.partitions, pods.settings.topic_prefix) == (3, "x.")


async def test_a_closed_client_says_so_and_can_be_opened_again() -> None:
    async with PodAutomation(postgres_dsn="postgresql://nobody@127.0.0.1:1/nothing") as pods:
        pass
    with pytest.raises(InvalidArgumentError, match="closed"):
        await pods.get_pod_engagement_stats("p")
    await pods.connect()
    with pytest.raises(StoreAwayError, match="PostgreSQL"):
        await pods.get_pod_engagement_stats("p")
    await pods.close()
    await pods.close()


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (StoreUnavailableError("Redis", "gone"), StoreAwayError, "Redis is not available: gone"),
        (SettingsError("X: wrong"), WrongSettingError, "X: wrong"),
        (DataRefusedError("too long"), InvalidArgumentError, "too long"),
        (PermanentError("run init"), NotReadyError, "run init"),
        (EngineError("refused"), NotReadyError, "refused"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else None,
)
def test_errors_become_the_clients(raised: Exception, expected: type[Any], text: str) -> None:
    with pytest.raises(expected, match=text) as caught, translated():
        raise raised
    assert type(caught.value) is expected
    assert str(caught.value) == text


def test_bugs_pass() -> None:
    with pytest.raises(ZeroDivisionError), translated():
        raise ZeroDivisionError


def test_errors_are_one_tree_within_the_engines() -> None:
    """So that the command line's exit codes and the engine's back-off know them."""
    tree = {
        StoreAwayError: StoreUnavailableError,
        NotAppliedError: TransientError,
        NotReadyError: PermanentError,
        NotFoundError: PermanentError,
        InvalidArgumentError: ValueError,
        WrongSettingError: SettingsError,
    }
    for error, base in tree.items():
        assert issubclass(error, PodAutomationError)
        assert issubclass(error, base)
        assert issubclass(error, EngineError)


async def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    ended = asyncio.Event()

    async def silent() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(StoreAwayError, match=r"Kafka is not available: no answer within 0\.05 s"):
        await answered("Kafka", silent(), 0.05)
    assert ended.is_set()


async def test_a_driver_that_swallows_the_cancellation_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pod_automation.client.bounds.CLEAN_UP_S", 0.05)
    go = asyncio.Event()

    async def deaf() -> None:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue

    with pytest.raises(StoreAwayError):
        await answered("Redis", deaf(), 0.05)
    go.set()


async def test_cancelling_the_caller_cancels_the_request() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def silent() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(answered("Kafka", silent(), 60))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


@pytest.mark.parametrize("partitions", [1, 4, 8, 1024])
def test_a_post_goes_where_kafkas_own_clients_put_it(partitions: int) -> None:
    for number in range(100):
        post = f"post-{number}"
        expected = (murmur2(post.encode()) & 0x7FFFFFFF) % partitions
        assert sender.default_shard(post, partitions) == expected
    # From Kafka's own tests (UtilsTest.testMurmur2).
    assert murmur2(b"foobar") & 0xFFFFFFFF == -790332482 & 0xFFFFFFFF


def test_event_ids_of_a_job_differ_and_fit() -> None:
    names = {commands.event_id("j" * 200, "p" * 200, number) for number in range(2000)}
    assert len(names) == 2000
    assert max(map(len, names)) == MAX_EVENT_ID_CHARS
    assert commands.event_id("job", "post", 3) == "job:post:3"


def test_commands_are_those_of_the_contract() -> None:
    record = commands.schedule(5, "pöst", [ID], 2, "job:1", "ann")
    command = decode(PodCommand, record.value)
    assert (record.partition, record.key) == (5, "pöst".encode())
    assert (command.command, command.post_id, command.activity_ids) == ("schedule", "pöst", (ID,))
    assert (command.like_cap, command.event_id, command.actor) == (2, "job:1", "ann")
    headers = dict(record.headers)
    assert headers["ce_id"] == b"job:1"
    assert headers["ce_type"] == b"pod-automation.pod-command.v1"
    record = commands.cancel(0, None, "job:0", "ann", "why not")
    command = decode(PodCommand, record.value)
    assert (record.key, command.command, command.pod_id) == (None, "cancel", None)
    assert (command.actor, command.reason) == ("ann", "why not")
    command = decode(PodCommand, commands.dispatch(0, "x", ID, "job:2", "ann").value)
    assert (command.command, command.actor) == ("dispatch", "ann")


def test_ids_that_no_event_may_carry_are_refused_before_they_are_sent() -> None:
    for post in ("", "x" * 201, "a\nb"):
        with pytest.raises(InvalidEvent):
            commands.schedule(0, post, [ID], None, "job:1", "ann")


def test_results_are_ready_for_json() -> None:
    status = QueueStatus(
        waiting=1, active=2, delayed=3, completed=4, failed=5, total=6, rebuilding=(7,)
    )
    assert status.as_dict() == {
        "waiting": 1,
        "active": 2,
        "delayed": 3,
        "completed": 4,
        "failed": 5,
        "total": 6,
        "rebuilding": (7,),
    }


def test_the_package_offers_the_clients_names() -> None:
    for name in pod_automation.__all__:
        assert getattr(pod_automation, name) is getattr(client, name)
    assert set(client.__all__) == set(pod_automation.__all__)
    with pytest.raises(AttributeError):
        pod_automation.nonsense  # noqa: B018


def test_every_function_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "client.md").read_text("utf-8")
    for name, function in vars(PodAutomation).items():
        if name.startswith("_") or not callable(function):
            continue
        assert function.__doc__, name
        assert f"`{name}" in page, name
    for name in pod_automation.__all__:
        assert f"`{name}" in page, name


async def test_results_are_had_by_attribute_and_by_name() -> None:
    delay = await PodAutomation().calculate_like_delay(0, 3)
    assert delay["delay_ms"] == delay.delay_ms
    assert dict(delay) == {"delay_ms": delay.delay_ms, "scheduled_for": delay.scheduled_for}
    with pytest.raises(KeyError):
        delay["as_dict"]
