"""Changing many timers that wait, by one command, so that each is told truly what became of it.

A row may only be called cancelled if its timer can no longer fire; and whether it can is known to
the wheel alone. So each chunk goes through three steps: the wheel sets its timers aside, which
fails for those that have been claimed; the record changes the rows of those that were set aside;
the wheel lets go of them, or moves them. None of it moves a watermark, and each step may be done
again: whoever dies in between, the command comes once more, and whoever gets it sees to it that the
wheel knows what has been changed already, and goes on.

Both stores refuse a step of somebody who is late, since the command's watermark has moved by then:
the record's first, and from there on nothing more is changed for this command. What has been, by
somebody who died or is still at it, may not have reached the wheel, and the wheel must not go on
without it, or it would put back what is cancelled (`Sweep.finish`).

A wheel that is lost meanwhile is rebuilt from the rows as they were at some moment. Whoever does
that tells the record before (`Record.begin_wheel`), which from then on changes nothing for timers
that are aside in the wheel that was lost. So each change is either among those rows, or of timers
that are aside in the wheel that there is. One that has gone back in time, as a replica may that has
become the master, has set aside less often than it had said, and is rebuilt.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from msgspec.structs import replace

from scheduler.activity import FINAL, UNFIRED, ActivityRow, Status
from scheduler.errors import WheelLostError
from scheduler.ledger import Ledger, timer_of
from scheduler.ports import MAX_FIND, Aside, Record, Wheel
from scheduler.timer import Timer

TOO_LATE, ALREADY_FINAL, UNKNOWN = "too_late", "final", "unknown"

SET_ASIDE = 250
"""Timers set aside in one call: two to three milliseconds of Redis, for which all others wait."""

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
        self._seen: Aside | None = None
        self._before: set[str] = set()
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

        Raises `OvertakenError`, `WheelLostError`, and what the stores raise.
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
            gen, aside = await self._set_aside(waiting, after)
            ledger = Ledger(rows)
            able = [rows[name] for name in aside]
            if pending:
                able += [row for row in rows.values() if row.status is Status.PENDING]
            for row in await decide(able):
                ledger.change(row, self.offset, last_error=reason)
            changed = await self._record.change(
                self._topic,
                self._shard,
                self._at,
                self._at,
                ledger.changes,
                by="command",
                wheel_gen=gen,
            )
            if changed is not None:
                break
            await self._still_ours()
            await self._still_there(gen)
        await self._let_go(ledger.removed, ledger.added, after)
        self._count(activity_ids, rows, became, ledger)

    async def again(self, rows: Sequence[ActivityRow], became: str) -> None:
        """Have the wheel know what has become of `rows`, which were changed for this command
        before: by somebody who has died since, or is still at it. For all such rows, before `run`.

        Raises as `run` does.
        """
        self._before |= {row.activity_id for row in rows}
        self.tally[became] += len(rows)
        gone = [t for row in rows if row.status is Status.CANCELLED and (t := timer_of(row))]
        waiting = {
            row.activity_id: t for row in rows if row.status in UNFIRED and (t := timer_of(row))
        }
        after = await self._reached()
        _, aside = await self._set_aside(waiting, after)
        if len(aside) < len(waiting):
            # It has been sent by now, or is where it was before; and where that is, nobody knows.
            await self._wheel.forget(self._shard)
            raise WheelLostError(self._shard, "it may not have moved what was rescheduled")
        kept = list(waiting.values())
        await self._let_go([*gone, *kept], kept, after)

    def final(self, activity_ids: Sequence[str]) -> None:
        """Count those that have come to an end already, and not by this command."""
        self.tally[ALREADY_FINAL] += sum(name not in self._before for name in activity_ids)

    async def finish(self, after: Mapping[str, int]) -> None:
        """Have the wheel let go of all that was changed for this command and is still aside, or
        move it, and then move its watermark to where the command stands, once those of `after` have
        come as far. To be called when the record has applied the command.

        Raises `OvertakenError` if the wheel has applied it by now, `WheelLostError`, and what the
        stores raise.
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
        at = await self._wheel.add(
            self._shard, self._topic, self._at, self.offset, [], after=after, seen=self._seen
        )
        if at != self.offset:
            raise OvertakenError

    async def _reached(self) -> Mapping[str, int]:
        """How far other topics are. After rows were read: all that made them so is in there."""
        return {topic: await self._record.watermark(topic, self._shard) for topic in self._others}

    async def _set_aside(
        self, waiting: Mapping[str, Timer], after: Mapping[str, int]
    ) -> tuple[str | None, Sequence[str]]:
        """Those that are aside now, and in which wheel; it is none where nothing waits."""
        gen: str | None = None
        names, aside = list(waiting), []
        for start in range(0, len(names), SET_ASIDE):
            some = names[start : start + SET_ASIDE]
            found = await self._set_aside_at_once([waiting[name] for name in some], after)
            if gen not in (None, found.gen):
                raise WheelLostError(self._shard, f"generation {gen}")
            gen = found.gen
            aside += [name for name, held in zip(some, found.held, strict=True) if held]
        return gen, aside

    async def _set_aside_at_once(self, timers: Sequence[Timer], after: Mapping[str, int]) -> Aside:
        found = await self._wheel.set_aside(
            self._shard, self._topic, self._at, timers, after=after, seen=self._seen
        )
        if found is None:
            await self._still_ours()
            raise WheelLostError(self._shard, f"not at {self._at} of {self._topic}")
        self._seen = found
        return found

    async def _let_go(
        self, removed: Sequence[Timer], moved: Sequence[Timer], after: Mapping[str, int]
    ) -> None:
        places = {(timer.activity_id, timer.attempt): timer for timer in moved}
        for start in range(0, len(removed), MAX_FIND):
            some = removed[start : start + MAX_FIND]
            keys = ((each.activity_id, each.attempt) for each in some)
            to = [places[key] for key in keys if key in places]
            at = await self._wheel.add(
                self._shard,
                self._topic,
                self._at,
                self._at,
                to,
                remove=some,
                after=after,
                seen=self._seen,
            )
            if at != self._at:
                await self._still_ours()
                raise WheelLostError(self._shard, f"not at {self._at} of {self._topic}")
            if self._seen is not None:
                self._seen = replace(self._seen, step=self._seen.step + 1)

    async def _still_ours(self) -> None:
        if await self._record.watermark(self._topic, self._shard) != self._at:
            raise OvertakenError

    async def _still_there(self, gen: str | None) -> None:
        """Raises `WheelLostError` if the wheel `gen` is not the one that was begun last."""
        begun = await self._record.wheel_gen(self._topic, self._shard)
        if gen is None or begun in (None, gen):
            return
        # Who builds a wheel takes the one before away first. So if that is still there, it has come
        # back in time, or whoever had begun another one had lost the shard already.
        found = await self._wheel.set_aside(self._shard, self._topic, self._at, [])
        if found is not None and found.gen == gen:
            await self._wheel.forget(self._shard)
        raise WheelLostError(self._shard, f"generation {gen}, the record has {begun}")

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
            if row.activity_id in self._before:
                continue
            if row.activity_id in names or row.command_offset == self.offset:
                self.tally[became] += 1
            elif row.status in FINAL:
                self.tally[ALREADY_FINAL] += 1
            elif row.status in UNFIRED or row.status is Status.DISPATCHED:
                self.tally[TOO_LATE] += 1
        self.tally = +self.tally
