"""What Faust does when its group hands partitions over: how long it waits, where it goes on."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import IllegalStateError
from faust.transport.consumer import Consumer
from faust.types import TP

from streams.app import FETCH_WAIT_MS, POLL_S, _Consumer

POSTS, RESULTS = TP("posts", 0), TP("results", 0)


async def test_a_broker_keeps_no_fetch_for_long(consumer: Any) -> None:
    thread = consumer._new_consumer_thread()
    made = thread._create_worker_consumer(consumer.transport)
    made._closed = True  # it was never started
    assert made._fetch_max_wait_ms == FETCH_WAIT_MS


async def test_what_was_fetched_is_not_waited_for_for_long(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = []

    async def getmany(**options: Any) -> dict[object, object]:
        waits.append(options["timeout"])
        return {}

    monkeypatch.setattr(consumer, "_getmany", getmany)
    monkeypatch.setattr(consumer, "_get_active_partitions", lambda: {1})
    consumer.resume_flow()
    for timeout in (5.0, POLL_S / 2):
        assert [each async for each in consumer.getmany(timeout)] == []
    assert waits == [POLL_S, POLL_S / 2]


async def test_partitions_are_read_as_soon_as_there_are_any(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = iter([set(), set(), {1}])
    slept = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    async def getmany(**_: Any) -> dict[object, object]:
        return {}

    found: set[object] = set()

    def active() -> set[object]:
        nonlocal found
        found = next(looks, found)  # type: ignore[arg-type]
        return found

    monkeypatch.setattr(consumer, "_get_active_partitions", active)
    monkeypatch.setattr(consumer, "_getmany", getmany)
    monkeypatch.setattr(consumer, "sleep", sleep)
    consumer.resume_flow()
    assert isinstance(consumer, _Consumer)
    assert await consumer._wait_next_records(1.0) == ({}, {1})
    assert len(slept) == 2
    assert sum(slept) < 1


@pytest.mark.parametrize(
    ("committed", "begun_anew"),
    [({POSTS: None, RESULTS: 7}, [POSTS]), ({POSTS: 0}, [POSTS]), ({POSTS: 1}, []), ({}, [])],
)
async def test_where_nothing_is_committed_it_goes_back_to_the_beginning(
    consumer: Any,
    monkeypatch: pytest.MonkeyPatch,
    committed: dict[TP, int | None],
    begun_anew: list[TP],
) -> None:
    class Kafka:
        async def seek_to_committed(self) -> dict[TP, int | None]:
            return committed

    async def called(function: Any, *arguments: Any) -> Any:
        return await function(*arguments)

    async def seek_to_beginning(*partitions: TP) -> None:
        sought.extend(partitions)
        raise IllegalStateError("not assigned any more")

    sought: list[TP] = []
    thread = consumer._new_consumer_thread()
    monkeypatch.setattr(thread, "_ensure_consumer", Kafka)
    monkeypatch.setattr(thread, "call_thread", called)
    monkeypatch.setattr(thread, "seek_to_beginning", seek_to_beginning)
    assert await thread.seek_to_committed() == committed
    assert sought == begun_anew


async def test_a_position_that_is_just_being_looked_up_ends_no_worker(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread = consumer._new_consumer_thread()
    kafka = thread._create_worker_consumer(consumer.transport)
    kafka._closed = True  # it was never started
    thread.time_started = time.monotonic()
    place = TopicPartition(POSTS.topic, POSTS.partition)
    kafka._subscription.assign_from_user({place})
    state = kafka._subscription.subscription.assignment.state_value(place)
    state.timestamp = time.time() * 1000  # it has been asked for, and then:
    state.await_reset(OffsetResetStrategy.EARLIEST)
    kafka._fetcher = SimpleNamespace(_subscriptions=kafka._subscription)
    monkeypatch.setattr(consumer, "_thread", thread)
    monkeypatch.setattr(consumer, "assignment", lambda: {POSTS})
    monkeypatch.setattr(thread, "_ensure_consumer", lambda: kafka)
    with pytest.raises(AssertionError):
        await Consumer.verify_all_partitions_active(consumer)
    await consumer.verify_all_partitions_active()
