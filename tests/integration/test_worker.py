"""Workers as processes, on real Kafka, Redis and PostgreSQL, with a producer that is not ours."""

import asyncio
import itertools
import random
import signal
from collections.abc import AsyncIterator, Iterable

import asyncpg
import orjson
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.structs import RecordMetadata

from scheduler.settings import Settings
from streams.source_log import SourceLog
from streams.watchdog import EXIT_CRASHED
from tests.integration.worker_bench import (
    EPOCH,
    Bench,
    bench,
    broken_records,
    event,
    leave_marker,
    producing,
    send_raw,
    transactional,
    until,
    workers,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
# A machine that stands still for a moment loses no worker: its batch would be announced twice.
PATIENT_SESSION = {"POD_AUTOMATION_SESSION_TIMEOUT_MS": "30000"}
MEMBERS = [f"member-{number}" for number in range(5)]


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Bench]:
    async with bench(settings) as made:
        yield made


@pytest.fixture
async def producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    async with producing(settings) as made:
        yield made


async def publish(producer: AIOKafkaProducer, settings: Settings, numbers: range) -> int:
    """Events with these numbers; returns how many activities they make."""
    topic = settings.topics.post_detected
    sent = [
        await producer.send(topic, event(number, MEMBERS), key=b"post-%d" % number)
        for number in numbers
    ]
    await asyncio.gather(*sent)
    return len(numbers) * len(MEMBERS) * 2


