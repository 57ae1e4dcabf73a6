"""The client's sender: whose failure is whose, where all share one producer."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from pod_automation import PodAutomation, StoreAwayError
from pod_automation.client.sender import Outgoing, Sender
from scheduler.errors import DataRefusedError, StoreUnavailableError
from scheduler.settings import load_settings
from tests.unit.test_client import EVENT

pytestmark = pytest.mark.timeout(30)

RECORD = Outgoing(0, b"key", b"value", [])


class Place:
    offset = 7


class Producer:
    """Stands for aiokafka's: what it has taken is confirmed, or not, by the test."""

    def __init__(self) -> None:
        self.sent: list[asyncio.Future[Any]] = []
        self.taken = asyncio.Event()
        self.refuses: Exception | None = None

    async def send(self, *_: object, **__: object) -> "asyncio.Future[Any]":
        if self.refuses is not None:
            raise self.refuses
        self.sent.append(asyncio.get_running_loop().create_future())
        self.taken.set()
        return self.sent[-1]


class Shared:
    """Stands for the one who holds it."""

    def __init__(self) -> None:
        self.producer = Producer()
        self.discarded = 0

    async def started(self) -> Producer:
        return self.producer

    def discard(self, _: object) -> None:
        self.discarded += 1

    async def close(self) -> None: ...


@pytest.fixture
def shared() -> Shared:
    return Shared()


@pytest.fixture
def sender(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> Sender:
    monkeypatch.setattr(
        "pod_automation.client.sender.RenewableProducer", lambda *_, **__: cast(Any, shared)
    )
    return Sender(load_settings())


async def begun(sender: Sender, shared: Shared) -> "asyncio.Task[list[int]]":
    task = asyncio.create_task(sender.send("topic", [RECORD], await sender.connect()))
    shared.producer.taken.clear()
    await shared.producer.taken.wait()
    return task


async def test_a_call_that_is_cancelled_leaves_the_others_alone(
    sender: Sender, shared: Shared
) -> None:
    one, other = await begun(sender, shared), await begun(sender, shared)
    one.cancel()
    with pytest.raises(asyncio.CancelledError):
        await one
    assert shared.discarded == 0
    shared.producer.sent[1].set_result(Place())
    assert await other == [7]


async def test_what_the_producer_itself_refuses_leaves_the_others_alone(
    sender: Sender, shared: Shared
) -> None:
    other = await begun(sender, shared)
    shared.producer.refuses = MessageSizeTooLargeError("larger than the maximum request size")
    with pytest.raises(DataRefusedError, match="larger than topic takes"):
        await sender.send("topic", [RECORD], await sender.connect())
    assert shared.discarded == 0
    shared.producer.sent[0].set_result(Place())
    assert await other == [7]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (MessageSizeTooLargeError("of the broker"), DataRefusedError),
        (KafkaConnectionError("gone"), StoreUnavailableError),
    ],
    ids=["refused", "gone"],
)
async def test_what_leaves_a_hole_renews_the_producer(
    sender: Sender, shared: Shared, error: Exception, raised: type[Exception]
) -> None:
    sending = await begun(sender, shared)
    shared.producer.sent[0].set_exception(error)
    with pytest.raises(raised):
        await sending
    assert shared.discarded == 1


async def test_a_producer_that_takes_nothing_any_more_is_renewed(
    sender: Sender, shared: Shared
) -> None:
    shared.producer.refuses = KafkaConnectionError("its sender has died")
    with pytest.raises(StoreUnavailableError):
        await sender.send("topic", [RECORD], await sender.connect())
    assert shared.discarded == 1


@pytest.mark.usefixtures("sender")
async def test_one_that_takes_too_long_is_renewed(shared: Shared) -> None:
    async with PodAutomation(timeout_s=0.05) as pods:
        with pytest.raises(StoreAwayError, match=r"no answer within 0\.05 s"):
            await pods.publish_post_detected(EVENT)
        assert shared.discarded >= 1
