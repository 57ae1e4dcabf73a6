"""Changing many timers that wait, by one command, so that each is told truly what became of it.

A row may only be called cancelled if its timer can no longer fire; and whether it can is known to
the wheel alone. So each chunk goes through three steps: the wheel sets its timers aside, which
fails for those that have been claimed; the record changes the rows of those that were set aside;
the wheel lets go of them, or moves them. None of it moves a watermark, and each step may be done
again: whoever dies in between, the command comes once more, finds what is set aside still aside,
and goes on.

Both stores refuse a step of somebody who is late, since the command's watermark has moved by then:
the record's first, and from there on nothing more is changed for this command. What has been, by
somebody who died or is still at it, may not have reached the wheel, and the wheel must not go on
without it, or it would put back what is cancelled (`Sweep.finish`).
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
            waiting = {
                row.activity_id: timer
                for row in rows.values()
                if row.command_offset != self.offset
                and row.shard == self._shard
                and row.status in UNFIRED
                and (timer := timer_of(row))
            }
            after = await self._reached()
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
        await self._let_go(ledger.removed, ledger.added, after)
        self._count(activity_ids, rows, became, ledger)

    async def finish(self) -> None:
        """Have the wheel let go of all that was changed for this command and is still aside, or
        move it. To be called when the record has applied the command, and before the wheel has.

        Raises `WheelLostError` if the wheel is not there any more, and what the stores raise.
        """
        left = await self._wheel.aside(self._shard, self._topic)
        for start in range(0, len(left), MAX_FIND):
            aside = left[start : start + MAX_FIND]
            rows = await self._record.rows([timer.activity_id for timer in aside])
            removed, moved = [], []
            for timer in aside:
                row = rows.get(timer.activity_id)
                if row is None or row.command_offset != self.offset:
                    continue
                removed.append(timer)
                if row.status in UNFIRED and (now := timer_of(row)):
                    moved.append(now)
            # It waits for no other topic: theirs wait for this command by now, and what they make
            # of these timers is the same in either order.
            await self._let_go(removed, moved, {})

    async def _reached(self) -> Mapping[str, int]:
        """How far other topics are. After rows were read: all that made them so is in there."""
        return {topic: await self._record.watermark(topic, self._shard) for topic in self._others}

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
        self, removed: Sequence[Timer], moved: Sequence[Timer], after: Mapping[str, int]
    ) -> None:
        places = {(timer.activity_id, timer.attempt): timer for timer in moved}
        for start in range(0, len(removed), MAX_FIND):
            some = removed[start : start + MAX_FIND]
            keys = ((each.activity_id, each.attempt) for each in some)
            to = [places[key] for key in keys if key in places]
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
        ledger: Ledger,
    ) -> None:
        self.tally[UNKNOWN] += len(set(activity_ids)) - len(rows)
        names = {change.row.activity_id for change in ledger.changes}
        for row in rows.values():
            if row.activity_id in names or row.command_offset == self.offset:
                self.tally[became] += 1
            elif row.status in FINAL:
                self.tally[ALREADY_FINAL] += 1
            elif row.status in UNFIRED or row.status is Status.DISPATCHED:
                self.tally[TOO_LATE] += 1
        self.tally = +self.tally
