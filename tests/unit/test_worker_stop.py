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


async def stopped(monkeypatch: pytest.MonkeyPatch, *failures: Exception) -> list[str]:
    events: list[str] = []

    async def leave(_app: object) -> None:
        events.append("left")
        for failure in failures:
            raise failure

    monkeypatch.setattr("streams.worker.leave", leave)
    made = worker()
    made._app = cast(Any, App(events))
    await made._stop_app(asyncio.create_task(asyncio.sleep(0)))
    return events


async def test_the_group_is_left_before_the_rest_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await stopped(monkeypatch) == ["left", "stopped"]


async def test_it_stops_though_the_group_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await stopped(monkeypatch, RuntimeError("gone")) == ["left", "stopped"]
