"""Who does the chores, and what one that fails, hangs or swallows its end does to the others."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from scheduler import chores as module
from scheduler.chores import Chore, Chores
from scheduler.errors import PermanentError, StoreUnavailableError

pytestmark = pytest.mark.timeout(20)


class Count:
    """A number that can be waited for."""

    def __init__(self) -> None:
        self.value = 0
        self._waiting: list[tuple[int, asyncio.Event]] = []

    def up(self) -> None:
        self.value += 1
        for least, event in self._waiting:
            if self.value >= least:
                event.set()

    async def reaches(self, least: int) -> None:
        event = asyncio.Event()
        self._waiting.append((least, event))
        if self.value < least:
            await event.wait()


class Office:
    """Where the lease is: one holder at a time, and it may be away."""

    def __init__(self) -> None:
        self.holder: Desk | None = None
        self.away: Exception | None = None
        self.tries = Count()


class Desk:
    """The lease of one process."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._lost = asyncio.Event()

    async def acquire(self) -> bool:
        self._office.tries.up()
        if self._office.away:
            raise self._office.away
        if self._office.holder is None:
            self._office.holder = self
            self._lost = asyncio.Event()
        return self._office.holder is self

    async def lost(self) -> None:
        await self._lost.wait()

    async def release(self) -> None:
        if self._office.holder is self:
            self._office.holder = None

    def lose(self) -> None:
        self._office.holder = None
        self._lost.set()


class Work:
    """A chore that counts, and does what it is told each time."""

    def __init__(self, *does: Callable[[], Awaitable[None]]) -> None:
        self._does = list(does)
        self.begun = Count()
        self.ended = Count()

    async def __call__(self) -> None:
        self.begun.up()
        try:
            if self._does:
                await self._does.pop(0)()
        finally:
            self.ended.up()


def raising(error: Exception) -> Callable[[], Awaitable[None]]:
    async def fail() -> None:
        raise error

    return fail


async def for_ever() -> None:
    await asyncio.Event().wait()


@asynccontextmanager
async def running(desk: Desk, *work: Work) -> AsyncIterator[asyncio.Event]:
    """Chores that are due again and again; all of them have ended in the end."""
    stop = asyncio.Event()
    chores = Chores(desk, [Chore(f"c{n}", 0.001, each) for n, each in enumerate(work)], look_s=0.01)
    task = asyncio.create_task(chores.run(stop))
    try:
        yield stop
    finally:
        stop.set()
        await task


async def turns(office: Office, count: int) -> None:
    """Returns after so many more tries to get the lease."""
    await office.tries.reaches(office.tries.value + count)


async def test_the_leader_alone_does_them_and_hands_over() -> None:
    office = Office()
    first, second = Work(), Work()
    async with running(Desk(office), first) as stop:
        await first.begun.reaches(3)
        async with running(Desk(office), second):
            await turns(office, 3)
            assert second.begun.value == 0
            stop.set()
            await second.begun.reaches(3)
            after = first.begun.value
            await second.begun.reaches(6)
            assert first.begun.value == after
    assert office.holder is None


async def test_who_has_lost_the_lease_stops_at_once() -> None:
    office = Office()
    work = Work(for_ever)
    desk = Desk(office)
    async with running(desk, work):
        await work.begun.reaches(1)
        office.holder = other = Desk(office)
        desk._lost.set()
        await turns(office, 2)
        assert (work.begun.value, work.ended.value) == (1, 1)
        other.lose()
        await work.begun.reaches(2)


@pytest.mark.parametrize(
    "error",
    [StoreUnavailableError("PostgreSQL", "gone"), PermanentError("do this"), ZeroDivisionError()],
    ids=lambda each: type(each).__name__,
)
async def test_what_fails_is_done_again_and_hinders_no_other(error: Exception) -> None:
    failing, hanging, other = Work(*[raising(error)] * 3), Work(for_ever), Work()
    async with running(Desk(Office()), failing, hanging, other):
        await failing.begun.reaches(5)
        await other.begun.reaches(5)
        assert hanging.begun.value == 1


@pytest.mark.parametrize(
    "error",
    [StoreUnavailableError("PostgreSQL", "gone"), PermanentError("login"), ZeroDivisionError()],
    ids=lambda each: type(each).__name__,
)
async def test_a_lease_that_cannot_be_had_is_asked_for_again(error: Exception) -> None:
    office = Office()
    office.away = error
    work = Work()
    async with running(Desk(office), work):
        await turns(office, 3)
        assert work.begun.value == 0
        office.away = None
        await work.begun.reaches(1)


async def test_a_chore_that_will_not_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STOP_S", 0.01)
    let_go = asyncio.Event()

    async def stubborn() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    work = Work(stubborn)
    async with running(Desk(Office()), work):
        await work.begun.reaches(1)
    assert work.ended.value == 0
    let_go.set()
    await work.ended.reaches(1)


async def test_a_swallowed_cancellation_ends_the_loop_all_the_same() -> None:
    async def swallow() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    work = Work(swallow)
    async with running(Desk(Office()), work):
        await work.begun.reaches(1)
    assert (work.begun.value, work.ended.value) == (1, 1)


async def test_without_chores_nobody_asks_for_the_lease() -> None:
    office = Office()
    async with running(Desk(office)):
        for _ in range(10):
            await asyncio.sleep(0)
    assert office.tries.value == 0


async def test_a_lease_that_fails_in_a_new_way_is_taken_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk, work = Desk(Office()), Work()
    failures = [RuntimeError("what no driver says")]
    lost = desk.lost

    async def fails_once() -> None:
        if failures:
            raise failures.pop()
        await lost()

    monkeypatch.setattr(desk, "lost", fails_once)
    async with running(desk, work):
        await desk._office.tries.reaches(2)
        await work.begun.reaches(work.begun.value + 1)
