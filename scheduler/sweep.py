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
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

from msgspec.structs import replace

from scheduler.activity import FINAL, STANDING, UNFIRED, ActivityRow, Status
from scheduler.errors import WheelBehindError, WheelLostError
from scheduler.ledger import Ledger, timer_of
from scheduler.patience import Patience
from scheduler.ports import MAX_FIND, Aside, Record, Wheel
from scheduler.timer import Timer
from scheduler.turns import Turns

TOO_LATE, ALREADY_FINAL, UNKNOWN = "too_late", "final", "unknown"

SET_ASIDE = 250
"""Timers set aside in one call: two to three milliseconds of Redis, for which all others wait."""

AT_ONCE = 250
"""Activities changed by one statement. The more, the longer others wait for the processors."""

BEHIND_S, BEHIND_TRIES = 0.02, 50
"""How long, and how often, it is waited for another topic to reach the wheel."""

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
        turns: Turns,
        patience: Patience,
        doubted: dict[str, str],
    ) -> None:
        """The command stands at `offset` of `topic`, which has been applied to `at`; `others` are
        the other topics that change rows. Its chunks take `turns` with those of others, and
        `patience` waits; `doubted` is what sweeps of this shard remember of wheels: for one that
        was begun, the one that was there."""
        self._shard = shard
        self._topic = topic
        self._others = sorted(others)
        self._record = record
        self._wheel = wheel
        self.offset = offset
        """Where the command stands."""
        self._at = at
        self._turns = turns
        self._patience = patience
        self._doubted = doubted
        self._seen: Aside | None = None
        self._changed = 0
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
        async with self._turns.turn(self._patience):
            await self._run(activity_ids, became, decide, reason, pending)

    async def _run(
        self,
        activity_ids: Sequence[str],
        became: str,
        decide: Decide,
        reason: str | None,
        pending: bool,
    ) -> None:
        while True:
            rows = await self._record.rows(activity_ids)
            await self._again_new(rows.values(), became)
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
        changed_here = {change.row.activity_id for change in ledger.changes}
        self._changed += len(changed_here)
        # What could not be set aside may have changed since it was read.
        missed = await self._record.rows([name for name in waiting if name not in changed_here])
        await self._again_new(missed.values(), became)
        left = {**rows, **missed}
        self.tally[became] += len(changed_here)
        self.tally[UNKNOWN] += len(set(activity_ids)) - len(left)
        self._count([row for name, row in left.items() if name not in changed_here])

    async def again(self, rows: Sequence[ActivityRow], became: str) -> None:
        """Have the wheel know what has become of `rows`, which were changed for this command
        before: by somebody who has died since, or is still at it. For all such rows, before `run`.

        Raises as `run` does.
        """
        async with self._turns.turn(self._patience):
            await self._again(rows, became)

    async def _again(self, rows: Sequence[ActivityRow], became: str) -> None:
        self._before |= {row.activity_id for row in rows}
        self._changed += len(rows)
        self.tally[became] += len(rows)
        # All that made the rows what they are is in the wheel, or their timers were never aside.
        gone = [t for row in rows if row.status is Status.CANCELLED and (t := timer_of(row))]
        await self._let_go(gone, [], {})
        moved = {
            row.activity_id: t for row in rows if row.status in UNFIRED and (t := timer_of(row))
        }
        _, there = await self._set_aside(moved, {})
        elsewhere = moved.keys() - set(there)
        were_due: Mapping[str, int] = {}
        if elsewhere:
            were_due = await self._record.were_due(self._shard, self.offset, elsewhere)
        before = {name: replace(moved[name], due_ms=due) for name, due in were_due.items()}
        # What is not there either has been sent.
        _, back = await self._set_aside(before, {})
        places = [*(moved[name] for name in there), *(before[name] for name in back)]
        await self._let_go(places, [moved[name] for name in (*there, *back)], {})

    async def _again_new(self, rows: Iterable[ActivityRow], became: str) -> None:
        new = [
            row
            for row in rows
            if row.command_offset == self.offset and row.activity_id not in self._before
        ]
        if new:
            await self._again(new, became)

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
        if await self._record.count_commanded(self._shard, self.offset) > self._changed:
            # Somebody else was at it, whom this one has not seen.
            async with self._record.snapshot(self._shard) as snapshot:
                async for rows in snapshot.commanded(self.offset, MAX_FIND):
                    await self.again(rows, "")
        left = await self._wheel.aside(self._shard, self._topic)
        for start in range(0, len(left), MAX_FIND):
            aside = left[start : start + MAX_FIND]
            current = await self._record.rows([timer.activity_id for timer in aside])
            removed, moved = [], []
            for timer in aside:
                row = current.get(timer.activity_id)
                if row is None:
                    continue
                now = timer_of(row) if row.status in UNFIRED else None
                if now == timer:
                    continue  # set aside by somebody who was too late to change it
                removed.append(timer)
                if now is not None:
                    moved.append(now)
            # It waits for no other topic: some wait for this command by now, and what theirs make
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
        tries = 0
        while True:
            try:
                found = await self._wheel.set_aside(
                    self._shard, self._topic, self._at, timers, after=after, seen=self._seen
                )
            except WheelBehindError:
                # Somebody is between the two stores. Not to begin anew for each of them.
                tries += 1
                if tries == BEHIND_TRIES:
                    raise
                await self._patience.rest(BEHIND_S)
                continue
            if found is None:
                raise await self._not_there()
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
                raise await self._not_there()
            if self._seen is not None:
                self._seen = replace(self._seen, step=self._seen.step + 1)

    async def _not_there(self) -> WheelLostError:
        """Has the wheel built anew that is not where the record is. Raises `OvertakenError` if the
        record is further by now."""
        await self._still_ours()
        await self._wheel.forget(self._shard)
        return WheelLostError(self._shard, f"not at {self._at} of {self._topic}")

    async def _still_ours(self) -> None:
        if await self._record.watermark(self._topic, self._shard) != self._at:
            raise OvertakenError

    async def _still_there(self, gen: str | None) -> None:
        """Raises `WheelLostError` if the wheel `gen` is not the one that was begun last."""
        begun = await self._record.wheel_gen(self._topic, self._shard)
        if gen is None or begun in (None, gen):
            return
        # Who builds a wheel takes the one before away first. So if that is still there, it has come
        # back in time, or whoever had begun another one had lost the shard already. And if it has
        # been built anew since, then by one who does not say so (an older release).
        found = await self._wheel.set_aside(self._shard, self._topic, self._at, [])
        if found is not None and found.gen == gen:
            if self._doubted.setdefault(begun, gen) == gen:
                await self._wheel.forget(self._shard)
            else:
                await self._record.begin_wheel(self._topic, self._shard, gen, instead_of=begun)
        raise WheelLostError(self._shard, f"generation {gen}, the record has {begun}")

    def _count(self, rows: Sequence[ActivityRow]) -> None:
        """Count those that have not been changed."""
        for row in rows:
            if row.activity_id in self._before:
                continue
            if row.shard not in (None, self._shard):
                self.tally[UNKNOWN] += 1
            elif row.status in FINAL:
                self.tally[ALREADY_FINAL] += 1
            elif row.status in STANDING:
                self.tally[TOO_LATE] += 1
        self.tally = +self.tally
