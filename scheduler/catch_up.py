"""What a dispatcher's report of overdue timers makes of their rows.

A row counts only if it still waits and is due at the very time that was reported. So copies of a
report do nothing, nor does one that has been overtaken by a result, a command, or another owner of
the shard.
"""

from collections.abc import Mapping, MutableMapping, Sequence

from msgspec.structs import replace

from scheduler.activity import UNFIRED, ActivityRow, Announcement, PostPlan, Status
from scheduler.change import Redo
from scheduler.controls import Orders
from scheduler.ledger import Ledger, timer_of, told
from scheduler.planner import NO_ORDERS, postponed_times, replanned
from scheduler.policy import PacingPolicy
from schemas.events import PodCommand
from schemas.times import millis


def is_report(command: PodCommand) -> bool:
    """Whether `command` is about overdue timers."""
    return command.command in ("postpone", "expire")


def postpone(
    shard: int,
    command: PodCommand,
    offset: int,
    ledger: Ledger,
    policy: PacingPolicy,
    plans: MutableMapping[str, PostPlan],
    now_ms: int,
    orders: Orders = NO_ORDERS,
) -> None:
    """Lay the reported timers out anew, beside what else is planned for their posts (`plans`, which
    is kept up to date)."""
    rows = _still_overdue(shard, command, ledger)
    likes: dict[str, list[tuple[int, int]]] = {}
    for row, due_ms in postponed_times(rows, command.shift_ms or 0, policy, plans, now_ms, orders):
        was_ms = row.scheduled_for_ms or 0
        after = replace(row, scheduled_for_ms=due_ms)
        reason = _postponed(command, was_ms, due_ms)
        ledger.change(after, offset, told(after, reason, postponed=True))
        if row.engagement_type == "like":
            likes.setdefault(row.post_id, []).append((was_ms, due_ms))
    for post_id, moved in likes.items():
        plans[post_id] = replanned(plans.get(post_id, PostPlan()), moved)


def expire(shard: int, command: PodCommand, offset: int, ledger: Ledger) -> None:
    """Give the reported timers up."""
    for row in _still_overdue(shard, command, ledger):
        after = replace(row, status=Status.EXPIRED)
        reason = _expired(command, row.scheduled_for_ms or 0)
        ledger.change(after, offset, told(after, reason), last_error=reason)


def redo_report(
    shard: int, command: PodCommand, offset: int, rows: Mapping[str, ActivityRow], redo: Redo
) -> None:
    """Enter into `redo` what a wheel lacks to which the report at `offset` has not come."""
    for name, due_ms in _due_times(command).items():
        row = rows.get(name)
        if row is None or row.shard != shard or row.status is Status.DISPATCHED:
            continue
        if row.command_offset == offset:
            # The report itself tells where the timer was.
            if timer := timer_of(replace(row, scheduled_for_ms=due_ms)):
                redo.remove.append(timer)
            if row.status in UNFIRED and (timer := timer_of(row)):
                redo.add.append(timer)
        elif row.command_offset is not None and row.command_offset < offset:
            continue  # nothing has changed it since, so this report has not
        elif row.status not in UNFIRED or row.scheduled_for_ms != due_ms:
            # Whether what has changed it later began with this report, nobody knows any more.
            redo.lost = True


def retold(command: PodCommand, rows: Sequence[ActivityRow]) -> list[Announcement]:
    """What is told of `rows`, which the report was the last to change."""
    times = _due_times(command)
    announcements = []
    for row in rows:
        was_ms, due_ms = times.get(row.activity_id), row.scheduled_for_ms
        if was_ms is None or due_ms is None:
            continue
        if row.status is Status.EXPIRED:
            announcements.append(told(row, _expired(command, was_ms)))
        elif row.status in UNFIRED:
            reason = _postponed(command, was_ms, due_ms)
            announcements.append(told(row, reason, postponed=True))
    return announcements


def _still_overdue(shard: int, command: PodCommand, ledger: Ledger) -> list[ActivityRow]:
    found = []
    for name, due_ms in _due_times(command).items():
        row = ledger.row(name)
        if row is None:
            ledger.ignored["unknown activity"] += 1
        elif row.shard != shard:
            ledger.ignored["activity of another shard"] += 1
        elif row.status not in UNFIRED or row.scheduled_for_ms != due_ms:
            ledger.ignored["activity that is no longer overdue"] += 1
        else:
            found.append(row)
    return found


def _due_times(command: PodCommand) -> Mapping[str, int]:
    """When each activity was due (ms), in the order of the report."""
    return dict(zip(command.activity_ids, map(millis, command.due_at or ()), strict=False))


def _expired(command: PodCommand, due_ms: int) -> str:
    return f"found {_seconds(millis(command.issued_at) - due_ms)} late"


def _postponed(command: PodCommand, due_ms: int, new_ms: int) -> str:
    return f"{_expired(command, due_ms)}, postponed by {_seconds(new_ms - due_ms)}"


def _seconds(ms: int) -> str:
    return f"{ms / 1000:g} s" if ms < 1_000_000 else f"{ms // 1000} s"
