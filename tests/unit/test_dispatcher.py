"""The dispatcher process: what becomes of a shard whose owner is interrupted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from scheduler.dispatch import Turn
from scheduler.dispatcher import Dispatcher, Unobserved
from scheduler.errors import (
    EngineError,
    FencedError,
    PermanentError,
    SettingsError,
    StoreUnavailableError,
    WheelLostError,
)


class Group:
    """Gives shard 0, once."""

    def __init__(self) -> None:
        self.assigned: frozenset[int] = frozenset()

    async def changed(self) -> frozenset[int]:
        if self.assigned:
            await asyncio.Event().wait()
        self.assigned = frozenset({0})
        return self.assigned

    async def close(self) -> None:
        pass


class Wakes:
    @asynccontextmanager
    async def wakes(self, shards: Sequence[int]) -> AsyncIterator[AsyncIterator[int]]:
        async def never() -> AsyncIterator[int]:
            await asyncio.Event().wait()
            yield 0

        yield never()


class Owner:
    """Fires once, or raises what it was told to, by the step it is told for; then it is idle."""

    def __init__(self, site: "Site", error: BaseException | None, step: str) -> None:
        self._site = site
        self._error = error
        self._step = step
        self._number = site.opened

    async def take(self, *, rebuild: bool) -> bool:
        self._site.takes.append(rebuild)
        self._raise("take")
        return rebuild

    async def catch_up(self) -> None:
        self._site.caught_up += 1
        self._raise("catch_up")

    async def run_once(self) -> Turn:
        self._raise("run_once")
        self._site.firing.add(self._number)
        if self._error is None:
            self._site.fired.set()
        return Turn((), None)

    async def project(self) -> None:
        self._raise("project")
        await asyncio.Event().wait()

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        self._site.closed += 1

    def _raise(self, step: str) -> None:
        if self._error is not None and self._step == step:
            raise self._error


class Seen(Unobserved):
    """What an observer is told of shards."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def taken(self, shard: int, *, rebuilt: bool) -> None:
        self.told.append(f"taken {shard}{' rebuilt' if rebuilt else ''}")

    def left(self, shard: int) -> None:
        self.told.append(f"left {shard}")


class Site:
    def __init__(self, *errors: BaseException | tuple[str, BaseException]) -> None:
        """`errors` of the owners in turn, each with the step that raises it, if not `run_once`."""
        self._errors = [each if isinstance(each, tuple) else ("run_once", each) for each in errors]
        self.takes: list[bool] = []
        self.opened = self.closed = self.caught_up = 0
        self.firing: set[int] = set()
        """Which owners have had a turn, from 1 on."""
        self.fired = asyncio.Event()
        self.seen = Seen()

    def open(self, shard: int) -> Any:
        self.opened += 1
        step, error = self._errors.pop(0) if self._errors else ("", None)
        return Owner(self, error, step)

    def dispatcher(self) -> Dispatcher:
        group: Any = Group()
        wheel: Any = Wakes()
        return Dispatcher(
            group, wheel, self.open, partitions=1, fenced_wait_s=0.0, observer=self.seen
        )


async def fires_again(site: Site) -> None:
    """Runs it until it fires, and stops it in order."""
    stop = asyncio.Event()
    running = asyncio.create_task(site.dispatcher().run(stop))
    fired = asyncio.create_task(site.fired.wait())
    await asyncio.wait([running, fired], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await running


@pytest.mark.parametrize(
    "error",
    [
        StoreUnavailableError("Kafka", "away"),
        FencedError(0, "epoch"),
    ],
    ids=["away", "fenced"],
)
async def test_an_interrupted_shard_is_taken_anew(error: BaseException) -> None:
    site = Site(error)
    await fires_again(site)
    assert site.takes == [False, False]
    assert site.closed == 2


async def test_a_lost_wheel_is_rebuilt_once() -> None:
    site = Site(WheelLostError(0), StoreUnavailableError("Redis", "away"))
    await fires_again(site)
    assert site.takes == [False, True, False]
    assert site.seen.told == [
        *("taken 0", "left 0"),
        *("taken 0 rebuilt", "left 0"),
        *("taken 0", "left 0"),
    ]


async def test_a_wheel_that_another_may_have_built_meanwhile_is_not_built_again() -> None:
    site = Site(WheelLostError(0), ("take", FencedError(0, "epoch")))
    await fires_again(site)
    assert site.takes == [False, True, False]


async def test_a_shard_that_is_refused_is_told_once_and_not_fired_until_it_is_mended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("scheduler.dispatcher.REFUSED_WAIT_S", 0.0)
    error = PermanentError("created anew")
    steps = ("project", "catch_up", "take", "catch_up")
    site = Site(*((step, error) for step in steps))
    with capture_logs() as logs:
        await fires_again(site)
    assert [each["error"] for each in logs if each["log_level"] == "error"] == ["created anew"]
    assert site.firing == {1, 5}
    assert site.caught_up == 3


@pytest.mark.parametrize("error", [EngineError("no access"), SettingsError("no database")])
async def test_what_is_wrong_for_all_shards_ends_the_process(error: EngineError) -> None:
    site = Site(("project", error))
    with pytest.raises(EngineError, match=str(error)):
        await fires_again(site)


async def test_a_bug_ends_the_process() -> None:
    site = Site(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await fires_again(site)
