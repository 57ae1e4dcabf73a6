"""The dispatcher process: what becomes of a shard whose owner is interrupted."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from scheduler.dispatch import Turn
from scheduler.dispatcher import Dispatcher, Unobserved
from scheduler.errors import FencedError, StoreUnavailableError, WheelLostError


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
    """Fires once, or raises what it was told to; then it is idle."""

    def __init__(self, site: "Site", error: BaseException | None) -> None:
        self._site = site
        self._error = error

    async def take(self, *, rebuild: bool) -> bool:
        self._site.takes.append(rebuild)
        return rebuild

    async def run_once(self) -> Turn:
        if self._error is not None:
            raise self._error
        self._site.fired.set()
        return Turn((), None)

    async def project(self) -> None:
        await asyncio.Event().wait()

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        self._site.closed += 1


class Seen(Unobserved):
    """What an observer is told of shards."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def taken(self, shard: int, *, rebuilt: bool) -> None:
        self.told.append(f"taken {shard}{' rebuilt' if rebuilt else ''}")

    def left(self, shard: int) -> None:
        self.told.append(f"left {shard}")


class Site:
    def __init__(self, *errors: BaseException) -> None:
        self._errors = list(errors)
        self.takes: list[bool] = []
        self.closed = 0
        self.fired = asyncio.Event()
        self.seen = Seen()

    def open(self, shard: int) -> Any:
        return Owner(self, self._errors.pop(0) if self._errors else None)

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


async def test_a_bug_ends_the_process() -> None:
    site = Site(ValueError("a bug"))
    with pytest.raises(ValueError, match="a bug"):
        await fires_again(site)
