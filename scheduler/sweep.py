"""Changing many timers that wait, by one command, so that each is told truly what became of it.

A row may only be called cancelled if its timer can no longer fire; and whether it can is known to
the wheel alone. So each chunk goes through three steps: the wheel sets its timers aside, which
fails for those that have been claimed; the record changes the rows of those that were set aside;
the wheel lets go of them, or moves them. None of it moves a watermark, and each step may be done
again: whoever dies in between, the command comes once more, finds what is set aside still aside,
and goes on.

Both stores refuse a step of somebody who is late, since the command's watermark has moved by then.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from scheduler.activity import FINAL, UNFIRED, ActivityRow, Status
from scheduler.errors import WheelLostError
from scheduler.ledger import Ledger, timer_of
from scheduler.ports import MAX_FIND, Record, Wheel
from scheduler.timer import Timer

TOO_LATE, ALREADY_FINAL, UNKNOWN = "too_late", "final", "unknown"

Decide = Callable[[Sequence[ActivityRow]], Awaitable[Sequence[ActivityRow]]]
"""What rows that can be changed are to become; those that are not returned stay as they are."""


class OvertakenError(Exception):
    """Another process has applied the command meanwhile."""


class Sweep:
    """One command's way through the activities of one shard."""

    def __init__(
        self,
        shard: int,
        topic: str,
        others: Collection[str],
        record: Record,
        wheel: Wheel,
        *,
        offset: int,
        at: int,
    ) -> None:
        """The command stands at `offset` of `topic`, which has been applied to `at`; `others` are
        the other topics that change rows."""
        self._shard = shard
        self._topic = topic
        self._others = sorted(others)
        self._record = record
        self._wheel = wheel
        self.offset = offset
        """Where the command stands."""
        self._at = at
        self.tally: Counter[str] = Counter()
        """Activities by what became of them: changed, under the name that `run` was given;
        `too_late`, since they had been sent or were about to be; `final` already; `unknown`."""

    async def run(
        self,
        activity_ids: Sequence[str],
        became: str,
        decide: Decide,
        *,
        reason: str | None = None,
        pending: bool = False,
    ) -> None:
        """Change those of `activity_ids` that wait, or are `pending`, as `decide` says.

        Raises `OvertakenError`, and what the stores raise.
        """
        while True:
            rows = await self._record.rows(activity_ids)
            done = [row for row in rows.values() if row.command_offset == self.offset]
            waiting = {
                row.activity_id: timer
                for row in rows.values()
                if row.command_offset != self.offset
                and row.shard == self._shard
                and row.status in UNFIRED
                and (timer := timer_of(row))
            }
            # Read after the rows: all that made them what they are is in there.
            after = {
                topic: await self._record.watermark(topic, self._shard) for topic in self._others
            }
            aside = await self._set_aside(waiting, after)
            ledger = Ledger(rows)
            able = [rows[name] for name in aside]
            if pending:
                able += [row for row in rows.values() if row.status is Status.PENDING]
            for row in await decide(able):
                ledger.change(row, self.offset, last_error=reason)
            changed = await self._record.change(
                self._topic, self._shard, self._at, self._at, ledger.changes, by="command"
            )
            if changed is not None:
                break
            await self._still_ours()
        again = [timer for row in done if (timer := timer_of(row))]
        kept = [row for row in done if row.status in UNFIRED]
        await self._let_go(
            [*ledger.removed, *again],
            [*ledger.added, *(timer for row in kept if (timer := timer_of(row)))],
            after,
        )
        self._count(activity_ids, rows, became, len(ledger.changes) + len(done), ledger)

    async def _set_aside(
        self, waiting: Mapping[str, Timer], after: Mapping[str, int]
    ) -> Sequence[str]:
        names, aside = list(waiting), []
        for start in range(0, len(names), MAX_FIND):
            some = names[start : start + MAX_FIND]
            held = await self._wheel.set_aside(
                self._shard, self._topic, self._at, [waiting[name] for name in some], after=after
            )
            if held is None:
                await self._still_ours()
                raise WheelLostError(self._shard, f"not at {self._at} of {self._topic}")
            aside += [name for name, is_held in zip(some, held, strict=True) if is_held]
        return aside

    async def _let_go(
        self, removed: Sequence[Timer], added: Sequence[Timer], after: Mapping[str, int]
    ) -> None:
        moved = {(timer.activity_id, timer.attempt): timer for timer in added}
        for start in range(0, len(removed), MAX_FIND):
            some = removed[start : start + MAX_FIND]
            to = [moved[key] for each in some if (key := (each.activity_id, each.attempt)) in moved]
            at = await self._wheel.add(
                self._shard, self._topic, self._at, self._at, to, remove=some, after=after
            )
            if at != self._at:
                await self._still_ours()
                raise WheelLostError(self._shard, f"not at {self._at} of {self._topic}")

    async def _still_ours(self) -> None:
        if await self._record.watermark(self._topic, self._shard) != self._at:
            raise OvertakenError

    def _count(
        self,
        activity_ids: Sequence[str],
        rows: Mapping[str, ActivityRow],
        became: str,
        changed: int,
        ledger: Ledger,
    ) -> None:
        self.tally[became] += changed
        self.tally[UNKNOWN] += len(set(activity_ids)) - len(rows)
        names = {change.row.activity_id for change in ledger.changes}
        for row in rows.values():
            if row.activity_id in names or row.command_offset == self.offset:
                continue
            if row.status in FINAL:
                self.tally[ALREADY_FINAL] += 1
            elif row.status in UNFIRED or row.status is Status.DISPATCHED:
                self.tally[TOO_LATE] += 1
        self.tally = +self.tally
