"""The order in which a worker stops, and what it ends of."""

import asyncio
from typing import Any, cast

import pytest
from aiokafka.errors import KafkaConnectionError

from scheduler.ports import Outbox, Record, Wheel
from scheduler.settings import load_settings
from streams.source_log import SourceLog
from streams.stall import Progress, StallDetector
from streams.watchdog import EXIT_STALLED
from streams.worker import Worker, WorkerCrashedError


class App:
    """What of Faust's app a stop touches."""

    crash_reason = None

    def __init__(self, events: list[str]) -> None:
        self._events = events
        self._crashed = asyncio.Event()

    async def start(self) -> None:
        await asyncio.Event().wait()

    async def stop(self) -> None:
        self._events.append("stopped")


def worker(**options: Any) -> Worker:
    settings = load_settings()
    return Worker(
        settings,
        record=cast(Record, None),
        wheel=cast(Wheel, None),
        outbox=cast(Outbox, None),
        sources={topic: cast(SourceLog, None) for topic in settings.topics.inputs},
        **options,
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


async def test_it_ends_when_faust_is_cut_off_from_the_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []

    def check_alive(_app: object) -> None:
        raise KafkaConnectionError("a task has ended")

    async def leave(_app: object) -> None:
        events.append("left")

    monkeypatch.setattr("streams.worker.build_app", lambda *_, **__: App(events))
    monkeypatch.setattr("streams.worker.check_alive", check_alive)
    monkeypatch.setattr("streams.worker.check_replaced", lambda _: None)
    monkeypatch.setattr("streams.worker.leave", leave)
    monkeypatch.setattr("streams.worker.GROUP_LOOK_S", 0)
    with pytest.raises(WorkerCrashedError, match="a task has ended"):
        await worker().run(asyncio.Event())
    assert events == ["left", "stopped"]


async def test_it_ends_when_partitions_are_assigned_and_do_not_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()

    def end(code: int, reason: str, _: BaseException | None) -> None:
        if not ended.done():
            ended.set_result((code, reason))

    at: list[int | None] = [4]
    monkeypatch.setattr("streams.worker.generation", lambda _: at[0])
    made = worker(end=end)
    made._app = cast(Any, App([]))
    made._lanes = {}
    for generation, begun, missing in ((None, 4, False), (4, 4, False), (5, 4, True)):
        at[0], made._begun = generation, begun
        detector: StallDetector[str] = StallDetector(60)
        assert not detector.stalled(0, made._begins())
        assert bool(detector.stalled(60, made._begins())) == missing
    monkeypatch.setattr("streams.worker.LOOKS_PER_STALL", 1e6)
    monkeypatch.setattr("streams.worker.StallDetector", lambda _: StallDetector(0))
    watching = asyncio.create_task(made._watch_lag())
    assert (await ended)[0] == EXIT_STALLED
    watching.cancel()
    await asyncio.wait([watching])


async def test_what_has_begun_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    made = worker()
    lane = Lane()
    made._lanes = {topic: cast(Any, lane) for topic in made._lanes}
    await made._assigned(dict.fromkeys(made._lanes, frozenset({1})), 7)
    made._app = cast(Any, App([]))
    monkeypatch.setattr("streams.worker.generation", lambda _: 7)
    assert made._begins() == {"group": Progress(7, 7, busy=False)}
