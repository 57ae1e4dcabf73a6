"""What is added to aiokafka's coordinator and client: what it does not expect."""

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import aiokafka.consumer.consumer
import aiokafka.producer.producer
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    KafkaConnectionError,
    NodeNotReadyError,
    NotCoordinatorForGroupError,
)
from aiokafka.protocol.commit import OffsetFetchResponse_v3

from scheduler.adapters.kafka_acked import acked
from scheduler.adapters.kafka_consumer import check_tasks
from scheduler.adapters.kafka_member import check_alive, member, rejoining
from scheduler.errors import StoreUnavailableError
from scheduler.settings import load_settings

PLACE = TopicPartition("posts", 0)
ANSWER = OffsetFetchResponse_v3(0, [("posts", [(0, 7, "", 0)])], 0)


def refused(code: int) -> OffsetFetchResponse_v3:
    """As a broker says it that knows of no partition what is committed."""
    return OffsetFetchResponse_v3(0, [], code)


@pytest.fixture
async def coordinator() -> AsyncIterator[Any]:
    """Of a member that is in its group, without its own task and its broker."""
    client = SimpleNamespace(cluster=SimpleNamespace(add_listener=lambda _: None))
    made: Any = aiokafka.consumer.consumer.GroupCoordinator(
        client, SubscriptionState(), group_id="group", retry_backoff_ms=1
    )
    made._coordination_task.cancel()
    made.coordinator_id = 1
    assert isinstance(made, GroupCoordinator)
    yield made
    await asyncio.wait([made._coordination_task])


def answering(coordinator: Any, *answers: OffsetFetchResponse_v3) -> None:
    left = iter(answers)

    async def send(*_: Any, **__: Any) -> OffsetFetchResponse_v3:
        return next(left)

    async def known() -> None:
        coordinator.coordinator_id = 1

    coordinator._client.send = send
    coordinator.ensure_coordinator_known = known


@pytest.mark.parametrize(
    ("error", "asks_who_it_is"),
    [
        (GroupLoadInProgressError, False),
        (GroupCoordinatorNotAvailableError, True),
        (NotCoordinatorForGroupError, True),
    ],
)
async def test_a_broker_that_does_not_know_what_is_committed_is_asked_again(
    coordinator: Any, monkeypatch: pytest.MonkeyPatch, error: Any, asks_who_it_is: bool
) -> None:
    dead = []
    monkeypatch.setattr(coordinator, "coordinator_dead", lambda: dead.append(True))
    answering(coordinator, refused(error.errno), ANSWER)
    found = await coordinator.fetch_committed_offsets([PLACE])
    assert found[PLACE].offset == 7
    assert bool(dead) == asks_who_it_is


async def test_who_may_not_know_what_is_committed_is_told(coordinator: Any) -> None:
    answering(coordinator, refused(GroupAuthorizationFailedError.errno))
    with pytest.raises(GroupAuthorizationFailedError):
        await coordinator.fetch_committed_offsets([PLACE])


@pytest.mark.parametrize(
    "error",
    [GroupLoadInProgressError, GroupCoordinatorNotAvailableError, NotCoordinatorForGroupError],
)
async def test_what_a_group_has_acked_is_not_nothing_where_a_broker_does_not_know(
    monkeypatch: pytest.MonkeyPatch, error: Any
) -> None:
    answers = iter([ANSWER, refused(error.errno)])

    async def nothing(_: Any) -> None: ...

    async def coordinator_of(*_: Any) -> int:
        return 1

    async def answered(*_: Any, **__: Any) -> OffsetFetchResponse_v3:
        return next(answers)

    monkeypatch.setattr(AIOKafkaAdminClient, "start", nothing)
    monkeypatch.setattr(AIOKafkaAdminClient, "close", nothing)
    monkeypatch.setattr(AIOKafkaAdminClient, "find_coordinator", coordinator_of)
    monkeypatch.setattr(AIOKafkaAdminClient, "_send_request", answered)
    kafka = load_settings().kafka
    assert await acked(kafka, "group", ["posts"]) == {"posts": {0: 6}}
    with pytest.raises(StoreUnavailableError):
        await acked(kafka, "group", ["posts"])


@pytest.mark.parametrize("module", [aiokafka.consumer.consumer, aiokafka.producer.producer])
async def test_a_cluster_that_names_no_broker_is_asked_again(module: Any) -> None:
    client = module.AIOKafkaClient()
    with pytest.raises(NodeNotReadyError) as raised:  # which a producer, too, asks again behind
        await client.coordinator_lookup(0, "group")
    assert raised.value.retriable


@pytest.fixture
async def consumer() -> AIOKafkaConsumer:
    """A member that was never started: it has what it has only then by hand."""
    made = member(load_settings().kafka, "group", 6_000)
    made._closed = True
    return made


async def test_a_member_whose_coordination_has_ended_is_not_alive(
    consumer: Any, coordinator: Any
) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    async def fails() -> None:
        raise AssertionError("of the library")

    consumer._coordinator = coordinator
    coordinator._coordination_task = running = asyncio.create_task(forever())
    check_alive(consumer)
    coordinator._coordination_task = ended = asyncio.create_task(fails())
    await asyncio.wait([ended])
    with pytest.raises(KafkaConnectionError, match="of the library"):
        check_alive(consumer)
    running.cancel()
    await asyncio.wait([running])
    coordinator._coordination_task = running
    with pytest.raises(KafkaConnectionError):
        check_tasks(consumer)


async def test_a_member_rejoins_from_the_beginning_of_a_rebalance_to_its_end(
    consumer: Any,
) -> None:
    assert rejoining(consumer)
    consumer.subscribe(["posts"])
    assert rejoining(consumer)
    consumer._subscription.assign_from_subscribed({PLACE})
    assert not rejoining(consumer)
    consumer._subscription.begin_reassignment()
    assert rejoining(consumer)
