"""Topics, the outbox and the dispatcher's output on a real broker."""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.protocol.admin import ApiVersionRequest

from pod_automation.processes import dispatcher
from scheduler.activity import Announcement, PlannedActivity, Status
from scheduler.adapters.kafka_batches import send_all
from scheduler.adapters.kafka_outbox import BUILT_PER_TURN, KafkaOutbox
from scheduler.adapters.kafka_producer import RenewableProducer, fetched, throw_away
from scheduler.adapters.kafka_shard_log import KafkaShardLog
from scheduler.adapters.kafka_topics import check_topics, ensure_topics
from scheduler.errors import FencedError, PermanentError, StoreUnavailableError
from scheduler.ports import SourceRecord
from scheduler.settings import Settings, load_settings
from scheduler.timer import Timer
from schemas.codec import decode
from schemas.events import (
    EngagementExecuted,
    EngagementStatus,
    ExecuteEngagement,
    PodCommand,
    WheelCursor,
)
from schemas.headers import CE_SOURCES, CE_TYPES, event_headers
from schemas.ids import activity_id
from schemas.times import millis, moment
from tests.integration.scenario import read
from tests.integration.worker_bench import Bench, bench, until

pytestmark = pytest.mark.timeout(240)
DUE_MS = 1_795_507_200_000


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Bench]:
    async with bench(settings) as made:
        yield made


@pytest.fixture
async def outbox(settings: Settings) -> AsyncIterator[KafkaOutbox]:
    made = KafkaOutbox(settings.kafka_bootstrap, settings.topics)
    yield made
    await made.close()


