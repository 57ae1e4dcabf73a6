"""The dispatcher process: keeps the shards that the group gives it.

Each shard is a task of its own, so that a stalled one never blocks another; a rebalance leaves
alone the shards that stay.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from scheduler.backoff import Backoff
from scheduler.dispatch import ShardDispatcher, Turn
from scheduler.errors import (
    FencedError,
    PermanentError,
    SettingsError,
    TransientError,
    WheelLostError,
)
from scheduler.ports import ShardGroup, Wheel
from scheduler.tasks import ended

log = structlog.get_logger(__name__)

IDLE_MS = 1000
"""Longest sleep of an idle shard, whom adds wake: bounds how late it sees that a wheel has gone
back in time, or is lost while nothing is added."""

HANDOVER_S = 1.0
"""How long a shard that is given away goes on firing at most, until its next owner takes it."""

HANDOVER_LOOK_S = 0.1
"""How soon it notices then that it was taken, with nothing due."""

FLUSH_S = 1.0
"""How long a shard that is given away may go on projecting; its next owner does the rest."""

REFUSED_WAIT_S = 30.0
"""How soon a shard whose stores contradict each other is looked at again: an operator is needed."""

STOP_S = 3.0
"""How long an orderly stop waits for a shard's transaction before it is cut off (which is safe)."""


class Observer(Protocol):
    """Told of what the shards of this process do."""

    def taken(self, shard: int, *, rebuilt: bool) -> None:
        """`shard` is ours, after its wheel was `rebuilt` or not."""

    def left(self, shard: int) -> None:
        """`shard` is ours no longer, or is to be taken anew."""

    def turned(self, shard: int, turn: Turn) -> None:
        """`shard` has had `turn`, in which something was fired or given up."""


class Unobserved:
    """An `Observer` that looks away."""

    def taken(self, shard: int, *, rebuilt: bool) -> None:
        """See `Observer.taken`."""

    def left(self, shard: int) -> None:
        """See `Observer.left`."""

    def turned(self, shard: int, turn: Turn) -> None:
        """See `Observer.turned`."""


