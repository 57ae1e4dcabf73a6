"""How many turns of the event loop a record takes on its way through Faust."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from streams.app import RECORDS_PER_TURN


class Queue:
    """A stream's queue, as far as it is asked here."""

    def __init__(self, *, full: bool) -> None:
        self._full = full

    def full(self) -> bool:
        return self._full


def let_flow(consumer: Any, monkeypatch: pytest.MonkeyPatch, *, full: bool) -> None:
    consumer.resume_flow()
    consumer.app.flow_control.resume()
    topics = [SimpleNamespace(queue=Queue(full=False)), SimpleNamespace(queue=Queue(full=full))]
    monkeypatch.setattr(consumer.app, "topics", topics)


async def test_a_record_with_room_in_the_stream_is_handed_over_at_once(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks: list[int] = []

    async def taken() -> None:
        tasks.append(len(asyncio.all_tasks()))

    let_flow(consumer, monkeypatch, full=False)
    before = len(asyncio.all_tasks())
    await consumer.wait_first(taken(), consumer.suspend_flow.wait())
    assert tasks == [before]


async def test_what_goes_wrong_with_it_is_raised(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> None:
        raise RuntimeError("a bug")

    let_flow(consumer, monkeypatch, full=False)
    with pytest.raises(RuntimeError, match="a bug"):
        await consumer.wait_first(broken(), consumer.suspend_flow.wait())


async def test_a_record_that_waits_for_room_is_given_up_when_the_flow_is_suspended(
    consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.Event()

    async def never() -> None:
        waiting.set()
        await asyncio.Event().wait()

    let_flow(consumer, monkeypatch, full=True)
    handing = asyncio.create_task(consumer.wait_first(never(), consumer.suspend_flow.wait()))
    await waiting.wait()
    consumer.suspend_flow.set()
    await handing


@pytest.mark.parametrize("what", ["consumer", "streams"])
async def test_while_the_flow_is_suspended_a_record_may_be_given_up(
    consumer: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    let_flow(consumer, monkeypatch, full=False)
    assert consumer._has_room()
    if what == "consumer":
        consumer.flow_active = False
    else:
        consumer.app.flow_control.suspend()
    assert not consumer._has_room()


async def test_a_stream_takes_many_records_in_one_turn(consumer: Any) -> None:
    app, turns, records = consumer.app, 0, 3 * RECORDS_PER_TURN
    app.flow_control.resume()
    channel = app.channel()

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    stream = app.stream(channel)
    for number in range(records):
        await channel.put(number)
    beside = asyncio.create_task(others())
    taken = []
    async for number in stream:
        taken.append(number)
        if len(taken) == records:
            break
    beside.cancel()
    assert taken == list(range(records))
    # Some go by as it starts; without this it is at least one for each record.
    assert 2 <= turns < records / 2
