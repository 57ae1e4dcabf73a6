"""Topics and the outbox on a real broker."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from scheduler.activity import PlannedActivity
from scheduler.adapters.kafka_outbox import KafkaOutbox
from scheduler.adapters.kafka_topics import check_topics, ensure_topics
from scheduler.errors import PermanentError, StoreUnavailableError
from scheduler.ports import SourceRecord
from scheduler.settings import Settings, load_settings
from tests.integration.worker_bench import Bench, bench

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Bench]:
    async with bench(settings) as made:
        yield made


@pytest.fixture
async def outbox(settings: Settings) -> AsyncIterator[KafkaOutbox]:
    made = KafkaOutbox(settings.kafka_bootstrap, settings.topics)
    yield made
    await made.close()


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
    activities = [
        PlannedActivity(f"id-{n}", "pod", "post", f"member-{n}", "like", 1_795_507_200_000 + n, 5)
        for n in range(5000)
    ]
    await outbox.scheduled(2, activities)
    records = await stores.read(settings.topics.engagement_status)
    assert {record.partition for record in records} == {2}
    assert [dict(record.headers)["ce_id"].decode() for record in records] == [
        f"id-{n}:scheduled:1" for n in range(5000)
    ]


async def test_dead_letters_keep_what_there_is(
    settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    large = b"v" * 15_000_000
    await outbox.dead_letter(source(None, None), "nothing at all")
    await outbox.dead_letter(source(b"", b"", ("ce_id", b"a"), ("ce_id", b"b")), "empty")
    await outbox.dead_letter(source(b"\xff", large), "large")
    letters = await stores.read(settings.topics.dead_letter)
    assert [(letter.key, letter.value) for letter in letters] == [
        *((None, None), (b"", b""), (b"\xff", large))
    ]
    assert [value for name, value in letters[1].headers if name == "original_ce_id"] == [b"a", b"b"]
    assert all(letter.partition == 1 for letter in letters)
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
