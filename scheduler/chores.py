"""Chores: what must be done now and then, by one process of all that could.

The processes elect one leader, which does the chores until it ends or loses its lease. Two leaders
for a moment must do no harm: a lease is a way to save work, not a lock.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog
from msgspec import Struct

from scheduler.errors import EngineError, TransientError
from scheduler.tasks import cancelled, ended

LOOK_S = 5.0
"""How often a process that does not lead tries to: the longest time without a leader."""

STOP_S = 2.0
"""How long a stop waits for a chore that is under way before it is cut off."""

log = structlog.get_logger(__name__)


class Chore(Struct, frozen=True):
    """`run` is called every `interval_s`; it may be cancelled at any time, and raise anything."""

    name: str
    interval_s: float
    run: Callable[[], Awaitable[object]]


class Lease(Protocol):
    """Leadership, which one process has at a time."""

    async def acquire(self) -> bool:
        """Become the leader; False: another one leads. Raises `StoreUnavailableError`."""

    async def lost(self) -> None:
        """Returns as soon as the lease is known to be lost."""

    async def release(self) -> None:
        """Let another one lead, within a bounded time. Never fails."""


class Chores:
    """Does the chores while it leads. Stores may be away: then it waits."""

    def __init__(self, lease: Lease, chores: Sequence[Chore], *, look_s: float = LOOK_S) -> None:
        self._lease = lease
        self._chores = chores
        self._look_s = look_s
        self._away = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then it ends within a bounded time. Raises nothing of its own."""
        if not self._chores:
            await stop.wait()
            return
        leading = asyncio.create_task(self._run(), name="chores")
        try:
            await stop.wait()
        finally:
            # Told a second time, it no longer waits for its chores.
            await ended(leading, again_s=STOP_S)
            await self._lease.release()

    async def _run(self) -> None:
        while not cancelled():
            try:
                if await self._acquired():
                    await self._lead()
                    continue
            except Exception:
                # Of the lease: whatever it is, somebody must lead again.
                log.exception("the chores are interrupted")
            await asyncio.sleep(self._look_s)

    async def _acquired(self) -> bool:
        try:
            leads = await self._lease.acquire()
        except Exception as error:
            # One line for each change of state: an hour without a store is two lines.
            if not self._away:
                bug = not isinstance(error, EngineError)
                log.warning("nobody does the chores from here", reason=str(error), exc_info=bug)
            self._away = True
            return False
        self._away = False
        return leads

    async def _lead(self) -> None:
        log.info("leads", chores=[chore.name for chore in self._chores])
        tasks = [
            asyncio.create_task(_repeat(chore), name=f"chore-{chore.name}")
            for chore in self._chores
        ]
        try:
            await self._lease.lost()
            log.warning("leads no longer")
        finally:
            await ended(*tasks)
            await self._lease.release()


async def _repeat(chore: Chore) -> None:
    while not cancelled():
        try:
            await chore.run()
        except TransientError as error:
            log.warning("chore waits", chore=chore.name, reason=str(error))
        except EngineError as error:
            # It says what to do, which a traceback would hide.
            log.error("chore fails", chore=chore.name, reason=str(error))
        except Exception:
            log.exception("chore fails", chore=chore.name)
        await asyncio.sleep(chore.interval_s)