@dataclass(slots=True)
class _Kept:
    task: asyncio.Task[None]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    assigned: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with each assignment, whether it stays by it or is to be given away."""
    lost: bool = False
    """Whether the wheel was found lost, and has not been rebuilt since."""
    interrupted: bool = False
    """Whether it was told that it waits for a store, and has not been taken since."""
    refused: str = ""
    """Why it is not fired until an operator has mended it."""

    @property
    def leaving(self) -> bool:
        """Whether the shard is to be given away."""
        return self.left.is_set()

    def leave(self) -> None:
        """Give it away."""
        if not self.leaving:
            self.left.set()
            self.assigned.set()
            self.wake.set()


class Dispatcher:
    """Runs until told to stop; every store may come and go meanwhile."""

    def __init__(
        self,
        group: ShardGroup,
        wheel: Wheel,
        open_shard: Callable[[int], ShardDispatcher],
        *,
        partitions: int,
        fenced_wait_s: float,
        observer: Observer | None = None,
    ) -> None:
        """`open_shard` makes an owner, to be used once. `fenced_wait_s`: when to look whether a
        shard that another took is ours after all."""
        self._group = group
        self._wheel = wheel
        self._open_shard = open_shard
        self._partitions = partitions
        self._fenced_wait_s = fenced_wait_s
        self._observer = observer or Unobserved()
        self._kept: dict[int, _Kept] = {}
        self._owned_changed = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the assigned shards until `stop` is set, then give them away in order.

        Raises only what is a bug; shards in mid-transaction are then left to their next owner.
        """
        loops = [
            asyncio.create_task(self._follow_group(), name="group"),
            asyncio.create_task(self._listen(), name="wakes"),
        ]
        stopped = asyncio.create_task(stop.wait(), name="stop")
        try:
            while not stopped.done():
                running = [stopped, *loops, *(kept.task for kept in self._kept.values())]
                changed = asyncio.create_task(self._owned_changed.wait())
                await asyncio.wait([*running, changed], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                self._owned_changed.clear()
                for task in running[1:]:
                    if task.cancelled():
                        raise RuntimeError(f"task {task.get_name()} was cancelled from within")
                    if task.done():
                        # Only a shard that was given away ends: whatever this raises is a bug.
                        task.result()
                for shard, kept in list(self._kept.items()):
                    if kept.task.done():
                        kept.task.result()  # it may have come after this wait had begun
                        del self._kept[shard]
            # The group first: while its other members hear of it and take the shards, these go on
            # firing here, so nothing waits for what is left to be done.
            await ended(loops[0])
            leaving = asyncio.create_task(self._group.close(), name="leave-group")
            await self._leave()
            await leaving
        finally:
            stopped.cancel()
            await ended(*loops, *(kept.task for kept in self._kept.values()))

    async def _follow_group(self) -> None:
        backoff = Backoff()
        while True:
            try:
                assigned = await self._group.changed()
            except TransientError as error:
                log.warning("the group is not reachable", error=str(error))
                await backoff.wait()
                continue
            backoff.reset()
            self._assign(assigned)
            log.info("shards assigned", shards=sorted(assigned))
            self._owned_changed.set()

    def _assign(self, assigned: Collection[int]) -> None:
        """Act on the difference alone; what was revoked and is ours again never pauses."""
        for shard in sorted(assigned):
            kept = self._kept.get(shard)
            if kept is None or kept.task.done():
                self._kept[shard] = _Kept(
                    asyncio.create_task(self._keep(shard), name=f"shard-{shard}")
                )
            else:
                # It may still be giving it away.
                kept.left.clear()
                kept.assigned.set()
        for shard, kept in self._kept.items():
            if shard not in assigned:
                # Nobody waits for it: a shard that hangs here fires elsewhere all the same.
                kept.leave()

    async def _leave(self) -> None:
        kept = list(self._kept.values())
        for each in kept:
            each.leave()
        if kept:
            await asyncio.wait([each.task for each in kept], timeout=STOP_S)
        await ended(*(each.task for each in kept))
        self._kept.clear()

    async def _keep(self, shard: int) -> None:
        """Own `shard` for as long as it is assigned."""
        kept = self._kept[shard]
        backoff = Backoff()
        while not kept.leaving:
            try:
                await self._own(shard, kept, backoff)
            except FencedError as error:
                # Quietly: the other owner is the rightful one, unless it was a zombie's last move.
                # Then nobody else fires this shard, so look again once its session is over, or as
                # soon as the group says that the shard is still ours: that is its answer to the
                # zombie, who has joined it anew.
                log.info("shard given up", shard=shard, reason=str(error))
                # The other one may have built the wheel; who takes it sees whether it is lost.
                kept.lost = False
                kept.assigned.clear()
                if not kept.leaving:
                    await _passed(kept.assigned, self._fenced_wait_s)
            except SettingsError:
                raise
            except PermanentError as error:
                # Of this shard alone: the others go on, here and wherever it may go from here.
                if kept.refused != str(error):
                    kept.refused = str(error)
                    log.error(
                        "shard refused, not fired until it is mended", shard=shard, error=str(error)
                    )
                await _passed(kept.left, REFUSED_WAIT_S)
            except WheelLostError as error:
                log.warning("wheel lost", shard=shard, reason=str(error))
                kept.lost = True
                await _passed(kept.left, backoff.next())
            except TransientError as error:
                # Once: an hour without a store is a line a shard, and not thousands.
                tell = log.debug if kept.interrupted else log.warning
                tell("shard interrupted, taking it anew", shard=shard, error=str(error))
                kept.interrupted = True
                # No wake-up ends it early: these come as often as timers are added.
                await _passed(kept.left, backoff.next())

    async def _own(self, shard: int, kept: _Kept, backoff: Backoff) -> None:
        """Take the shard and fire it until it is to be given away."""
        owner = self._open_shard(shard)
        try:
            rebuilt = await owner.take(rebuild=kept.lost)
            if kept.refused:
                # Else it would fire until the projection comes to what was refused.
                await owner.catch_up()
            kept.lost = kept.interrupted = False
            kept.refused = ""
            log.info("shard taken", shard=shard)
            self._observer.taken(shard, rebuilt=rebuilt)
            await self._fire(shard, kept, owner, backoff)
        finally:
            self._observer.left(shard)
            await owner.close()

    async def _fire(
        self, shard: int, kept: _Kept, owner: ShardDispatcher, backoff: Backoff
    ) -> None:
        projecting = asyncio.create_task(owner.project(), name=f"project-{shard}")
        try:
            ours = True
            while ours:
                turn = await self._turn(shard, kept, owner, IDLE_MS / 1000)
                if turn.busy:
                    backoff.reset()
                if projecting.done():
                    # It never ends by itself: this raises what the shard is refused for, or a bug.
                    projecting.result()
                if kept.leaving:
                    ours = await self._still_ours(shard, kept, owner)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_S):
                    await owner.flush()
        finally:
            await ended(projecting)

    async def _still_ours(self, shard: int, kept: _Kept, owner: ShardDispatcher) -> bool:
        """Fire on until the next owner takes the shard, or for `HANDOVER_S`: there may be none.
        True when the shard has come back to us before that."""
        clock = asyncio.get_running_loop().time
        end_s = clock() + HANDOVER_S
        # Looked at between the turns: a transaction that is cut off holds up its readers.
        while kept.leaving and (left_s := end_s - clock()) > 0:
            try:
                await self._turn(shard, kept, owner, min(left_s, HANDOVER_LOOK_S))
            except FencedError as error:
                log.info("shard handed over", shard=shard, reason=str(error))
                return False
        return not kept.leaving

    async def _turn(
        self, shard: int, kept: _Kept, owner: ShardDispatcher, longest_s: float
    ) -> Turn:
        kept.wake.clear()
        turn = await owner.run_once()
        if turn.overdue:
            log.info("overdue timers are reported", shard=shard, timers=turn.overdue)
        if turn.busy:
            self._observer.turned(shard, turn)
        else:
            idle_s = longest_s if turn.idle_ms is None else min(turn.idle_ms / 1000, longest_s)
            await _passed(kept.wake, idle_s)
        return turn

    async def _listen(self) -> None:
        backoff = Backoff()
        while True:
            try:
                async with self._wheel.wakes(range(self._partitions)) as heard:
                    # What was said while nobody listened is lost.
                    for kept in self._kept.values():
                        kept.wake.set()
                    async for shard in heard:
                        backoff.reset()
                        if shard in self._kept:
                            self._kept[shard].wake.set()
            except TransientError:
                # The shards report it themselves.
                pass
            await backoff.wait()


async def _passed(event: asyncio.Event, seconds: float) -> None:
    """Wait for `event`, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
