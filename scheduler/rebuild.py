"""Rebuilding a shard's wheel from the record: after Redis lost it, and for a new shard.

Everything that must be in the wheel is a row of PostgreSQL that has not fired, or that has and
awaits its result. Which rows have fired is in Kafka first (the committed transactions), so the
projection is brought to the end of Kafka's log before the rows are read. No new batch can be
committed meanwhile: the caller owns the epoch and has fenced all others. Dying at any point leaves
a wheel without a generation, or one of another generation than the cursor's: the next owner begins
again.
"""

import time
from collections.abc import Callable, Collection, Sequence

import structlog
from msgspec.structs import replace

from scheduler.controls import Subject
from scheduler.overdue import leftovers
from scheduler.ports import Record, ShardLog, Wheel
from scheduler.project import Projection
from scheduler.timer import Timer
from schemas.events import WheelCursor
from schemas.times import millis

log = structlog.get_logger(__name__)

CHUNK = 5_000
"""Timers read and loaded at a time: what a rebuild holds in memory."""

TELL_EVERY_S = 2.0
"""How often a long rebuild says how far it has come."""


class Rebuild:
    """Rebuilds wheels, one shard a call."""

    def __init__(
        self,
        wheel: Wheel,
        record: Record,
        *,
        input_topics: Collection[str],
        commands: str,
        token: Callable[[], str],
        await_ms: int,
    ) -> None:
        """`input_topics` are those whose watermarks the wheel keeps, and `commands` is the one of
        them whose inputs set timers aside; `await_ms` is how long the result of an attempt is
        awaited."""
        self._wheel = wheel
        self._record = record
        self._input_topics = frozenset(input_topics)
        self._commands = commands
        self._token = token
        self._await_ms = await_ms

    async def run(
        self,
        shard: int,
        epoch: str,
        shard_log: ShardLog,
        projection: Projection,
        cursor: WheelCursor | None,
    ) -> WheelCursor:
        """Rebuild `shard` for the owner of `epoch`, whose `shard_log` is fenced.

        Returns the cursor of the new generation, committed. Raises `FencedError` and transient
        errors; the wheel then stays closed until a rebuild succeeds.
        """
        began = time.monotonic()
        # The first life of a shard is nothing to worry about; each further one was lost.
        tell = log.info if cursor is None else log.warning
        tell("building the wheel", shard=shard, life="first" if cursor is None else "next")
        await projection.drain(shard_log.status_end)

        loaded = awaited = 0
        barred: list[Timer] = []
        progress = _Progress(shard, began)
        gen = self._token()
        await self._wheel.wipe(shard, epoch)
        # Before the rows are read: what changes for timers of the last wheel is among them, or does
        # not happen (`scheduler.sweep`).
        await self._record.begin_wheel(self._commands, shard, gen)
        async with self._record.snapshot(shard) as snapshot:
            async for timers in snapshot.unfired(CHUNK):
                await self._wheel.load(shard, epoch, timers)
                loaded += len(timers)
                if snapshot.opted_out:
                    barred += [each for each in timers if each.member_id in snapshot.opted_out]
                progress.tell(loaded, awaited)
            async for fired in snapshot.awaited(CHUNK):
                await self._wheel.load_awaited(shard, epoch, self._until_deadline(fired))
                awaited += len(fired)
                progress.tell(loaded, awaited)
            paused = [
                *snapshot.paused,
                *{Subject("opted_out", timer.member_id) for timer in barred},
            ]
            watermarks = {
                topic: at
                for topic, at in snapshot.watermarks.items()
                if topic in self._input_topics
            }

        last = cursor.claimed_at if cursor else None
        fresh = WheelCursor(
            seq=cursor.seq if cursor else 0, nonce=self._token(), gen=gen, claimed_at=last
        )
        # Kafka first: a generation that only Redis knows would be taken for an older life.
        at_ms = await self._wheel.now_ms()
        reports = leftovers(shard, barred, at_ms, fresh)
        await shard_log.commit((), at_ms, fresh, reports=reports)
        await self._wheel.open(
            shard,
            epoch,
            fresh.gen,
            (fresh.seq, fresh.nonce),
            watermarks,
            holding=(loaded, awaited),
            paused=paused,
            last_ms=millis(last) if last else 0,
        )
        tell(
            "wheel built",
            shard=shard,
            timers=loaded,
            awaited=awaited,
            seconds=round(time.monotonic() - began, 2),
        )
        return fresh

    def _until_deadline(self, fired: Sequence[Timer]) -> list[Timer]:
        # From the dispatch on, however often the wheel is rebuilt meanwhile.
        return [replace(timer, due_ms=timer.due_ms + self._await_ms) for timer in fired]


class _Progress:
    """Says now and then how far a rebuild has come."""

    def __init__(self, shard: int, began: float) -> None:
        self._shard = shard
        self._began = began
        self._told = began

    def tell(self, loaded: int, awaited: int) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_EVERY_S:
            self._told = now
            log.info(
                "loading the wheel",
                shard=self._shard,
                loaded=loaded,
                awaited=awaited,
                per_s=round((loaded + awaited) / (now - self._began)),
            )
