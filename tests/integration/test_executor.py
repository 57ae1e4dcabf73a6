"""The executor on a real broker: as an object, as a command, killed, stopped and joined."""

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.executor import (
    Engagement,
    Executor,
    Handler,
    Permanent,
    RedisDone,
    Retry,
    StuckHandlersError,
)
from pod_automation.executor.results import ResultSender
from scheduler.adapters.kafka_producer import throw_away
from scheduler.settings import Settings
from schemas.codec import decode, fired
from schemas.events import EngagementExecuted
from schemas.headers import CE_TYPES
from schemas.ids import activity_id
from schemas.times import millis
from tests.integration.scenario import read
from tests.integration.worker_bench import joined, until
from tests.tied import tied
from tests.unit.program import COMMAND, ROOT, command_environment
from tests.unit.test_executor_attempt import AT

pytestmark = pytest.mark.timeout(240)

DIARY = "TEST_EXECUTOR_DIARY"
GATE = "TEST_EXECUTOR_GATE"

# Handlers of the processes below. They write down what they do, and wait for a file.


def note(what: str, engagement: Engagement) -> None:
    with Path(os.environ[DIARY]).open("a") as diary:
        diary.write(f"{what} {os.getpid()} {engagement.activity_id}\n")


async def gated(engagement: Engagement) -> None:
    """Done once the gate is there."""
    note("began", engagement)
    gate = Path(os.environ[GATE])
    while not gate.exists():  # noqa: ASYNC110, ASYNC240 - it belongs to another process
        await asyncio.sleep(0.01)
    note("ended", engagement)


async def blocking(engagement: Engagement) -> None:
    """What no handler may do."""
    note("began", engagement)
    while True:
        time.sleep(60)  # noqa: ASYNC251


async def ending(engagement: Engagement) -> None:
    """One that hangs in a thread, and others that end the process."""
    note("began", engagement)
    if engagement.post_id == "post-0":
        await asyncio.to_thread(time.sleep, 600)
    while not Path(os.environ[GATE]).exists():  # noqa: ASYNC110, ASYNC240 - as above
        await asyncio.sleep(0.01)
    raise SystemExit(3)


