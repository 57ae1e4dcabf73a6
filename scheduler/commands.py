"""Applies `pod-commands` to one shard, exactly once: what operators and clients ask for, and the
dispatcher's reports of overdue timers."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import msgspec
import structlog

from scheduler.activity import FINAL, STANDING, UNFIRED, ActivityRow, Announcement, PostPlan, Status
from scheduler.batch import Item
from scheduler.capped import with_times
from scheduler.catch_up import expire, is_report, postpone, redo_report, retold
from scheduler.change import Done, Redo, RowApplier
from scheduler.command import (
    PROCESSES,
    about,
    applied,
    control,
    fault,
    is_sweep,
    selection,
    subject,
)
from scheduler.controls import OPTED_OUT, Orders, Subject, Verdict
from scheduler.errors import CulpritError
from scheduler.ledger import Ledger, Letter, timer_of, told
from scheduler.outcome import plain
from scheduler.patience import Patience
from scheduler.planner import (
    NO_DAYS,
    NO_ORDERS,
    days_of,
    postponed_times,
    rescheduled_times,
    scheduled_times,
)
from scheduler.policy import OverduePolicy, PacingPolicy
from scheduler.ports import Outbox, Record, Snapshot, Wheel
from scheduler.quiet_hours import QuietHours, after, between
from scheduler.stagger import CappedTimes
from scheduler.sweep import AT_ONCE, OvertakenError, Sweep
from scheduler.turns import Turns
from schemas.events import PodCommand, is_id
from schemas.times import millis

log = structlog.get_logger(__name__)

SWEPT_AT_ONCE = 1_000
"""Rows read at once where nothing is done with each."""

_NOTHING_PLANNED = PostPlan()
_BINDING = ("policy", "quiet_hours", "daily_cap", "opt_in")
"""What those who plan and who judge results must know of from then on. Sweeps say so themselves."""
_MAX_REASON_CHARS = 200


class CommandApplier(RowApplier[PodCommand]):
    """See `RowApplier`.

    `schedule` plans rows that are still pending, in the order given, from the moment it is applied,
    by the rules that hold for events. `dispatch` makes a timer due at once if it still waits. Both
    leave alone what is further on, and cancel what is pending of members who have opted out.
    `postpone` and `expire` count for rows that wait and are due at the very time that the
    dispatcher has reported, so that copies of a report, and what has been overtaken, do nothing.

    `cancel`, `reschedule` and `opt_out` go through what they are about, whatever its number
    (`scheduler.sweep`): they cost what matches, and nobody is told that something was cancelled
    which fires all the same. `opt_out` first binds those who plan and who judge results: from then
    on nothing new comes for the member. `pause` and `resume` change nothing but what the wheel lets
    fire, and cost nothing, whatever waits.
    """

    def __init__(
        self,
        shard: int,
        topic: str,
        *,
        inputs: Sequence[str],
        policy: PacingPolicy,
        record: Record,
        wheel: Wheel,
        outbox: Outbox,
        patience: Patience | None = None,
        overdue: OverduePolicy | None = None,
        turns: Turns | None = None,
    ) -> None:
        """See `RowApplier`; `overdue` is the dispatchers' policy. With those of other shards it
        takes `turns`."""
        super().__init__(
            shard,
            topic,
            PodCommand,
            "command",
            inputs=inputs,
            record=record,
            wheel=wheel,
            outbox=outbox,
            patience=patience,
        )
        self._policy = policy
        self._overdue = overdue
        self._turns = turns or Turns()
        self._last: Sweep | None = None
        self._doubted: dict[str, str] = {}

    def _runs(self, items: Sequence[Item[PodCommand]]) -> Sequence[Sequence[Item[PodCommand]]]:
        runs: list[list[Item[PodCommand]]] = [[]]
        for item in items:
            if _is_sweep(item):
                runs += [[item], []]
                continue
            runs[-1].append(item)
            if item.event is not None and item.event.command in _BINDING:
                # What comes behind it is decided by it.
                runs.append([])
        return [run for run in runs if run]

    def _ids(self, event: PodCommand) -> Sequence[str]:
        return () if is_sweep(event) else event.activity_ids

    async def _commit(self, piece: Sequence[Item[PodCommand]]) -> Done[PodCommand]:
        command = piece[0].event
        if command is not None and _is_sweep(piece[0]):
            while piece[0].offset > (at := await self._record.watermark(self._topic, self._shard)):
                try:
                    await self._sweep(piece[0], command, at)
                except OvertakenError:
                    continue
                break
        return await super()._commit(piece)

    # Sweeps

    async def _sweep(self, item: Item[PodCommand], command: PodCommand, at: int) -> None:
        """All but moving the watermark; may be done again from the start."""
        if command.activity_ids and await self._belongs_elsewhere(item, command):
            self._last = None
            return
        if about(command)[0] == "post":
            await self._share_post(item, command.post_id or "")
        quiet_before = None
        if command.command == "quiet_hours":
            quiet_before = await self._quiet_before(command, item.offset)
        if command.command in ("opt_out", "quiet_hours"):
            # First: from here on nobody plans who does not know of it.
            verdict = Verdict(
                controls=(control(command, item.offset),), binding=tuple(sorted(self._others))
            )
            bound = await self._record.change(
                self._topic, self._shard, at, at, [], by="command", verdict=verdict
            )
            if bound is None:
                raise OvertakenError
        sweep = Sweep(
            self._shard,
            self._topic,
            self._others,
            self._record,
            self._wheel,
            offset=item.offset,
            at=at,
            turns=self._turns,
            patience=self._patience,
            doubted=self._doubted,
        )
        became = "rescheduled" if _moves(command) else "cancelled"
        async with self._record.snapshot(self._shard) as snapshot:
            # All of one moment: so each activity is counted once.
            async for rows in snapshot.commanded(item.offset, SWEPT_AT_ONCE):
                await sweep.again(rows, became)
            if command.command == "reschedule":
                await self._reschedule(command, sweep, snapshot)
            elif command.command == "quiet_hours":
                await self._quieten(command, quiet_before, sweep, snapshot)
            else:
                await self._cancel(command, sweep, snapshot)
        self._last = sweep

    async def _belongs_elsewhere(self, item: Item[PodCommand], command: PodCommand) -> bool:
        """Whether none of its activities are of this shard, but some of another one, to which it is
        forwarded then."""
        rows = (await self._record.rows(command.activity_ids)).values()
        if not rows or any(row.shard in (None, self._shard) for row in rows):
            return False
        await self._forward(item.record, next(row.shard for row in rows if row.shard is not None))
        return True

    async def _share_post(self, item: Item[PodCommand], post_id: str) -> None:
        """Forward it where the post has activities in another shard: whoever sends may part keys in
        a way of their own. The first of several shards forwards it no further."""
        shard = (await self._record.shards_of_posts([post_id])).get(post_id, self._shard)
        if shard != self._shard:
            await self._forward(item.record, shard)

    async def _cancel(self, command: PodCommand, sweep: Sweep, snapshot: Snapshot) -> None:
        async def cancelled(rows: Sequence[ActivityRow]) -> Sequence[ActivityRow]:
            return [msgspec.structs.replace(row, status=Status.CANCELLED) for row in rows]

        reason = _reason(command)
        if command.activity_ids:
            named = list(dict.fromkeys(command.activity_ids))
            await sweep.run(named, "cancelled", cancelled, reason=reason, pending=True)
            return
        if command.command != "cancel" or about(command)[0] != "all":
            async for ids in snapshot.matching(selection(command), FINAL, SWEPT_AT_ONCE):
                sweep.final(ids)
        async for ids in snapshot.matching(selection(command), STANDING, AT_ONCE):
            await sweep.run(ids, "cancelled", cancelled, reason=reason)

    async def _reschedule(self, command: PodCommand, sweep: Sweep, snapshot: Snapshot) -> None:
        now_ms = await self._wheel.now_ms()
        times = dict(zip(command.activity_ids, map(millis, command.due_at or ()), strict=False))

        async def moved(rows: Sequence[ActivityRow]) -> Sequence[ActivityRow]:
            plans = await self._record.plans(sorted({row.post_id for row in rows}))
            members, pods = {row.member_id for row in rows}, {row.pod_id for row in rows}
            orders = await self._record.orders(self._topic, self._shard, members, pods)
            if times:
                # Whoever names a time means it, also where it is quiet then.
                wanted = [(row, max(now_ms, times[row.activity_id])) for row in rows]
                named = Orders(policies=orders.policies)
                with self._ruled():
                    pairs = rescheduled_times(wanted, self._policy, plans, named)
            else:
                shift_ms = command.shift_ms or 0
                with self._ruled():
                    pairs = postponed_times(rows, shift_ms, self._policy, plans, now_ms, orders)
            return [msgspec.structs.replace(row, scheduled_for_ms=due_ms) for row, due_ms in pairs]

        if not times:
            async for some in snapshot.matching(selection(command), FINAL, SWEPT_AT_ONCE):
                sweep.final(some)
        # All at once: what has been moved must not stand in the way of what is still to be.
        matching = snapshot.matching(selection(command), STANDING, SWEPT_AT_ONCE)
        ids = list(times) or [each async for some in matching for each in some]
        await sweep.run(ids, "rescheduled", moved)

    async def _quiet_before(self, command: PodCommand, offset: int) -> QuietHours | None:
        """The quiet hours that held until this command, which may be bound already."""
        about = subject(command)
        members, pods = (
            [about.name] if about.scope == scope else [] for scope in ("member", "pod")
        )
        orders = await self._record.orders(min(self._others), self._shard, members, pods)
        if orders.version < offset:
            return orders.quiet.get(about)
        return await self._record.quiet_before(self._shard, about, offset)

    async def _quieten(
        self, command: PodCommand, before: QuietHours | None, sweep: Sweep, snapshot: Snapshot
    ) -> None:
        """What waits comes as much later as if these quiet hours had been known, and not those
        that held until then."""
        about = subject(command)
        now_ms = await self._wheel.now_ms()

        async def wanted(rows: Collection[ActivityRow]) -> Mapping[str, tuple[int, Orders]]:
            orders = await self._record.orders(
                self._topic,
                self._shard,
                {row.member_id for row in rows},
                {row.pod_id for row in rows},
            )
            others = orders.with_quiet(about, before)
            times = {}
            for row in rows:
                if row.status in UNFIRED and row.scheduled_for_ms is not None:
                    was = others.quiet_for(row.pod_id, row.member_id)
                    hours = orders.quiet_for(row.pod_id, row.member_id)
                    with self._ruled():
                        delay_ms = between(was, now_ms, row.scheduled_for_ms)
                        times[row.activity_id] = (after(hours, now_ms, delay_ms), orders)
            return times

        async def moved(rows: Sequence[ActivityRow]) -> Sequence[ActivityRow]:
            times = await wanted(rows)
            plans = await self._record.plans(sorted({row.post_id for row in rows}))
            with self._ruled():
                pairs = rescheduled_times(
                    [(row, times[row.activity_id][0]) for row in rows if row.activity_id in times],
                    self._policy,
                    plans,
                    next(iter(times.values()))[1] if times else NO_ORDERS,
                )
            return [msgspec.structs.replace(row, scheduled_for_ms=due_ms) for row, due_ms in pairs]

        async for ids in snapshot.matching(selection(command), STANDING, AT_ONCE):
            rows = await self._record.rows(ids)
            times = await wanted(rows.values())
            # What is due by now stays so.
            others = [
                name
                for name, (due_ms, _) in times.items()
                if due_ms != max(now_ms, rows[name].scheduled_for_ms or 0)
            ]
            if others:
                await sweep.run(others, "rescheduled", moved)

    async def _follow(self, piece: Sequence[Item[PodCommand]], done: Done[PodCommand]) -> None:
        if _is_sweep(piece[0]) and not done.old and self._last is not None:
            self._wheel_at = None
            while await self._wheel.watermark(self._shard, self._topic) == done.expected:
                with suppress(OvertakenError):
                    return await self._last.finish(done.after)
        await super()._follow(piece, done)

    async def _tell(self, piece: Sequence[Item[PodCommand]], done: Done[PodCommand]) -> None:
        command = piece[0].event
        if command is None or not _is_sweep(piece[0]):
            return await super()._tell(piece, done)
        # The watermark has moved, so by now nobody changes anything more for this command: who else
        # may have done part of it is told of here as well.
        moved = _moves(command)
        async with self._record.snapshot(self._shard) as snapshot:
            async for rows in snapshot.commanded(piece[0].offset, AT_ONCE):
                # What has been sent by now, the dispatcher tells.
                still = (row for row in rows if row.status is not Status.DISPATCHED)
                statuses = [told(row, _reason(command), postponed=moved) for row in still]
                async with self._turns.turn(self._patience):
                    await self._outbox.announce(self._shard, statuses)

    # All others

    async def _decide(self, items: Sequence[Item[PodCommand]], ledger: Ledger) -> None:
        rows = {
            name: row
            for item in items
            if item.event is not None and not is_sweep(item.event)
            for name in item.event.activity_ids
            if (row := ledger.row(name))
        }
        plans: dict[str, PostPlan] = {}
        orders = NO_ORDERS
        days = NO_DAYS
        now_ms = 0
        if rows:
            posts = {row.post_id for row in rows.values()}
            members = {row.member_id for row in rows.values()}
            plans = dict(await self._record.plans(sorted(posts)))
            pods = {row.pod_id for row in rows.values()}
            orders = await self._record.orders(self._topic, self._shard, members, pods)
            # By the clock that will say when they are due.
            now_ms = await self._wheel.now_ms()
            if any(item.event is not None and item.event.command == "schedule" for item in items):
                orders = await with_times(self._record, orders, now_ms)
                days = days_of(orders, orders.caps)
        controls = {}
        done = []
        binding: Collection[str] = ()
        for item in items:
            command = item.event
            if command is None:
                await self._bury(item.record, item.reason)
                continue
            if (reason := fault(command)) is not None:
                await self._bury(item.record, reason)
                continue
            before = ledger.changed
            if is_sweep(command):
                tally = {} if self._last is None else self._last.tally
                done.append(applied(command, item.offset, tally))
                continue
            match command.command:
                case "schedule":
                    with self._ruled():
                        self._schedule(command, item.offset, ledger, plans, orders, days, now_ms)
                case "dispatch":
                    await self._dispatch(item, command, ledger, orders.opted_out, now_ms)
                case "postpone":
                    with self._ruled():
                        postpone(
                            self._shard,
                            command,
                            item.offset,
                            ledger,
                            self._policy,
                            plans,
                            now_ms,
                            orders,
                        )
                case "expire":
                    expire(self._shard, command, item.offset, ledger)
                case "pause" | "resume":
                    ledger.pauses[subject(command)] = command.command == "pause"
                    controls["paused", subject(command)] = control(command, item.offset)
                case "policy" | "quiet_hours" | "daily_cap":
                    controls[command.command, subject(command)] = control(command, item.offset)
                case "drain" | "undrain":
                    if self._shard != PROCESSES:
                        await self._forward(item.record, PROCESSES)
                        continue
                    controls["drained", subject(command)] = control(command, item.offset)
                case "opt_in":
                    controls["opted_out", subject(command)] = control(command, item.offset)
                    ledger.pauses[Subject("opted_out", subject(command).name)] = False
            if command.command in _BINDING:
                binding = self._others
            done.append(applied(command, item.offset, {"changed": ledger.changed - before}))
        ledger.verdict = Verdict(
            controls=tuple(controls.values()), applied=tuple(done), binding=tuple(sorted(binding))
        )

    def _schedule(
        self,
        command: PodCommand,
        offset: int,
        ledger: Ledger,
        plans: dict[str, PostPlan],
        orders: Orders,
        days: Mapping[str, CappedTimes],
        now_ms: int,
    ) -> None:
        rows: dict[str, list[ActivityRow]] = {}
        for name in dict.fromkeys(command.activity_ids):
            row = ledger.row(name)
            if row is None:
                ledger.ignored["unknown activity"] += 1
            elif row.status is not Status.PENDING:
                ledger.ignored["activity that is not pending"] += 1
            elif not _can_be_sent(row):
                ledger.ignored["activity with an id that no event may carry"] += 1
            elif row.member_id in orders.opted_out:
                self._skip(row, offset, ledger)
            else:
                rows.setdefault(row.post_id, []).append(row)
        for post_id, pending in rows.items():
            policy = orders.policy(pending[0].pod_id, self._policy)
            if command.like_cap is not None:
                policy = replace(policy, like_cap=command.like_cap)
            plan = plans.get(post_id, _NOTHING_PLANNED)
            likes: list[int] = []
            for row, due_ms in scheduled_times(pending, policy, plan, now_ms, orders, days):
                self._plan(row, due_ms, offset, ledger)
                if row.member_id in days:
                    ledger.plans[row.member_id] = orders.plans[row.member_id]
                if row.engagement_type == "like":
                    likes.append(due_ms)
            plans[post_id] = PostPlan(
                plan.activity_ids, tuple(sorted([*plan.like_times_ms, *likes]))
            )

    def _plan(self, row: ActivityRow, due_ms: int, offset: int, ledger: Ledger) -> None:
        after = msgspec.structs.replace(
            row, status=Status.SCHEDULED, scheduled_for_ms=due_ms, shard=self._shard
        )
        ledger.change(after, offset, told(after))

    def _skip(self, row: ActivityRow, offset: int, ledger: Ledger) -> None:
        after = msgspec.structs.replace(row, status=Status.CANCELLED, shard=self._shard)
        ledger.change(after, offset, told(after, OPTED_OUT), last_error=OPTED_OUT)

    async def _dispatch(
        self,
        item: Item[PodCommand],
        command: PodCommand,
        ledger: Ledger,
        opted_out: Collection[str],
        now_ms: int,
    ) -> None:
        names = dict.fromkeys(command.activity_ids)
        rows = [row for name in names if (row := ledger.row(name))]
        if len(rows) < len(names):
            ledger.ignored["unknown activity"] += len(names) - len(rows)
        ours = [row for row in rows if row.shard in (None, self._shard)]
        if rows and not ours:
            # To a shard that has some of them, which forwards it no further.
            await self._forward(item.record, rows[0].shard or 0)
            return
        if len(ours) < len(rows):
            ledger.ignored["activity of another shard"] += len(rows) - len(ours)
        for row in ours:
            if row.status is Status.PENDING and not _can_be_sent(row):
                ledger.ignored["activity with an id that no event may carry"] += 1
            elif row.status is Status.PENDING and row.member_id in opted_out:
                self._skip(row, item.offset, ledger)
            elif row.status is Status.PENDING:
                self._plan(row, now_ms, item.offset, ledger)
            elif row.status in UNFIRED and self._may_wait(row.scheduled_for_ms or 0, now_ms):
                ledger.change(msgspec.structs.replace(row, scheduled_for_ms=now_ms), item.offset)
            else:
                ledger.ignored["activity that does not wait"] += 1

    @contextmanager
    def _ruled(self) -> Iterator[None]:
        """Around the rules for times. A bug in them must not have one command hold up its
        neighbours for ever: it is buried."""
        try:
            yield
        except Exception as error:
            log.exception("a command cannot be applied", shard=self._shard)
            raise CulpritError(repr(error)) from error

    def _may_wait(self, due_ms: int, now_ms: int) -> bool:
        """Whether the timer does not fire by itself at once: it may be held back as overdue."""
        late_ms = now_ms - due_ms
        return late_ms < 0 or (self._overdue is not None and late_ms > self._overdue.after_ms)

    # What had been applied before

    def _redo(self, item: Item[PodCommand], rows: Mapping[str, ActivityRow], redo: Redo) -> None:
        command = item.event
        if command is None or fault(command) is not None:
            return
        if is_report(command):
            return redo_report(self._shard, command, item.offset, rows, redo)
        if is_sweep(command):
            # What it has changed in the wheel was there before the record had applied it. So this
            # wheel has either lost nothing but the watermark, or what it held a moment before.
            redo.lost = True
        if command.command in ("pause", "resume"):
            redo.pauses[subject(command)] = command.command == "pause"
        elif command.command == "opt_in":
            redo.pauses[Subject("opted_out", subject(command).name)] = False
        for name in self._ids(command):
            row = rows.get(name)
            if row is None or row.status not in UNFIRED or row.command_offset is None:
                continue
            if row.shard != self._shard:
                continue
            if row.command_offset != item.offset or command.command == "dispatch":
                # Where its timer was before, or whether this command has scheduled what a later one
                # has dispatched, nobody knows any more.
                redo.lost = True
            elif timer := timer_of(row):
                redo.add.append(timer)

    def _retell(
        self, item: Item[PodCommand], rows: Mapping[str, ActivityRow]
    ) -> tuple[list[Announcement], list[Letter]]:
        command = item.event
        if command is None:
            return [], []
        ours = [
            row
            for name in dict.fromkeys(self._ids(command))
            if (row := rows.get(name))
            and row.command_offset == item.offset
            and row.shard == self._shard
        ]
        if is_report(command):
            return retold(command, ours), []
        if command.command in ("schedule", "dispatch"):
            scheduled = command.command == "schedule"
            return [
                told(row, OPTED_OUT if row.status is Status.CANCELLED else None)
                for row in ours
                if row.status is Status.CANCELLED or (scheduled and row.status is Status.SCHEDULED)
            ], []
        return [], []


def _can_be_sent(row: ActivityRow) -> bool:
    """Whether events can tell of it: an upstream system may have inserted any ids. Its results
    would be refused, and it would never come to an end."""
    return is_id(row.pod_id) and is_id(row.post_id) and is_id(row.member_id)


def _is_sweep(item: Item[PodCommand]) -> bool:
    return item.event is not None and is_sweep(item.event)


def _moves(command: PodCommand) -> bool:
    """Whether this sweep moves what it is about; else it cancels it."""
    return command.command in ("reschedule", "quiet_hours")


def _reason(command: PodCommand) -> str | None:
    if command.command == "opt_out":
        return OPTED_OUT
    if command.command == "quiet_hours":
        return plain(command.reason, _MAX_REASON_CHARS) or "quiet hours"
    return plain(command.reason, _MAX_REASON_CHARS) or None
