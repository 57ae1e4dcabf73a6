"""Projecting `dispatched` on the record: what has fired becomes visible in PostgreSQL.

The owner of a shard is the only one who writes `dispatched` into the shard's partition of
`engagement-status`, so it projects its own commits as they happen, without reading them back. What
earlier owners committed, and what did not fit into memory while PostgreSQL was away, it reads from
Kafka. The offset moves in the same statement as the rows, by compare-and-swap, and a change that is
projected twice changes nothing: any number of projectors (a zombie, a takeover, a rebuild) may work
on one shard at once.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import structlog
from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from scheduler.activity import Status, StatusChange
from scheduler.backoff import Backoff
from scheduler.errors import PermanentError, TransientError
from scheduler.ports import Record, StatusLog, StatusPage
from scheduler.timer import Timer
from schemas.codec import InvalidEvent
from schemas.events import Attempt, Instant, StatusName
from schemas.times import EARLIEST_MS, LATEST_MS, millis

log = structlog.get_logger(__name__)

POLL_MS = 1000

STATEMENT_CHANGES = 10_000
"""Changes of one statement, about: bounds how long it holds its row locks."""

KEPT_CHANGES = 100_000
"""Commits kept in memory while PostgreSQL is behind; beyond, they are read back from Kafka."""

LINGER_S = 0.05
"""How long commits are gathered into one statement."""


class _Commit(Struct, frozen=True):
    upto: int
    timers: Sequence[Timer]
    at_ms: int


class Projection:
    """Projects one shard for its owner."""

    def __init__(
        self,
        shard: int,
        topic: str,
        record: Record,
        statuses: StatusLog,
        *,
        linger_s: float = 0.0,
    ) -> None:
        """`topic` is the name of `engagement-status` on the cluster; `linger_s`, how long a commit
        waits for others."""
        self._shard = shard
        self._topic = topic
        self._record = record
        self._statuses = statuses
        self._commits: deque[_Commit] = deque()
        self._kept = 0
        self._behind = True
        self._at: int | None = None
        """The watermark as we left it, as long as nobody else can be known to have moved it."""
        self._reached = -1
        """Where it stood last when all before was projected: a lower one has lost some of that."""
        self._linger_s = linger_s
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._hurry = asyncio.Event()

    def committed(self, upto: int, timers: Sequence[Timer], at_ms: int) -> None:
        """Take note of a commit whose last status record has offset `upto`."""
        self._idle.clear()
        if self._kept + len(timers) > KEPT_CHANGES:
            self._commits.clear()
            self._kept = 0
            self._behind = True
        else:
            self._commits.append(_Commit(upto, timers, at_ms))
            self._kept += len(timers)
        self._work.set()

    async def run(self, end: Callable[[], Awaitable[int]]) -> None:
        """Project for ever. `end` tells the offset behind the last record, all committed."""
        backoff = Backoff()
        while True:
            try:
                if self._behind:
                    # Cleared first: whatever is committed from here on is either before the end
                    # that is asked for next, or kept in memory; both do no harm.
                    self._behind = False
                    try:
                        await self.drain(end)
                    except BaseException:
                        self._behind = True
                        raise
                    if self._behind:
                        # Overtaken by an overflow: what is noted by now lies behind what was
                        # forgotten, and projecting it would skip that.
                        continue
                if self._commits:
                    await self._gather()
                await self.run_once()
                backoff.reset()
            except TransientError as error:
                log.warning("projection waits", shard=self._shard, error=str(error))
                await backoff.wait()
            if self._behind:
                continue
            if not self._commits:
                self._idle.set()
                self._work.clear()
                await self._work.wait()

    async def run_once(self) -> int:
        """Project the commits noted so far, up to a bound. Returns the number of changes: none
        while it is behind, since what was noted lies behind what must be read back."""
        if self._behind:
            return 0
        taken: list[_Commit] = []
        count = 0
        for commit in self._commits:
            if taken and count + len(commit.timers) > STATEMENT_CHANGES:
                break
            taken.append(commit)
            count += len(commit.timers)
        if not taken:
            return 0
        changes = [
            StatusChange(timer.activity_id, Status.DISPATCHED, timer.attempt, commit.at_ms)
            for commit in taken
            for timer in commit.timers
        ]
        upto = taken[-1].upto
        expected, self._at = self._at, None
        while True:
            if expected is None:
                expected = await self._record.watermark(self._topic, self._shard)
                if expected < self._reached:
                    # PostgreSQL has failed over without its last commits: to go on from here would
                    # skip them.
                    log.warning(
                        "PostgreSQL has lost what was projected, reading it back",
                        shard=self._shard,
                        reached=self._reached,
                        found=expected,
                    )
                    self._behind = True
                    return 0
            at = max(upto, expected)
            if await self._record.project(self._topic, self._shard, expected, at, changes):
                self._at = self._reached = at
                break
            expected = None
        # Overtaken by an overflow meanwhile? Then there is nothing left to remove.
        for commit in taken:
            if self._commits and self._commits[0] is commit:
                self._commits.popleft()
                self._kept -= len(commit.timers)
        return count

    async def flush(self) -> None:
        """Return once all that was noted is projected. Unbounded: give it a time limit."""
        self._hurry.set()
        await self._idle.wait()

    async def _gather(self) -> None:
        if self._linger_s and not self._hurry.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._linger_s):
                    await self._hurry.wait()

    async def drain(self, asked_end: Callable[[], Awaitable[int]]) -> None:
        """Read from Kafka and project all that was committed before the end, as `asked_end` tells
        it. Raises `PermanentError` where the record is ahead of it."""
        self._at = None
        # In this order a record ahead of the end cannot be another's, who has projected more while
        # this process stood still between the two.
        at = await self._record.watermark(self._topic, self._shard)
        end = await asked_end()
        if at + 1 == end:
            self._reached = at
            return
        if at + 1 > end:
            # Going on would skip what is written there from now on, and a rebuild fire it again.
            raise PermanentError(
                f"partition {self._shard} of {self._topic} ends at offset {end}, but the record"
                f" has projected up to {at}: the topic was created anew, or has lost records. The"
                " shard is not fired until last_offset is set to -1 for it in ingested_offsets"
            )
        async with self._statuses.reader(self._shard, at + 1) as reader:
            while await reader.position() < end:
                page = await reader.page(POLL_MS)
                if page is None:
                    continue
                moved = await self._record.project(
                    self._topic, self._shard, at, page.upto, _dispatched(page)
                )
                if moved:
                    at = page.upto
                else:
                    # Somebody else has projected part of this page: go on from there.
                    at = await self._record.watermark(self._topic, self._shard)
                    reader.seek(at + 1)
        self._reached = at


class _Seen(Struct):
    activity_id: str
    status: StatusName
    attempt: Attempt
    at: Instant


# The engine's own records, read by the hundred thousand: checked no more than is used of them.
_decoder = Decoder(_Seen)


def _dispatched(page: StatusPage) -> list[StatusChange]:
    changes = []
    for value in page.values:
        try:
            seen = _decoder.decode(value or b"")
        except (DecodeError, UnicodeDecodeError, RecursionError) as error:
            # Only the engine writes this topic; what else is found there changes nothing, and is
            # not quoted by the megabyte.
            reason = InvalidEvent(str(error)).reason
            log.warning("not a status event", shard=page.shard, reason=reason)
            continue
        at_ms = millis(seen.at)
        if not EARLIEST_MS <= at_ms <= LATEST_MS:
            # PostgreSQL would refuse the page for it, and again each time.
            log.warning(
                "not a status event", shard=page.shard, reason="a time outside of 1970 to 2200"
            )
        elif seen.status == "dispatched":
            changes.append(StatusChange(seen.activity_id, Status.DISPATCHED, seen.attempt, at_ms))
    return changes
