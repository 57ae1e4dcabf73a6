"""Firing the timers of one shard, exactly once for whoever reads committed records.

The order of the steps is the guarantee (docs/guarantees.md): epoch, fence, cursor, then one claim
and one transaction in turn. Any failure throws the whole state away and begins at the first step;
what Kafka committed last is the only truth about which batch is done.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scheduler.errors import FencedError
from scheduler.overdue import reports
from scheduler.policy import OverduePolicy
from scheduler.ports import ShardLog, Wheel
from scheduler.project import Projection
from scheduler.rebuild import Rebuild
from scheduler.timer import Timer
from schemas.events import WheelCursor
from schemas.times import moment


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn did: timers fired, and how long nothing will be due (None: wheel is empty).

    `at_ms` is when they were claimed, by the wheel's clock, and `commit_s` how long their
    transaction took; `timeouts` are the attempts that were given up, since no result had come;
    `overdue` the timers that were reported instead of being fired.
    """

    timers: Sequence[Timer]
    idle_ms: int | None
    at_ms: int = 0
    commit_s: float = 0.0
    timeouts: int = 0
    overdue: int = 0

    @property
    def busy(self) -> bool:
        """Whether there was anything to do; there may be more."""
        return bool(self.timers) or self.timeouts > 0 or self.overdue > 0


class ShardDispatcher:
    """The owner of one shard: `take` once, then `run_once` again and again, with `project` beside
    it. After any error the object is spent: `close` it, and make another."""

    def __init__(
        self,
        shard: int,
        wheel: Wheel,
        shard_log: ShardLog,
        projection: Projection,
        rebuild: Rebuild,
        *,
        token: Callable[[], str],
        limit: int,
        await_ms: int,
        overdue: OverduePolicy | None = None,
    ) -> None:
        """`token` makes unique strings (epochs, nonces); `limit` is the timers of one batch, and
        `await_ms` how long the result of each is awaited from then on. `overdue`: what is done
        with timers that are too late, if not fired."""
        self._shard = shard
        self._wheel = wheel
        self._log = shard_log
        self._projection = projection
        self._rebuild = rebuild
        self._token = token
        self._limit = limit
        self._await_ms = await_ms
        self._overdue = overdue
        self._epoch = ""
        self._done: WheelCursor | None = None

    async def take(self, *, rebuild: bool = False) -> bool:
        """Become the owner, and build the wheel if it is lost or if `rebuild` says so; returns
        whether it was built anew, and not for the first time.

        Raises `FencedError` when yet another owner comes, and transient errors.
        """
        # Epoch first: from here on no former owner gets a batch out of the wheel. Then the fence,
        # which settles what it may be committing, and only then the cursor: read before the fence
        # it could miss a batch that is committed after all, which we would commit once more.
        self._epoch = self._token()
        state = await self._wheel.take(self._shard, self._epoch)
        await self._log.fence()
        cursor = await self._log.cursor()
        new = cursor is None and state.gen is None
        lost = rebuild or cursor is None or state.gen != cursor.gen
        if lost:
            cursor = await self._rebuild.run(
                self._shard, self._epoch, self._log, self._projection, cursor
            )
        self._done = cursor
        return lost and not new

    async def run_once(self) -> Turn:
        """Settle the last batch, claim what is due, commit it.

        Raises `FencedError`: drop the shard, quietly. `WheelLostError`: the wheel is gone or went
        back in time, take the shard anew with `rebuild`. Other transient errors: take it anew.
        """
        done = self._done
        if done is None:
            raise FencedError(self._shard, "it is not taken")
        claim = await self._wheel.claim(
            self._shard,
            self._epoch,
            done.gen,
            (done.seq, done.nonce),
            self._token(),
            self._limit,
            self._await_ms,
            self._overdue,
        )
        timers = claim.timers
        clock = asyncio.get_running_loop().time
        began_s = clock()
        if not claim.empty:
            cursor = WheelCursor(
                seq=claim.seq, nonce=claim.nonce, gen=done.gen, claimed_at=moment(claim.now_ms)
            )
            # Spent, unless the commit is known to have happened.
            self._done = None
            upto = await self._log.commit(
                timers, claim.now_ms, cursor, claim.timeouts, reports(self._shard, claim)
            )
            self._done = cursor
            # A timeout or a report is no status yet: it becomes one when the worker applies it.
            if timers:
                self._projection.committed(upto, timers, claim.now_ms)
        due_ms = claim.next_due_ms
        return Turn(
            timers=timers,
            idle_ms=None if due_ms is None else max(0, due_ms - claim.now_ms),
            at_ms=claim.now_ms,
            commit_s=clock() - began_s,
            timeouts=len(claim.timeouts),
            overdue=len(claim.overdue),
        )

    async def project(self) -> None:
        """Keep the record up with what fires, for ever."""
        await self._projection.run(self._log.status_end)

    async def catch_up(self) -> None:
        """Bring the record up to all that was fired, before anything more is. Raises
        `PermanentError` where it contradicts Kafka."""
        await self._projection.drain(self._log.status_end)

    async def flush(self) -> None:
        """Wait until the record knows of all that was fired. Unbounded: give it a time limit."""
        await self._projection.flush()

    async def close(self) -> None:
        """Throw the producer away. What was not committed will be claimed again."""
        await self._log.close()
