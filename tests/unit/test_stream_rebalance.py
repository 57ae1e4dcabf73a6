"""What Faust does when its group hands partitions over: how long it waits, where it goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import OffsetResetStrategy
from aiokafka.errors import GroupAuthorizationFailedError, IllegalStateError
from faust.transport.consumer import Consumer
from faust.types import TP

from streams.app import FETCH_WAIT_MS, POLL_S, _Consumer, check_alive, generation

POSTS, RESULTS = TP("posts", 0), TP("results", 0)


def with_kafka(consumer: Any, monkeypatch: pytest.MonkeyPatch, *assigned: TP) -> tuple[Any, Any]:
    """A thread of Faust's, and aiokafka's consumer in it: not started, with these partitions."""
    thread = consumer._new_consumer_thread()
    kafka = thread._create_worker_consumer(consumer.transport)
    kafka._closed = True  # it was never started
    kafka._fetcher = SimpleNamespace(_subscriptions=kafka._subscription)
    kafka._subscription.subscribe(topics={POSTS.topic, RESULTS.topic})
    kafka._subscription.assign_from_subscribed({TopicPartition(*each) for each in assigned})

    async def called(function: Any, *arguments: Any) -> Any:
        return await function(*arguments)

    monkeypatch.setattr(thread, "_ensure_consumer", lambda: kafka)
    monkeypatch.setattr(thread, "call_thread", called)
    return thread, kafka


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
    thread, kafka = with_kafka(consumer, monkeypatch, POSTS)
    thread.time_started = time.monotonic()
    place = TopicPartition(POSTS.topic, POSTS.partition)
    state = kafka._subscription.subscription.assignment.state_value(place)
    state.timestamp = time.time() * 1000  # it has been asked for, and then:
    state.await_reset(OffsetResetStrategy.EARLIEST)
    monkeypatch.setattr(consumer, "_thread", thread)
    monkeypatch.setattr(consumer, "assignment", lambda: {POSTS})
    with pytest.raises(AssertionError):
        await Consumer.verify_all_partitions_active(consumer)
    await consumer.verify_all_partitions_active()


async def test_a_commit_of_what_was_given_away_meanwhile_is_none(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, kafka = with_kafka(consumer, monkeypatch, RESULTS)
    committed = []

    async def commit(offsets: Any) -> None:
        committed.append(dict(offsets))

    monkeypatch.setattr(kafka, "commit", commit)
    assert not await thread._commit({POSTS: 7})
    assert committed == []
    assert await thread._commit({POSTS: 7, RESULTS: 3})
    assert [list(each) for each in committed] == [[TopicPartition(RESULTS.topic, 0)]]


async def test_a_seek_with_nothing_left_to_seek_waits_for_the_next_rebalance(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, _ = with_kafka(consumer, monkeypatch)
    with pytest.raises(IllegalStateError):
        await thread.seek_to_committed()


async def test_nothing_flows_while_partitions_are_being_assigned(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    flowed = []

    async def assigned(*_: Any, **__: Any) -> None:
        flowed.append((consumer.flow_active, consumer.app.flow_control.is_active()))

    monkeypatch.setattr(consumer, "_on_partitions_assigned", assigned)
    # As it is for a member that has had none.
    consumer.resume_flow()
    consumer.app.flow_control.resume()
    consumer.app.on_rebalance_start()
    await consumer.on_partitions_assigned({POSTS}, 5)
    assert flowed == [(False, False)]


class Rebalanced:
    """Faust's part behind a rebalance, with a seek that takes as long as the test wants."""

    def __init__(self, consumer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.app, self.consumer = consumer.app, consumer
        self.recovery = consumer.app.tables.recovery
        self.seek = asyncio.Event()
        self.told: list[int] = []
        self._done = asyncio.Condition()

        async def perform_seek() -> None:
            await self.seek.wait()

        async def complete(*_: Any, **__: Any) -> None:
            async with self._done:
                self.told.append(self.app.consumer_generation_id)
                self._done.notify_all()

        async def nothing() -> None: ...

        monkeypatch.setattr(consumer, "perform_seek", perform_seek)
        monkeypatch.setattr(consumer, "assignment", lambda: {POSTS})
        monkeypatch.setattr(self.app._fetcher, "maybe_start", nothing)
        monkeypatch.setattr(self.app.assignor, "assigned_standbys", set)
        monkeypatch.setattr(self.app.assignor, "assigned_actives", set)
        self.app.on_rebalance_complete.connect(complete, weak=False)

    async def assign(self, generation: int) -> None:
        """Until the assignment is told, and what is left is the seek."""
        self.app.consumer_generation_id = generation
        self.app.on_rebalance_start()
        self.consumer.stop_flow()
        await self.recovery.on_rebalance({POSTS}, set(), set(), generation)
        async with self._done:
            await self._done.wait_for(lambda: generation in self.told)

    async def flows(self) -> None:
        await self.consumer.can_resume_flow.wait()


@pytest.fixture
async def rebalanced(consumer: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rebalanced]:
    made = Rebalanced(consumer, monkeypatch)
    await made.recovery.start()
    yield made
    await made.recovery.stop()


async def test_a_seek_may_take_longer_than_a_request(rebalanced: Rebalanced) -> None:
    rebalanced.app.conf.broker_request_timeout = 0.01
    began = asyncio.Event()
    await rebalanced.assign(5)
    asyncio.get_running_loop().call_later(0.1, began.set)
    await began.wait()
    assert not rebalanced.consumer.flow_active
    rebalanced.seek.set()
    await rebalanced.flows()
    # And the next one is seen to as well.
    await rebalanced.assign(6)
    await rebalanced.flows()


async def test_a_seek_that_ends_in_the_next_rebalance_lets_nothing_flow(
    rebalanced: Rebalanced,
) -> None:
    await rebalanced.assign(5)
    rebalanced.app.on_rebalance_start()  # the next one has begun
    rebalanced.seek.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not rebalanced.consumer.flow_active
    assert rebalanced.app.rebalancing
    await rebalanced.assign(6)
    await rebalanced.flows()
    assert not rebalanced.app.rebalancing


async def test_an_app_that_only_connects_yet_is_alive(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, thread = consumer.app, consumer._new_consumer_thread()
    kafka = thread._create_worker_consumer(consumer.transport)
    kafka._closed = True  # it was never started
    monkeypatch.setattr(consumer, "_thread", thread)
    check_alive(app)
    assert generation(app) is None
    thread._consumer = kafka
    assert kafka._coordinator is None
    check_alive(app)
    assert generation(app) is None


async def test_an_error_that_nobody_polls_for_is_raised(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, kafka = with_kafka(consumer, monkeypatch)
    thread._consumer = kafka
    kafka._coordinator = SimpleNamespace(_pending_exception=None, _coordination_task=None)
    kafka._fetcher = None
    monkeypatch.setattr(consumer, "_thread", thread)
    check_alive(consumer.app)
    kafka._coordinator._pending_exception = GroupAuthorizationFailedError("group")
    with pytest.raises(GroupAuthorizationFailedError):
        check_alive(consumer.app)


async def test_the_generation_is_known_from_its_assignment_to_the_next_rebalance(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread, kafka = with_kafka(consumer, monkeypatch)  # without a partition, which is one too
    thread._consumer = kafka
    kafka._coordinator = SimpleNamespace(generation=5)
    monkeypatch.setattr(consumer, "_thread", thread)
    assert generation(consumer.app) == 5
    kafka._coordinator.generation = -1
    assert generation(consumer.app) is None
    kafka._coordinator.generation = 6
    kafka._subscription.begin_reassignment()
    assert generation(consumer.app) is None


async def test_a_rebalance_in_its_end_leaves_the_consumer_to_whoever_ends_it(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(consumer, "close", lambda: closed.append(True))
    consumer.app._stopped.set()
    consumer.app.on_rebalance_start()
    await consumer.on_partitions_revoked({POSTS})
    await consumer.on_partitions_assigned({POSTS}, 5)
    assert closed == []