@pytest.fixture
async def told() -> list[dict[str, Any]]:
    """What the event loop would log, for want of somebody who is told of it."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    return contexts


def source(key: bytes | None, value: bytes | None, *headers: tuple[str, bytes]) -> SourceRecord:
    return SourceRecord("source", 1, 7, key, value, headers)


async def test_topics_are_created_once_and_checked(settings: Settings) -> None:
    assert await ensure_topics(settings) == []
    await check_topics(settings)
    more = settings.model_copy(update={"partitions": settings.partitions + 1})
    with pytest.raises(PermanentError, match="has 4 partitions"):
        await ensure_topics(more)
    with pytest.raises(PermanentError, match="has 4 partitions"):
        await check_topics(more)


async def test_missing_topics_are_named_and_several_may_create_them(settings: Settings) -> None:
    other = load_settings(
        kafka_bootstrap=settings.kafka_bootstrap,
        topic_prefix=settings.topic_prefix + "other.",
        partitions=2,
    )
    with pytest.raises(PermanentError, match="pod-automation init"):
        await check_topics(other)
    await asyncio.gather(ensure_topics(other), ensure_topics(other), ensure_topics(other))
    await check_topics(other)


async def test_a_broker_that_is_away_is_transient() -> None:
    nowhere = load_settings(kafka_bootstrap="127.0.0.1:1")
    with pytest.raises(StoreUnavailableError):
        await ensure_topics(nowhere)
    outbox = KafkaOutbox(nowhere.kafka_bootstrap, nowhere.topics)
    with pytest.raises(StoreUnavailableError):
        await outbox.dead_letter(source(None, None), "why")
    await outbox.close()


async def test_statuses_come_in_order_however_many(
    settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    statuses = [
        Announcement(f"id-{n}", "pod", "post", f"member-{n}", "like", Status.SCHEDULED, 1, DUE_MS)
        for n in range(5000)
    ]
    await outbox.announce(2, statuses)
    records = await stores.read(settings.topics.engagement_status)
    assert {record.partition for record in records} == {2}
    assert [dict(record.headers)["ce_id"].decode() for record in records] == [
        f"id-{n}:scheduled:1" for n in range(5000)
    ]


async def test_large_lists_are_built_one_after_the_other(outbox: KafkaOutbox) -> None:
    """So that the first is on its way to the broker while the others are built."""
    built: list[int] = []

    class Noted(list[Announcement]):
        def __iter__(self) -> Iterator[Announcement]:
            for each in super().__iter__():
                built.append(each.attempt)
                yield each

    def several(shard: int) -> Noted:
        one = Announcement("id", "pod", "post", "m", "like", Status.SCHEDULED, shard, DUE_MS)
        return Noted([one] * (BUILT_PER_TURN * 2 + 1))

    # The first connects; without that, each would come when the other has all behind it.
    await outbox.announce(0, [])
    await asyncio.gather(*(outbox.announce(shard, several(shard)) for shard in (1, 2, 3)))
    assert built == sorted(built)
    assert len(built) == 3 * (BUILT_PER_TURN * 2 + 1)


async def test_all_who_send_at_once_share_a_producer_and_discard_it_once(
    settings: Settings,
) -> None:
    before = AsyncMock()
    producers = RenewableProducer(settings.kafka, request_ms=10_000, before=before)
    first, other = await asyncio.gather(producers.started(), producers.started())
    assert first is other
    assert before.await_count == 1
    producers.discard(first)
    second = await producers.started()
    assert second is not first
    assert before.await_count == 2
    producers.discard(first)  # by one who learns of its end later
    assert producers.current == second
    await producers.close()
    assert producers.current is None
    assert all(each._closed for each in (first, second))


async def test_nobody_waits_for_a_producer_that_is_thrown_away(
    settings: Settings, outbox: KafkaOutbox
) -> None:
    await outbox.announce(0, [])
    producer = outbox._producer.current
    assert producer is not None
    accumulator, topic = producer._message_accumulator, settings.topics.engagement_status
    partition = TopicPartition(topic, 0)

    def batch() -> BatchBuilder:
        made = producer.create_batch()
        made.append(timestamp=None, key=b"k", value=b"v")
        made.close()
        return made

    # Its sender does nothing by itself, so the moments can be chosen.
    producer._sender.sender_task.cancel()
    await asyncio.wait([producer._sender.sender_task])
    first = await accumulator.add_batch(batch(), partition, 10)
    behind = asyncio.create_task(accumulator.add_batch(batch(), partition, 10))
    asking = asyncio.create_task(producer.partitions_for("no-such-topic"))

    async def asks() -> bool:
        return producer.client._md_update_fut is not None

    await until(asks, "asks for metadata", 0)
    # The sender takes the first, and in the same turn somebody's failure has it thrown away.
    accumulator._pop_batch(partition)
    await throw_away(producer)
    async with asyncio.timeout(10):
        with pytest.raises(KafkaConnectionError):
            await behind
        with pytest.raises(KafkaConnectionError):
            await asking
    first.cancel()


async def test_records_that_nobody_waits_for_are_thrown_away_quietly(
    settings: Settings, told: list[dict[str, Any]]
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, linger_ms=60_000)
    await producer.start()
    for value in (b"1", b"2"):
        await producer.send(settings.topics.engagement_status, value, partition=0)
    waited_for = await producer.send(settings.topics.engagement_status, b"3", partition=0)
    await throw_away(producer)
    with pytest.raises(KafkaConnectionError):
        await waited_for
    del producer, waited_for
    gc.collect()
    assert told == []


async def test_a_producer_whose_own_task_has_died_is_another_next_time(
    outbox: KafkaOutbox, told: list[dict[str, Any]]
) -> None:
    await outbox.announce(0, [])
    producer = outbox._producer.current
    assert producer is not None

    async def dies() -> None:
        raise RuntimeError("what aiokafka does not expect")

    producer.client._metadata_update = lambda *_: dies()
    producer.client.force_metadata_update().add_done_callback(fetched)

    async def is_gone() -> bool:
        return outbox._producer.current is not producer

    await until(is_gone, "another producer", 0)
    await outbox.announce(0, [])
    assert outbox._producer.current is not None
    await outbox.close()
    gc.collect()
    assert told == []


async def test_a_producer_whose_own_task_has_died_is_thrown_away_quietly(
    settings: Settings,
) -> None:
    producers = RenewableProducer(settings.kafka, request_ms=10_000)
    producer = await producers.started()
    dead = asyncio.get_running_loop().create_future()
    dead.set_exception(RuntimeError("what aiokafka does not expect"))
    producer.client._sync_task.cancel()
    producer.client._sync_task = dead
    await producers.close()
    assert not any(each.connected() for each in producer.client._conns.values())


async def test_a_producer_that_starts_while_all_is_closed_is_not_left_behind(
    settings: Settings,
) -> None:
    going = asyncio.Event()

    async def closes() -> None:
        going.set()

    producers = RenewableProducer(settings.kafka, request_ms=10_000, before=closes)
    starting = asyncio.create_task(producers.started())
    await going.wait()
    await producers.close()
    with pytest.raises(KafkaConnectionError):
        await starting
    assert producers.current is None
    await producers.started()
    await producers.close()


async def test_a_connection_that_uvloop_has_closed_is_away(settings: Settings) -> None:
    producers = RenewableProducer(settings.kafka, request_ms=10_000)
    producer = await producers.started()
    (connection, *_) = producer.client._conns.values()

    def broken(_: bytes) -> None:
        raise RuntimeError(
            "unable to perform operation on <TCPTransport closed=True>; the handler is closed"
        )

    connection._writer.write = broken
    with pytest.raises(KafkaConnectionError, match="the handler is closed"):
        connection.send(ApiVersionRequest())
    assert not connection.connected()
    await producers.close()


async def test_a_producer_that_is_thrown_away_says_nothing_of_what_it_had_in_hand(
    outbox: KafkaOutbox, told: list[dict[str, Any]]
) -> None:
    await outbox.announce(2, [])
    assert outbox._producer.current is not None
    in_hand, given_up = asyncio.Event(), asyncio.Event()

    async def broken(*_: object) -> None:
        in_hand.set()
        await given_up.wait()
        raise RuntimeError("an error of aiokafka's own")

    outbox._producer.current._sender._send_produce_req = broken
    status = Announcement("id", "pod", "post", "m", "like", Status.SCHEDULED, 1, DUE_MS)
    announcing = asyncio.create_task(outbox.announce(2, [status]))
    await in_hand.wait()
    closing = asyncio.create_task(outbox.close())
    with pytest.raises(StoreUnavailableError):
        await announcing
    given_up.set()
    await closing
    gc.collect()
    assert told == []


async def test_after_a_batch_out_of_order_there_is_another_producer(
    settings: Settings, stores: Bench, outbox: KafkaOutbox, told: list[dict[str, Any]]
) -> None:
    """As after batches that a broker has lost."""
    status = Announcement("id", "pod", "post", "m", "like", Status.SCHEDULED, 1, DUE_MS)
    await outbox.announce(2, [status])
    assert outbox._producer.current is not None
    outbox._producer.current._txn_manager.increment_sequence_number(
        TopicPartition(settings.topics.engagement_status, 2), 7
    )
    with pytest.raises(StoreUnavailableError):
        await outbox.announce(2, [status])
    await outbox.announce(2, [status])
    await outbox.close()
    gc.collect()
    assert told == []
    assert len(await stores.read(settings.topics.engagement_status)) == 2


async def test_a_status_is_what_the_contract_says(
    settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    await outbox.announce(
        1,
        [
            Announcement("a", "pod", "p\u00f6st", "m", "like", Status.RETRYING, 2, DUE_MS, "no"),
            Announcement("b", "pod", "post", "m", "comment", Status.CANCELLED, 1),
        ],
    )
    retrying, cancelled = await stores.read(settings.topics.engagement_status)
    found = decode(EngagementStatus, retrying.value)
    assert (found.event_id, found.status, found.attempt) == ("a:retrying:2", "retrying", 2)
    assert (found.reason, found.scheduled_for) == ("no", moment(DUE_MS))
    assert retrying.key == "p\u00f6st".encode()
    headers = dict(retrying.headers)
    assert headers == dict(event_headers(EngagementStatus, "a:retrying:2", millis(found.at)))
    found = decode(EngagementStatus, cancelled.value)
    assert (found.event_id, found.reason, found.scheduled_for) == ("b:cancelled:1", None, None)


async def test_any_reason_can_be_told(
    settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    reasons = ["", "\ud83d", "a\x00b", "\udcff\ufffe\U0010ffff", "\ud83d" * 5000, "l" * 5_000_000]
    await outbox.announce(
        0,
        [
            Announcement("id", "pod", "post", "m", "like", Status.FAILED, n, None, reason)
            for n, reason in enumerate(reasons, 1)
        ],
    )
    records = await stores.read(settings.topics.engagement_status)
    told = [decode(EngagementStatus, record.value).reason or "" for record in records]
    assert told[:4] == ["", "\\ud83d", "ab", "\\udcff\ufffe\U0010ffff"]
    assert [len(reason) for reason in told[4:]] == [6000, 1000]


async def test_a_record_is_forwarded_as_it_is(
    settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    topic = settings.topics.engagement_executed
    headers = (("ce_id", b"theirs"), ("ce_id", b"twice"), ("\N{SNOWMAN}", b"\xff"))
    records = [
        SourceRecord(topic, 1, 7, key, value, headers)
        for key, value in ((b"k", b"v"), (None, None), (b"", b""), (b"\xff", b"\x00"))
    ]
    for record in records:
        await outbox.forward(record, 3)
    found = await stores.read(topic)
    assert [(each.key, each.value, tuple(each.headers)) for each in found] == [
        (each.key, each.value, headers) for each in records
    ]
    assert {each.partition for each in found} == {3}
    assert not await stores.read(settings.topics.dead_letter)


async def test_what_cannot_be_forwarded_is_buried(
    settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    topic = settings.topics.pod_commands
    # Compressed it came in whole.
    await outbox.forward(SourceRecord(topic, 1, 7, b"k", b"v" * 2_000_000), 2)
    await outbox.forward(SourceRecord(topic, 1, 8, b"k", b"v"), settings.partitions)
    assert not await stores.read(topic)
    letters = await stores.read(settings.topics.dead_letter)
    assert [len(letter.value) for letter in letters] == [2_000_000, 1]
    reasons = [dict(letter.headers)["reason"].decode() for letter in letters]
    assert reasons == [
        "too large to be forwarded to partition 2",
        f"{topic} has no partition {settings.partitions}",
    ]


async def test_dead_letters_keep_what_there_is(
    settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    large = b"v" * 15_000_000
    await outbox.dead_letter(source(None, None), "nothing at all")
    await outbox.dead_letter(source(b"", b"", ("ce_id", b"a"), ("ce_id", b"b")), "empty")
    await outbox.dead_letter(source(b"\xff", large), "large", [("failures", b"[]")])
    letters = await stores.read(settings.topics.dead_letter)
    assert [(letter.key, letter.value) for letter in letters] == [
        *((None, None), (b"", b""), (b"\xff", large))
    ]
    assert [value for name, value in letters[1].headers if name == "original_ce_id"] == [b"a", b"b"]
    assert all(letter.partition == 1 for letter in letters)
    assert [dict(letter.headers).get("failures") for letter in letters] == [None, None, b"[]"]
    assert all(dict(letter.headers)["ce_id"] == b"source/1/7" for letter in letters)


async def test_what_the_broker_finds_too_large_is_cut(settings: Settings, stores: Bench) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    # A topic that somebody made without our configuration.
    name = settings.topic_prefix + "small.dead-letter"
    configs = {"max.message.bytes": "100000"}
    await admin.create_topics([NewTopic(name, settings.partitions, 1, topic_configs=configs)])
    await admin.close()
    cutting = KafkaOutbox(settings.kafka_bootstrap, settings.topics._replace(dead_letter=name))
    await cutting.dead_letter(source(b"k", b"v" * 900_000), "large")
    await cutting.dead_letter(source(b"k" * 200_000, b"v"), "large key")
    await cutting.dead_letter(source(b"k", b"v", ("h", b"x" * 200_000)), "large header")
    await cutting.dead_letter(source(b"k", b"v"), "small")
    await cutting.close()
    letters = await stores.read(name)
    kept = [(letter.key, letter.value and len(letter.value)) for letter in letters]
    assert kept == [(b"k", 32 * 1024), (None, None), (None, None), (b"k", 1)]
    sizes = [dict(letter.headers).get("truncated_from") for letter in letters]
    assert sizes == [b"900000", b"1", b"1", None]


async def test_what_nobody_reports_is_given_up_in_its_own_partition(
    settings: Settings, stores: Bench
) -> None:
    """The real dispatcher: what it sends, and half a second later that nothing has come of it."""
    topics = settings.topics
    planned = {shard: activities(shard, 30) for shard in (1, 3)}
    for shard, rows in planned.items():
        await stores.record.apply_plan(topics.post_detected, shard, -1, 0, rows)
    ids = {each.activity_id: each for rows in planned.values() for each in rows}
    partitions = {each.activity_id: shard for shard, rows in planned.items() for each in rows}
    stop = asyncio.Event()
    quick = settings.model_copy(update={"result_timeout_ms": 500})
    async with dispatcher(quick) as running:
        task = asyncio.create_task(running.run(stop))

        async def given_up() -> bool:
            assert not task.done()
            return len(await read(settings, topics.engagement_executed)) >= len(ids)

        await until(given_up, "all given up")
        stop.set()
        await task

    sent_at = {}
    for record in await read(settings, topics.execute_engagement):
        event = decode(ExecuteEngagement, record.value)
        sent_at[event.activity_id] = event.dispatched_at
    assert sent_at.keys() == ids.keys()
    records = await read(settings, topics.engagement_executed)
    seen = []
    for record in records:
        result = decode(EngagementExecuted, record.value)
        row = ids[result.activity_id]
        seen.append(result.activity_id)
        assert record.partition == partitions[result.activity_id]
        assert record.key == row.post_id.encode()
        assert result == EngagementExecuted(
            event_id=f"{row.activity_id}:timeout:1",
            activity_id=row.activity_id,
            pod_id=row.pod_id,
            post_id=row.post_id,
            member_id=row.member_id,
            engagement_type=row.engagement_type,
            attempt=1,
            outcome="failed",
            executed_at=result.executed_at,
            error="no result within 0.5 s",
            retryable=True,
        )
        assert (result.executed_at - sent_at[row.activity_id]).total_seconds() >= 0.5
        headers = {name: value.decode() for name, value in record.headers}
        assert headers["ce_id"] == result.event_id
        assert headers["ce_type"] == CE_TYPES[EngagementExecuted]
        assert headers["ce_source"] == CE_SOURCES[ExecuteEngagement] == "/pod-automation/engine"
    # Nobody has applied any, so each was given up once and for all.
    assert sorted(seen) == sorted(ids)


async def test_timeouts_are_there_with_their_batch_or_not_at_all(settings: Settings) -> None:
    """More than one record batch of them, in one transaction with timers and the cursor."""
    topics = settings.topics
    timers = [
        Timer(each.activity_id, "pod", each.post_id, each.member_id, "like", 2, 7)
        for each in activities(0, 6000)
    ]
    first = KafkaShardLog(settings.kafka_bootstrap, topics, 0, settings.topic_prefix + "owner")
    second = KafkaShardLog(settings.kafka_bootstrap, topics, 0, settings.topic_prefix + "owner")
    try:
        await first.fence()
        cursor = WheelCursor(seq=1, nonce="n1", gen="g")
        at_ms = time.time_ns() // 1_000_000 - 3_600_000
        assert await first.commit([], at_ms, cursor, timers) == -1
        await second.fence()
        with pytest.raises((FencedError, StoreUnavailableError)):
            await first.commit([], 8, WheelCursor(seq=2, nonce="n2", gen="g"), timers[:1])
        assert await second.cursor() == cursor
        cursor = WheelCursor(seq=2, nonce="n3", gen="g")
        report = PodCommand(event_id="report", command="expire", issued_at=moment(at_ms))
        upto = await second.commit(timers[:3], at_ms, cursor, timers[:1], [report])
        assert upto == 2
    finally:
        await first.close()
        await second.close()
    results = await read(settings, topics.engagement_executed)
    given_up = [dict(record.headers)["ce_id"].decode() for record in results]
    expected = [f"{each.activity_id}:timeout:2" for each in timers]
    assert given_up == [*expected, expected[0]]
    assert decode(EngagementExecuted, results[0].value).error == "no result in time"
    # Brokers refuse what is an hour ahead of them: this host's clock is none of it.
    for topic in (
        *(topics.execute_engagement, topics.engagement_status, topics.engagement_executed),
        *(topics.pod_commands, topics.wheel_cursor),
    ):
        records = await read(settings, topic)
        assert {record.timestamp for record in records} == {at_ms}, topic


async def test_an_owner_that_is_fenced_within_a_transaction_is_told_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """aiokafka then says that there is no transaction, and not why."""
    timer = Timer(activity_id("pod", "p", "m", "like"), "pod", "p", "m", "like", 1, 7)
    first = KafkaShardLog(settings.kafka_bootstrap, settings.topics, 0, "fenced-within")
    second = KafkaShardLog(settings.kafka_bootstrap, settings.topics, 0, "fenced-within")

    async def send_and_fail(*parts: Any) -> None:
        await send_all(*parts)
        await asyncio.wait([each for part in parts for each in part.sent])

    monkeypatch.setattr("scheduler.adapters.kafka_shard_log.send_all", send_and_fail)
    try:
        await first.fence()
        await second.fence()
        with pytest.raises(FencedError):
            await first.commit([timer], 8, WheelCursor(seq=1, nonce="n", gen="g"), [timer])
    finally:
        await first.close()
        await second.close()
    del first
    gc.collect()
    assert "never retrieved" not in caplog.text


def activities(shard: int, count: int) -> list[PlannedActivity]:
    """Likes of some posts, due since a moment ago."""
    now_ms = time.time_ns() // 1_000_000
    found = []
    for n in range(count):
        ids = (f"pod-{shard}", f"post-{shard}-{n % 3}", f"member-{n}")
        found.append(PlannedActivity(activity_id(*ids, "like"), *ids, "like", now_ms - n, 0))
    return found