async def test_events_become_rows_timers_and_statuses(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    async with workers(environment | PATIENT_SESSION) as (worker,):
        activities = await publish(producer, settings, range(300))
        await stores.applied(await stores.ends(settings.topics.post_detected))
        await stores.verify(activities)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    assert max((await stores.statuses()).values()) == 1


async def test_broken_records_are_buried_and_hold_up_nobody(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    topic = settings.topics.post_detected
    rng = random.Random(1)
    buried: dict[str, tuple[object, object]] = {}
    activities = 0
    numbers = itertools.count()
    for broken in broken_records():
        number = next(numbers)
        await producer.send(topic, event(number, MEMBERS), key=b"post-%d" % number)
        activities += len(MEMBERS) * 2
        partition = rng.randrange(settings.partitions)
        offset = await send_raw(producer, topic, partition, broken)
        buried[f"{topic}/{partition}/{offset}"] = broken[:2]
    # Doubles of an event, and good ones with a strange key or strange headers.
    await producer.send_and_wait(topic, event(0, MEMBERS), key=b"post-0")
    for key in (None, b"\xff", b"k" * 5000):
        odd = (key, event(next(numbers), MEMBERS), [("ce_id", b"\xff"), ("", b""), ("n", None)])
        await send_raw(producer, topic, 2, odd)
        activities += len(MEMBERS) * 2
    async with workers(environment) as (worker,):
        await stores.applied(await stores.ends(topic))
        await stores.verify(activities)
        letters = await stores.read(settings.topics.dead_letter)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    found = {}
    for letter in letters:
        named = [value.decode() for name, value in letter.headers if name == "ce_id"]
        assert len(named) == 1
        found[named[0]] = (letter.key, letter.value)
        last = dict(letter.headers)
        assert last["source_topic"].decode() == topic
        assert named[0] == f"{topic}/{letter.partition}/{last['source_offset'].decode()}"
        assert last["source_partition"].decode() == str(letter.partition)
        assert last["reason"]
    assert found == buried
    assert len(letters) == len(buried)


async def test_kills_in_mid_run_lose_and_double_nothing(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    environment = environment | {"POD_AUTOMATION_SESSION_TIMEOUT_MS": "1500"}
    rng = random.Random(2)
    activities = 0
    async with workers(environment, count=2) as processes:
        for turn in range(5):
            activities += await publish(producer, settings, range(turn * 200, turn * 200 + 200))
            wanted = rng.randrange(activities)

            async def got_on(wanted: int = wanted) -> bool:
                return await stores.rows() >= wanted

            await until(got_on, f"{wanted} rows", every_s=0.005)
            victim = processes[turn % 2]
            await victim.kill()
            await victim.start()
        await stores.applied(await stores.ends(settings.topics.post_detected))
        await stores.verify(activities)
        for process in processes:
            process.signal(signal.SIGTERM)
        assert [await process.ended() for process in processes] == [0, 0]


async def test_workers_that_come_and_go_share_the_partitions(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    activities = 0
    async with workers(environment) as (first,):
        activities += await publish(producer, settings, range(200))
        async with workers(environment, count=2) as others:
            await stores.members(3)
            activities += await publish(producer, settings, range(200, 600))
            for other in others:
                other.signal(signal.SIGTERM)
            activities += await publish(producer, settings, range(600, 800))
            assert [await other.ended() for other in others] == [0, 0]
        await stores.applied(await stores.ends(settings.topics.post_detected))
        await stores.verify(activities)
        first.signal(signal.SIGTERM)
        assert await first.ended() == 0


async def test_a_wheel_that_lost_its_last_adds_gets_them_back_while_idle(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    async with workers(environment):
        activities = await publish(producer, settings, range(50))
        ends = await stores.ends(settings.topics.post_detected)
        await stores.applied(ends)
        await stores.open_wheels()  # empty, with no watermarks
        await stores.applied(ends)
        await stores.verify(activities)


async def test_a_shard_without_a_wheel_does_not_hold_up_the_others(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    environment = environment | {"POD_AUTOMATION_INGEST_BATCH_EVENTS": "50"}
    topic = settings.topics.post_detected
    # More than a buffer takes before it asks for no more, and more than the stream has room for.
    numbers = range(22_000)
    for number in numbers:
        await producer.send(topic, event(number, MEMBERS[:1], engagement_types=["like"]))
    await producer.flush()
    ends = await stores.ends(topic)
    await stores.wheel.forget(2)
    async with workers(environment) as (worker,):

        async def others_are_done() -> bool:
            found = await stores.watermarks(stores.record)
            return all(found.get(each) == ends[each] - 1 for each in ends if each != 2)

        await until(others_are_done, "the other partitions applied")
        # At most one batch is ahead of its timers.
        assert (await stores.watermarks(stores.record)).get(2, -1) < 50
        await stores.wheel.take(2, EPOCH)
        await stores.wheel.wipe(2, EPOCH)
        await stores.wheel.open(2, EPOCH, "gen2", (0, ""), {})
        await stores.applied(ends)
        await stores.verify(len(numbers))
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0


async def test_a_very_large_event_passes(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    members = [f"member-{number}" for number in range(10_000)]
    topic = settings.topics.post_detected
    await producer.send_and_wait(topic, event(0, members), key=b"post-0")
    async with workers(environment):
        await stores.applied(await stores.ends(topic))
        await stores.verify(20_000)


async def test_a_recreated_topic_is_refused(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    # What is left of a topic that had a thousand records.
    await stores.record.apply_plan(settings.topics.post_detected, 1, -1, 1000, [])
    async with workers(environment) as (worker,):
        assert await worker.ended() == EXIT_CRASHED


async def test_what_the_group_has_passed_and_nobody_applied_is_read_back(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    topic = settings.topics.post_detected
    async with workers(environment) as (worker,):
        await publish(producer, settings, range(40))
        await stores.applied(await stores.ends(topic))
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    # As after a restore from a backup that was made before, and the loss of the wheels.
    await stores.database.execute("delete from ingested_offsets where topic = $1", topic)
    await stores.database.execute("delete from pod_activities")
    await stores.open_wheels()
    activities = await publish(producer, settings, range(40, 80))
    async with workers(environment):
        await stores.applied(await stores.ends(topic))
    assert await stores.rows() == await stores.timers() == 2 * activities


def result(row: asyncpg.Record, outcome: str) -> bytes:
    """What an executor that is not ours has to say of an activity's first attempt."""
    return orjson.dumps(
        {
            "event_id": f"{row['id']}:{outcome}:1",
            "activity_id": str(row["id"]),
            "pod_id": row["pod_id"],
            "post_id": row["post_id"],
            "member_id": row["member_id"],
            "engagement_type": row["engagement_type"],
            "attempt": 1,
            "outcome": outcome,
            "executed_at": "2026-11-24T09:00:00Z",
            "error": None if outcome == "executed" else "the platform said no",
        }
    )


def behind(sent: Iterable[RecordMetadata]) -> dict[int, int]:
    """By partition, the offset behind the last of the records: a marker of theirs may follow."""
    ends: dict[int, int] = {}
    for each in sent:
        ends[each.partition] = max(ends.get(each.partition, 0), each.offset + 1)
    return ends


async def test_results_and_commands_are_applied_beside_posts(
    environment: dict[str, str], settings: Settings, stores: Bench, producer: AIOKafkaProducer
) -> None:
    topics = settings.topics
    async with workers(environment, count=2) as processes:
        await publish(producer, settings, range(20))
        await stores.applied(await stores.ends(topics.post_detected))
        rows = await stores.database.fetch("select * from pod_activities order by id")
        # One in a partition that is not its own, and a pending row that nobody has planned.
        results = [
            await producer.send_and_wait(
                topics.engagement_executed,
                result(row, "failed" if number % 2 else "executed"),
                partition=(row["source_partition"] + (number == 0)) % settings.partitions,
            )
            for number, row in enumerate(rows)
        ]
        pending = await stores.database.fetchval(
            "insert into pod_activities (pod_id, post_id, member_id, engagement_type)"
            " values ('pod', 'theirs', 'm', 'like') returning id"
        )
        command = {
            "event_id": "c1",
            "command": "schedule",
            "issued_at": "2026-11-24T09:00:00Z",
            "post_id": "theirs",
            "activity_ids": [str(pending)],
        }
        commands = [
            await producer.send_and_wait(
                topics.pod_commands, orjson.dumps(command), key=b"theirs", partition=3
            )
        ]
        numbers = range(20, 40)
        await publish(producer, settings, numbers)  # meanwhile

        async def forwarded() -> bool:
            return sum((await stores.ends(topics.engagement_executed)).values()) == len(rows) + 1

        await until(forwarded, "the result of another shard forwarded")
        assert max(each.partition for each in results) == settings.partitions - 1
        await stores.applied(
            await stores.ends(topics.engagement_executed), topics.engagement_executed
        )
        await stores.applied(behind(commands), topics.pod_commands)
        await stores.applied(await stores.ends(topics.post_detected))
        for process in processes:
            process.signal(signal.SIGTERM)
        assert [await process.ended() for process in processes] == [0, 0]
    found = await stores.database.fetch(
        "select status, count(*) from pod_activities group by status"
    )
    half = len(rows) // 2
    assert {row["status"]: row["count"] for row in found} == {
        "executed": half,
        "retrying": half,
        "scheduled": len(rows) + 1,
    }
    statuses = await stores.statuses()
    for number, row in enumerate(rows):
        assert statuses[f"{row['id']}:retrying:2" if number % 2 else f"{row['id']}:executed:1"]
    assert statuses[f"{pending}:scheduled:1"]
    # What was executed has no timer any more.
    assert await stores.timers() == half + len(rows) + 1
    assert not await stores.read(topics.dead_letter)


async def test_gaps_that_transactions_leave_are_passed_and_committed_over(
    environment: dict[str, str], settings: Settings, stores: Bench
) -> None:
    topics = settings.topics
    sent: list[RecordMetadata] = []
    numbers = itertools.count()
    async with workers(environment) as (worker,), transactional(settings) as theirs:
        for turn in range(60):
            await theirs.begin_transaction()
            for partition in range(2):
                value = event(next(numbers), MEMBERS[:1])
                waiting = await theirs.send(topics.post_detected, value, partition=partition)
                sent.append(await waiting)
            await theirs.commit_transaction()
            if turn in (0, 30):  # behind offset 0 too: Faust takes no notice of a gap there
                await leave_marker(theirs, topics.post_detected, 0)
        await stores.applied(behind(sent))
        await stores.verify(2 * len(sent))
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0


async def test_the_topic_beside_faust_shows_what_faust_delivers(settings: Settings) -> None:
    topic = settings.topics.engagement_executed
    source = SourceLog(settings.kafka_bootstrap, topic, settings.worker_group)
    async with transactional(settings) as theirs:
        await leave_marker(theirs, topic, 1)  # offset 0
        for value in (b"aborted", b"committed"):  # 1 and its marker, 3 and its marker
            await theirs.begin_transaction()
            await (await theirs.send(topic, value, partition=1))
            await (
                theirs.abort_transaction() if value == b"aborted" else theirs.commit_transaction()
            )
        await theirs.begin_transaction()
        await (await theirs.send(topic, b"open", partition=1))  # 5
        try:
            assert await source.ends([1]) == {1: 6}
            found = await source.read(1, 0, 6, 10)
            assert [(each.offset, each.value) for each in found] == [
                *((1, b"aborted"), (3, b"committed"), (5, b"open"))
            ]
            assert not await source.read(1, 2, 3, 10)
            assert not await source.has_record(1, 0, 1)
            assert await source.has_record(1, 4, 6)
            await theirs.abort_transaction()

            async def marked() -> bool:
                return await source.ends([1]) == {1: 7}

            # The coordinator writes it after the producer has had its answer.
            await until(marked, "the marker of the aborted transaction")
            assert not await source.has_record(1, 6, 7)
        finally:
            await source.close()


async def test_without_topics_a_worker_says_what_to_do(environment: dict[str, str]) -> None:
    async with workers(environment) as (worker,):
        assert await worker.ended() not in (0, EXIT_CRASHED)