class Diary:
    """What the handlers have written."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "diary"
        self.gate = folder / "gate"
        self.environment = {DIARY: str(self._file), GATE: str(self.gate)}

    def lines(self, what: str) -> list[tuple[int, str]]:
        """Process and activity of each line."""
        words = (
            [line.split() for line in self._file.read_text().splitlines()]
            if (self._file.exists())
            else []
        )
        return [(int(pid), activity) for said, pid, activity in words if said == what]

    async def until(self, what: str, count: int) -> None:
        async def written() -> bool:
            return len(self.lines(what)) >= count

        await until(written, f"{count} times {what}")


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path)


# What stands for the engine.


def records(count: int, *, posts: int = 8, prefix: str = "post") -> list[tuple[str, str, bytes]]:
    """Activity, post and value of `count` engagements."""
    found = []
    for number in range(count):
        pod, post, member = "pod", f"{prefix}-{number % posts}", f"member-{number}"
        activity = activity_id(pod, post, member, "like")
        at_ms = millis(AT) + number
        value = fired(activity, pod, post, member, "like", 1, at_ms, at_ms)[0]
        found.append((activity, post, value))
    return found


async def dispatch(
    settings: Settings, todo: Sequence[tuple[str, str, bytes]], *, commit: bool = True
) -> dict[str, tuple[int, int]]:
    """Send them in transactions of ten, by partition as the post says; where each one is."""
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, transactional_id=f"t-{uuid4()}"
    )
    await producer.start()
    places = {}
    try:
        for start in range(0, len(todo), 10):
            await producer.begin_transaction()
            for activity, post, value in todo[start : start + 10]:
                sent = await producer.send_and_wait(
                    settings.topics.execute_engagement, value, key=post.encode()
                )
                places[activity] = (sent.partition, sent.offset)
            await (producer.commit_transaction() if commit else producer.abort_transaction())
    finally:
        await producer.stop()
    return places


async def results(settings: Settings) -> dict[str, list[tuple[int, EngagementExecuted]]]:
    """Of each activity the results, and their partitions."""
    found = defaultdict(list)
    for record in await read(settings, settings.topics.engagement_executed):
        result = decode(EngagementExecuted, record.value)
        assert record.key == result.post_id.encode()
        headers = dict(record.headers)
        assert headers["ce_id"].decode() == result.event_id
        assert headers["ce_type"].decode() == CE_TYPES[EngagementExecuted]
        found[result.activity_id].append((record.partition, result))
    return found


async def until_all_reported(settings: Settings, places: Mapping[str, tuple[int, int]]) -> None:
    async def reported() -> bool:
        return set(places) <= set(await results(settings))

    await until(reported, f"{len(places)} results", every_s=0.3)


async def committed(settings: Settings) -> dict[int, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(settings.executor_group)
    finally:
        await admin.close()
    return {tp.partition: at.offset for tp, at in found.items()}


async def ends(settings: Settings) -> dict[int, int]:
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await consumer.start()
    try:
        topic = settings.topics.execute_engagement
        found = await consumer.end_offsets(
            [TopicPartition(topic, number) for number in range(settings.partitions)]
        )
    finally:
        await consumer.stop()
    return {tp.partition: end for tp, end in found.items()}


@asynccontextmanager
async def executing(executor: Executor) -> AsyncIterator[asyncio.Event]:
    """In this process, stopped in order at the end."""
    stop = asyncio.Event()
    running = asyncio.create_task(executor.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await running


@asynccontextmanager
async def process(
    environment: Mapping[str, str], *command: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process of its own, its logs in a pipe."""
    started = await asyncio.create_subprocess_exec(
        *tied(*command),
        cwd=ROOT,
        env=command_environment(environment),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
            await started.communicate()


def executor_with(handler: str, *more: str) -> tuple[str, ...]:
    return (*COMMAND, "executor", "--handler", handler, *more)


def of_this_file(handler: Handler) -> str:
    return f"{__name__}:{handler.__name__}"


async def line_with(started: asyncio.subprocess.Process, text: str) -> None:
    """Read its log until a line has `text`."""
    assert started.stderr is not None
    seen = []
    async for line in started.stderr:
        seen.append(line.decode())
        if text in seen[-1]:
            return
    raise AssertionError(f"never {text!r} in:\n{''.join(seen)}")


async def ended(started: asyncio.subprocess.Process) -> tuple[int | None, str]:
    """Exit code, and what was left of its log."""
    async with asyncio.timeout(60):
        _, err = await started.communicate()
    return started.returncode, err.decode()


# The tests.


async def test_each_committed_engagement_is_handled_and_reported(settings: Settings) -> None:
    todo = records(60)
    places = await dispatch(settings, todo[:20])
    await dispatch(settings, todo[20:40], commit=False)
    places |= await dispatch(settings, todo[40:])
    seen: list[Engagement] = []

    async def handle(engagement: Engagement) -> None:
        seen.append(engagement)
        match int(engagement.member_id.partition("-")[2]) % 4:
            case 1:
                raise Retry(after=7, reason="busy")
            case 2:
                raise Permanent("gone")
            case 3:
                raise LookupError("what?")

    executor = Executor(settings, handle, concurrency=7)
    async with executing(executor):
        await until_all_reported(settings, places)

        async def all_committed() -> bool:
            return await committed(settings) == {
                partition: end for partition, end in (await ends(settings)).items() if end
            }

        # Also over the markers that end transactions: no lag is left.
        await until(all_committed, "everything committed")
    assert {each.activity_id for each in seen} == set(places), "one of an aborted transaction"
    assert len(seen) == len(places)
    told = await results(settings)
    assert set(told) == set(places)
    for activity, ((partition, result),) in told.items():
        assert partition == places[activity][0]
        number = int(result.member_id.partition("-")[2]) % 4
        assert (result.outcome, result.error, result.retryable, result.retry_after_ms) == (
            ("executed", None, True, None),
            ("failed", "busy", True, 7000),
            ("failed", "gone", False, None),
            ("failed", "LookupError: what?", True, None),
        )[number]
    assert executor.counts == {"executed": 10, "retryable": 20, "permanent": 10}


async def test_a_record_that_is_no_engagement_is_passed_over(settings: Settings) -> None:
    todo = records(4, posts=1)
    garbage = [("x", todo[0][1], value) for value in (b"", b"not json", b'{"event_id": 7}')]
    places = await dispatch(settings, todo[:2])
    await dispatch(settings, garbage)
    places |= await dispatch(settings, todo[2:])

    async def handle(_: Engagement) -> None:
        """Done at once."""

    executor = Executor(settings, handle)
    async with executing(executor):
        await until_all_reported(settings, places)
    assert set(await results(settings)) == set(places)
    assert executor.counts["unreadable"] == 3
    (partition,) = {partition for partition, _ in places.values()}
    assert (await committed(settings))[partition] == (await ends(settings))[partition]


async def test_those_of_a_post_come_in_order(settings: Settings) -> None:
    todo = records(60, posts=3)
    places = await dispatch(settings, todo)
    seen: dict[str, list[int]] = defaultdict(list)
    busy: Counter[str] = Counter()

    async def handle(engagement: Engagement) -> None:
        busy[engagement.post_id] += 1
        assert busy[engagement.post_id] == 1
        await asyncio.sleep(0)
        seen[engagement.post_id].append(places[engagement.activity_id][1])
        busy[engagement.post_id] -= 1

    async with executing(Executor(settings, handle, concurrency=10, ordered=True)):
        await until_all_reported(settings, places)
    assert sum(map(len, seen.values())) == 60
    assert all(offsets == sorted(offsets) for offsets in seen.values())
    assert {each.outcome for told in (await results(settings)).values() for _, each in told} == {
        "executed"
    }


async def test_no_partition_runs_far_ahead_of_a_slow_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pod_automation.executor.executor.MAX_AHEAD", 20)
    todo = records(200, posts=1)
    places = await dispatch(settings, todo)
    let_go = asyncio.Event()

    async def handle(engagement: Engagement) -> None:
        if engagement.activity_id == todo[0][0]:
            await let_go.wait()

    executor = Executor(settings, handle, concurrency=2)

    async def paused() -> bool:
        return executor._consumer is not None and bool(executor._consumer.paused())

    async with executing(executor):
        await until(paused, "the partition paused")
        ((partition, offsets),) = executor._in_hand.offsets.items()
        assert offsets.upto is None
        assert 20 <= offsets.ahead <= 20 + executor._in_hand.window
        let_go.set()
        await until_all_reported(settings, places)
    assert (await committed(settings))[partition] == (await ends(settings))[partition]


async def test_results_survive_a_producer_that_breaks(settings: Settings) -> None:
    sender = ResultSender(settings.kafka_bootstrap, settings.topics.engagement_executed)
    confirmed: list[int] = []
    sending = asyncio.create_task(sender.run())

    def put(number: int) -> None:
        sender.put(
            1,
            EngagementExecuted(
                event_id=f"event-{number}",
                activity_id=f"activity-{number}",
                pod_id="pod",
                post_id="post",
                member_id="member",
                engagement_type="like",
                attempt=1,
                outcome="executed",
                executed_at=AT,
            ),
            lambda: confirmed.append(number),
        )

    try:
        put(0)
        await sender.flushed()
        for number in range(1, 400):
            put(number)
            if number % 100 == 0:
                await asyncio.sleep(0)  # some are on their way
                assert sender._producer.current is not None
                await throw_away(sender._producer.current)
                await sender.flushed()
        await sender.flushed()
    finally:
        sending.cancel()
        await asyncio.wait([sending])
        await sender.close()
    assert sorted(confirmed) == list(range(400))
    told = await read(settings, settings.topics.engagement_executed)
    first = list(dict.fromkeys(decode(EngagementExecuted, each.value).event_id for each in told))
    assert first == [f"event-{number}" for number in range(400)]


async def test_handlers_that_cannot_be_ended_end_the_executor(settings: Settings) -> None:
    places = await dispatch(settings, records(1))
    let_go = asyncio.Event()

    async def handle(_: Engagement) -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    executor = Executor(settings, handle, concurrency=1, time_limit_s=0.05)
    executor._attempts._cancel_s = 0.05
    with pytest.raises(StuckHandlersError):
        await executor.run(asyncio.Event())
    ((_, result),) = (await results(settings))[next(iter(places))]
    assert (result.outcome, result.retryable) == ("failed", True)
    ((partition, offset),) = places.values()
    assert (await committed(settings))[partition] > offset
    let_go.set()


async def test_the_example_survives_being_killed(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    todo = [*records(160), *records(20, prefix="busy"), *records(20, prefix="gone")]
    places = await dispatch(settings, todo)
    platform = tmp_path / "platform.ndjson"
    environment = {**environment, "EXAMPLE_PLATFORM": str(platform)}

    def done() -> Counter[str]:
        lines = platform.read_text().splitlines() if platform.exists() else []
        return Counter(json.loads(line)["key"] for line in lines if line.endswith("}"))

    async def half() -> bool:
        return sum(done().values()) >= 50 and bool(await committed(settings))

    slow = {**environment, "POD_AUTOMATION_QUEUE_CONCURRENCY": "1"}
    async with process(slow, sys.executable, "examples/executor.py") as first:
        await until(half, "half of it done", every_s=0.02)
        first.kill()
        await first.wait()
    # What is committed has a result, whatever else was lost.
    upto, told = await committed(settings), await results(settings)
    assert upto
    for activity, (partition, offset) in places.items():
        if offset < upto.get(partition, 0):
            assert activity in told, "committed without a result"
    assert len(told) < len(places), "too late to kill"

    again = executor_with("examples.executor:handle", "--remember", "redis", "--ordered")
    async with process(environment, *again) as second:
        await until_all_reported(settings, places)
        second.terminate()
        code, log = await ended(second)
    assert code == ExitCode.OK, log
    assert "Traceback" not in log
    told = await results(settings)
    for activity, (partition, _) in places.items():
        assert {each for each, _ in told[activity]} == {partition}
    kinds = {result.post_id[:4]: result for found in told.values() for _, result in found}
    assert (kinds["busy"].retryable, kinds["busy"].retry_after_ms) == (True, 500)
    assert (kinds["gone"].retryable, kinds["gone"].error) == (
        False,
        "the post is gone: " + kinds["gone"].post_id,
    )
    assert kinds["post"].outcome == "executed"
    # The platform's own idempotency is what makes it once; the key is what makes that possible.
    assert set(done().values()) == {1}
    assert len(done()) == 160
    assert await committed(settings) == {p: end for p, end in (await ends(settings)).items() if end}


async def test_sigterm_lets_handlers_finish(
    environment: dict[str, str], settings: Settings, diary: Diary
) -> None:
    places = await dispatch(settings, records(30))
    environment = {**environment, **diary.environment}
    handler = executor_with(of_this_file(gated), "--concurrency", "3")
    async with process(environment, *handler) as started:
        await diary.until("began", 3)
        started.terminate()
        await line_with(started, "stopping")
        diary.gate.touch()
        code, log = await ended(started)
    assert code == ExitCode.OK, log
    finished = {activity for _, activity in diary.lines("ended")}
    assert len(diary.lines("began")) == 3, "began another one after the signal"
    assert len(finished) == 3
    assert set(await results(settings)) == finished
    upto = await committed(settings)
    for activity, (partition, offset) in places.items():
        if offset < upto.get(partition, 0):
            assert activity in finished


async def test_what_does_not_finish_in_time_comes_again(
    environment: dict[str, str], settings: Settings, diary: Diary
) -> None:
    places = await dispatch(settings, records(2))
    environment = {**environment, **diary.environment, "POD_AUTOMATION_SHUTDOWN_GRACE_MS": "6000"}
    async with process(environment, *executor_with(of_this_file(gated))) as started:
        await diary.until("began", 2)
        started.terminate()
        code, log = await ended(started)
    if code != ExitCode.GRACE_OVER:  # a machine that stands still for long: what holds is the same
        assert code == ExitCode.OK, log
        assert "handlers are cancelled" in log
    assert await results(settings) == {}
    diary.gate.touch()
    async with process(environment, *executor_with(of_this_file(gated))):
        await until_all_reported(settings, places)


async def test_a_blocked_loop_holds_up_no_stop(
    environment: dict[str, str], settings: Settings, diary: Diary
) -> None:
    await dispatch(settings, records(1))
    environment = {**environment, **diary.environment}
    handler = executor_with(of_this_file(blocking))
    hurried = {**environment, "POD_AUTOMATION_SHUTDOWN_GRACE_MS": "500"}
    async with process(hurried, *handler) as started:
        await diary.until("began", 1)
        started.terminate()
        assert (await ended(started))[0] == ExitCode.GRACE_OVER
    patient = {**environment, "POD_AUTOMATION_SHUTDOWN_GRACE_MS": "600000"}
    async with process(patient, *handler) as started:
        await diary.until("began", 2)
        ending = asyncio.create_task(ended(started))
        while not ending.done():
            started.terminate()  # the first in order, the second at once
            await asyncio.wait([ending], timeout=0.2)
        assert ending.result()[0] == -signal.SIGTERM


async def test_no_thread_holds_up_an_end_by_an_error(
    environment: dict[str, str], settings: Settings, diary: Diary
) -> None:
    await dispatch(settings, records(2))
    hurried = {"POD_AUTOMATION_SHUTDOWN_GRACE_MS": "2000", **diary.environment}
    async with process({**environment, **hurried}, *executor_with(of_this_file(ending))) as started:
        await diary.until("began", 2)
        diary.gate.touch()
        code, log = await ended(started)
    assert code == ExitCode.GRACE_OVER, log


async def test_a_second_process_takes_its_share(
    environment: dict[str, str], settings: Settings, diary: Diary
) -> None:
    places = await dispatch(settings, records(40))
    environment = {**environment, **diary.environment}
    handler = executor_with(of_this_file(gated), "--concurrency", "40")
    async with process(environment, *handler) as first:
        await diary.until("began", 40)
        async with process(environment, *handler) as second:
            await joined(settings, settings.executor_group, 2)
            diary.gate.touch()
            await until_all_reported(settings, places)
            places |= await dispatch(settings, records(40, prefix="more"))
            await until_all_reported(settings, places)
            for each in (first, second):
                each.terminate()
            codes = [await ended(each) for each in (first, second)]
    assert [code for code, _ in codes] == [ExitCode.OK] * 2, codes
    # No process has handled one twice, whatever the rebalances in between.
    assert set(Counter(diary.lines("began")).values()) == {1}
    assert {pid for pid, _ in diary.lines("ended")} == {first.pid, second.pid}
    told = await results(settings)
    for activity, (partition, _) in places.items():
        assert {each for each, _ in told[activity]} == {partition}


async def test_redis_remembers(settings: Settings) -> None:
    done = RedisDone(settings.redis_url, prefix=settings.topic_prefix)
    other = RedisDone(settings.redis_url, ttl_s=100, prefix=settings.topic_prefix)
    try:
        assert not await done.is_done("a")
        await other.mark_done("a")
        await other.mark_done("a")
        assert await done.is_done("a")
        assert not await done.is_done("b")
        ttl = await done._redis.ttl(f"{settings.topic_prefix}executor:done:a")
        assert 0 < ttl <= 100
    finally:
        await done.close()
        await other.close()


async def test_with_a_store_the_second_process_skips(settings: Settings) -> None:
    todo = records(5)
    places = await dispatch(settings, todo)
    done = RedisDone(settings.redis_url, prefix=settings.topic_prefix)
    try:
        for activity in places:
            await done.mark_done(activity)

        async def handle(engagement: Engagement) -> None:
            raise AssertionError(engagement)

        executor = Executor(settings, handle, done=done)
        async with executing(executor):
            await until_all_reported(settings, places)
    finally:
        await done.close()
    assert executor.counts == {"executed": 5, "skipped": 5}
    assert {each.outcome for told in (await results(settings)).values() for _, each in told} == {
        "executed"
    }


async def test_without_a_handler_nothing_is_done(
    environment: dict[str, str], settings: Settings
) -> None:
    places = await dispatch(settings, records(3))
    async with process(environment, *COMMAND, "executor") as started:
        await line_with(started, "dry run: nothing is done for real")
        await until_all_reported(settings, places)
        started.send_signal(signal.SIGINT)
        code, log = await ended(started)
    assert code == ExitCode.OK
    assert log.count("would do") == 3
    assert "member" not in log


async def test_missing_topics_are_told(environment: dict[str, str]) -> None:
    async with process(environment, *COMMAND, "executor") as started:
        code, log = await ended(started)
    assert code == ExitCode.NOT_READY
    assert "run `pod-automation init`" in log
    assert "Traceback" not in log
