"""The order in which a worker stops."""

import asyncio
from typing import Any, cast

import pytest

from scheduler.ports import Outbox, Record, Wheel
from scheduler.settings import load_settings
from streams.source_log import SourceLog
from streams.worker import Worker


class App:
    """What of Faust's app a stop touches."""

    def __init__(self, events: list[str]) -> None:
        self._events = events

    async def stop(self) -> None:
        self._events.append("stopped")


def worker() -> Worker:
    settings = load_settings()
    return Worker(
        settings,
        record=cast(Record, None),
        wheel=cast(Wheel, None),
        outbox=cast(Outbox, None),
        sources={topic: cast(SourceLog, None) for topic in settings.topics.inputs},
    )


async def stopped(monkeypatch: pytest.MonkeyPatch, *failures: BaseException) -> list[str]:
    events: list[str] = []

    async def leave(_app: object) -> None:
        events.append("left")
        for failure in failures:
            raise failure

    monkeypatch.setattr("streams.worker.leave", leave)
    await stop(worker(), events)
    return events


async def stop(made: Worker, events: list[str]) -> None:
    made._app = cast(Any, App(events))
    await made._stop_app(asyncio.create_task(asyncio.sleep(0)))


class Lane:
    """Notes what a worker has it do."""

    def __init__(self) -> None:
        self.begun = False

    async def begin(self, *_: object) -> None:
        await asyncio.sleep(0)
        self.begun = True

    async def end(self, *_: object) -> None:
        self.begun = False

    async def finish(self) -> None:
        pass


async def test_the_group_is_left_before_the_rest_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await stopped(monkeypatch) == ["left", "stopped"]


async def test_it_stops_though_the_group_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await stopped(monkeypatch, RuntimeError("gone")) == ["left", "stopped"]


async def test_it_stops_though_fausts_thread_ends_under_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # What was asked of a thread's loop is cancelled when that loop ends.
    assert await stopped(monkeypatch, asyncio.CancelledError()) == ["left", "stopped"]


async def test_what_is_assigned_while_it_stops_does_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stores are closed next: a partition that is applied then would fail for no reason."""
    made = worker()
    lanes = {topic: Lane() for topic in made._lanes}
    made._lanes = cast(Any, lanes)
    assigned = {topic: frozenset([0]) for topic in lanes}
    begun_before = asyncio.create_task(made._assigned(assigned, 1))
    await asyncio.sleep(0)  # in the midst of it

    async def leave(_app: object) -> None:
        await begun_before
        await made._assigned(assigned, 2)

    monkeypatch.setattr("streams.worker.leave", leave)
    await stop(made, [])
    assert [each.begun for each in lanes.values()] == [False, False, False]
