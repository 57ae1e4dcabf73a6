"""Applies `pod-commands` to one shard, exactly once: schedule, dispatch, cancel, and the
dispatcher's reports of overdue timers."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec

from scheduler.activity import UNFIRED, ActivityRow, Announcement, PostPlan, Status
from scheduler.batch import Item
from scheduler.catch_up import expire, fault, is_report, postpone, redo_report, retold
from scheduler.change import Done, Redo, RowApplier
from scheduler.errors import WheelLostError
from scheduler.ledger import Ledger, Letter, timer_of, told
from scheduler.outcome import plain
from scheduler.patience import Patience
from scheduler.planner import scheduled_times
from scheduler.policy import OverduePolicy, PacingPolicy
from scheduler.ports import Outbox, Record, Wheel
from schemas.events import PodCommand, is_id

CANCELLED_AT_ONCE = 1_000
"""Rows of one statement of a `cancel`."""

_NOTHING_PLANNED = PostPlan()
_MAX_REASON_CHARS = 200


class CommandApplier(RowApplier[PodCommand]):
    """See `RowApplier`.

    `schedule` plans rows that are still pending, in the order given, from the moment it is applied.
    `dispatch` makes a timer due at once if it still waits. Both leave alone what is further on.
    `cancel` ends whatever waits in the wheel of this shard; its wheel is then built anew from what
    is left, since that is the one way in which no timer can be forgotten. `postpone` and `expire`
    count for rows that wait and are due at the very time that the dispatcher has reported, so that
    copies of a report, and what has been overtaken, do nothing.
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
    ) -> None:
        """See `RowApplier`; `overdue` is the dispatchers' policy."""
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
        self._forgotten = False  # whether the wheel in question was declared lost for a cancel

    def _runs(self, items: Sequence[Item[PodCommand]]) -> Sequence[Sequence[Item[PodCommand]]]:
        runs: list[list[Item[PodCommand]]] = [[]]
        for item in items:
            if _is_cancel(item):
                runs += [[item], []]
            else:
                runs[-1].append(item)
        return [run for run in runs if run]

    def _ids(self, event: PodCommand) -> Sequence[str]:
        return () if event.command == "cancel" else event.activity_ids

    async def _commit(self, piece: Sequence[Item[PodCommand]]) -> Done[PodCommand]:
        command = piece[0].event
        if command is not None and _is_cancel(piece[0]):
            offset = piece[0].offset
            at = await self._record.watermark(self._topic, self._shard)
            if offset > at:
                await self._cancel(command, offset, at)
        return await super()._commit(piece)

    async def _cancel(self, command: PodCommand, offset: int, at: int) -> None:
        """All but moving the watermark; may be done again from the start."""
        async with self._record.snapshot(self._shard) as snapshot:
            async for timers in snapshot.unfired(CANCELLED_AT_ONCE):
                ids = [
                    each.activity_id
                    for each in timers
                    if command.pod_id is None or each.pod_id == command.pod_id
                ]
                await self._cancel_rows(ids, offset, at)

    async def _follow(self, piece: Sequence[Item[PodCommand]], done: Done[PodCommand]) -> None:
        if not _is_cancel(piece[0]):
            return await super()._follow(piece, done)
        # Not by a call of our own: only a wheel built after the record's watermark had moved has
        # that watermark, and none of what was cancelled.
        self._wheel_at = None
        if done.expected < done.upto and not self._forgotten:
            self._forgotten = True
            await self._rebuild("activities were cancelled")
        if await self._wheel.watermark(self._shard, self._topic) < done.upto:
            await self._rebuild("it was built before activities were cancelled")
            raise WheelLostError(self._shard, "it is built once more")
        self._forgotten = False

    async def _tell(self, piece: Sequence[Item[PodCommand]], done: Done[PodCommand]) -> None:
        command = piece[0].event
        if command is None or not _is_cancel(piece[0]):
            return await super()._tell(piece, done)
        # The watermark has moved, so by now nobody cancels anything more for this command: who else
        # may have done part of it is told of here as well.
        reason = plain(command.reason, _MAX_REASON_CHARS) or None
        async with self._record.snapshot(self._shard) as snapshot:
            async for rows in snapshot.commanded(piece[0].offset, CANCELLED_AT_ONCE):
                await self._outbox.announce(self._shard, [told(row, reason) for row in rows])

    async def _cancel_rows(self, ids: Sequence[str], offset: int, at: int) -> None:
        while ids:
            ledger = Ledger(await self._record.rows(ids))
            for name in ids:
                row = ledger.row(name)
                if row is not None and row.status in UNFIRED:
                    ledger.change(msgspec.structs.replace(row, status=Status.CANCELLED), offset)
            if not (changes := ledger.changes):
                return
            done = await self._record.change(self._topic, self._shard, at, at, changes, by=self._by)
            if done is not None or await self._record.watermark(self._topic, self._shard) != at:
                return  # the latter: somebody else has applied it meanwhile

    async def _decide(self, items: Sequence[Item[PodCommand]], ledger: Ledger) -> None:
        posts = {
            row.post_id
            for item in items
            if item.event is not None and item.event.command in ("schedule", "postpone")
            for name in item.event.activity_ids
            if (row := ledger.row(name))
        }
        plans = dict(await self._record.plans(sorted(posts))) if posts else {}
        now_ms = 0
        if any(item.event is not None and not _is_cancel(item) for item in items):
            # By the clock that will say when they are due.
            now_ms = await self._wheel.now_ms()
        for item in items:
            command = item.event
            if command is None:
                await self._bury(item.record, item.reason)
            elif command.command == "schedule":
                self._schedule(command, item.offset, ledger, plans, now_ms)
            elif command.command == "dispatch":
                await self._dispatch(item, command, ledger, now_ms)
            elif is_report(command) and (reason := fault(command)) is not None:
                await self._bury(item.record, reason)
            elif command.command == "postpone":
                postpone(self._shard, command, item.offset, ledger, self._policy, plans, now_ms)
            elif command.command == "expire":
                expire(self._shard, command, item.offset, ledger)

    def _schedule(
        self,
        command: PodCommand,
        offset: int,
        ledger: Ledger,
        plans: dict[str, PostPlan],
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
            else:
                rows.setdefault(row.post_id, []).append(row)
        policy = self._policy
        if command.like_cap is not None:
            policy = replace(policy, like_cap=command.like_cap)
        for post_id, pending in rows.items():
            plan = plans.get(post_id, _NOTHING_PLANNED)
            likes: list[int] = []
            for row, due_ms in scheduled_times(pending, policy, plan, now_ms):
                self._plan(row, due_ms, offset, ledger)
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

    async def _dispatch(
        self, item: Item[PodCommand], command: PodCommand, ledger: Ledger, now_ms: int
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
            elif row.status is Status.PENDING:
                self._plan(row, now_ms, item.offset, ledger)
            elif row.status in UNFIRED and self._may_wait(row.scheduled_for_ms or 0, now_ms):
                ledger.change(msgspec.structs.replace(row, scheduled_for_ms=now_ms), item.offset)
            else:
                ledger.ignored["activity that does not wait"] += 1

    def _may_wait(self, due_ms: int, now_ms: int) -> bool:
        """Whether the timer does not fire by itself at once: it may be held back as overdue."""
        late_ms = now_ms - due_ms
        return late_ms < 0 or (self._overdue is not None and late_ms > self._overdue.after_ms)

    def _redo(self, item: Item[PodCommand], rows: Mapping[str, ActivityRow], redo: Redo) -> None:
        command = item.event
        if command is not None and is_report(command) and fault(command) is None:
            return redo_report(self._shard, command, item.offset, rows, redo)
        for name in self._ids(command) if command else ():
            row = rows.get(name)
            if row is None or row.status not in UNFIRED or row.command_offset is None:
                continue
            if row.shard != self._shard:
                continue
            if row.command_offset != item.offset or (command and command.command == "dispatch"):
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
        if command.command == "schedule":
            return [told(row) for row in ours if row.status is Status.SCHEDULED], []
        return [], []


def _can_be_sent(row: ActivityRow) -> bool:
    """Whether events can tell of it: an upstream system may have inserted any ids. Its results
    would be refused, and it would never come to an end."""
    return is_id(row.pod_id) and is_id(row.post_id) and is_id(row.member_id)


def _is_cancel(item: Item[PodCommand]) -> bool:
    return item.event is not None and item.event.command == "cancel"
