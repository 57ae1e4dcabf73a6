"""What was asked for before comes before: commands that wait when a partition is assigned."""

import asyncio
from collections.abc import Sequence
from functools import partial

import structlog

from scheduler.patience import Patience
from scheduler.ports import SourceRecord, Wheel
from streams.pump import Applier
from streams.source_log import SourceLog

LOOK_S = 0.05
LONGEST_S = 10.0
"""A cancel of a million takes longer, and is not waited for then: what of a command must bind those
who plan has by then (scheduler.commands)."""

log = structlog.get_logger(__name__)


class CommandsFirst:
    """Applies events of a shard behind the commands that were there when it was assigned.

    While workers run, a command and an event that comes a moment later are applied within the same
    moment, in either order. But where none has run for an hour, all of that hour is applied at
    once, topic by topic; and whoever pauses everything, to start the workers then, means what was
    published since.
    """

    def __init__(
        self, applier: Applier, shard: int, commands: str, wheel: Wheel, source: SourceLog
    ) -> None:
        """`commands` is the full name of `pod-commands`, and `source` that topic as the broker
        sees it. Another process may be the one that applies it."""
        self._applier = applier
        self._shard = shard
        self._commands = commands
        self._wheel = wheel
        self._source = source
        self._waited = False
        self._patience = Patience(f"{commands}/{shard}")

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        """See `Applier.apply`."""
        if not self._waited:
            await self._until_applied()
            self._waited = True
        await self._applier.apply(records)

    async def catch_up(self) -> None:
        """See `Applier.catch_up`."""
        await self._applier.catch_up()

    async def _until_applied(self) -> None:
        clock = asyncio.get_running_loop().time
        end: int | None = None
        seen: int | None = None
        until_s: float | None = None
        while until_s is None or clock() < until_s:
            # With these stores away events wait anyway.
            look = partial(self._look, end, seen)
            seen, end, done = await self._patience.until_done(look)
            if done:
                return
            until_s = until_s or clock() + LONGEST_S
            await asyncio.sleep(LOOK_S)
        log.warning("events wait for commands no longer", shard=self._shard)

    async def _look(self, end: int | None, seen: int | None) -> tuple[int, int, bool]:
        """How far the commands are applied, up to where they must be, and whether they are."""
        if end is None:
            end = (await self._source.ends([self._shard]))[self._shard]
        # The wheel's: there it is that a pause holds.
        at = await self._wheel.watermark(self._shard, self._commands)
        done = at + 1 >= end
        if not done and at == seen:
            # Read only where it stands still: what is left may be markers of transactions.
            done = not await self._source.has_record(self._shard, at + 1, end)
        return at, end, done
