"""Applies `post-detected` to one shard, exactly once, whatever is delivered how often.

The order of the steps is the guarantee: the rows with the record's watermark, then the timers with
the wheel's watermark, then the statuses; the caller acks only after that. Each step either shows by
its watermark that it has been done, or may be done again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TypeVar

import structlog
from msgspec import Struct
from msgspec.structs import replace

from scheduler.activity import Announcement, PlannedActivity, PostPlan, Status
from scheduler.batch import MAX_ROWS, Item, chunks, parted, read
from scheduler.capped import with_times
from scheduler.controls import Orders
from scheduler.errors import DataRefusedError, StoreUnavailableError
from scheduler.patience import Patience
from scheduler.planner import extended, plan, planned_for
from scheduler.policy import PacingPolicy
from scheduler.ports import Outbox, Record, SourceRecord, Wheel
from scheduler.timer import Timer
from schemas.events import PostDetected
from schemas.times import millis

READ_BACK_OFFSETS = 200
"""Source offsets read back at once, at most, and of these no more than `MAX_ROWS` rows: a Redis
that lost an hour must not be held in one script, nor a worker's memory."""

PLANNED_PER_TURN = 500
"""Activities planned before other tasks get their turn (some milliseconds)."""

_NOTHING_PLANNED = PostPlan()

log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class _Applied(Struct, frozen=True):
    """What the record now holds: new rows for (expected, upto], and the offsets it had before."""

    expected: int
    upto: int
    rows: Sequence[PlannedActivity]
    covered: tuple[int, int] | None  # first and last offset that had been applied before


class PostDetectedApplier:
    """Applies the records of one shard. One instance for each time the shard is assigned.

    Not to be called by two tasks at once. Two instances for one shard, in whatever processes, do
    no harm: one of them loses each swap, reads again, and drops what is covered.
    """

    def __init__(
        self,
        shard: int,
        topic: str,
        *,
        policy: PacingPolicy,
        record: Record,
        wheel: Wheel,
        outbox: Outbox,
        patience: Patience | None = None,
        planning: asyncio.Lock | None = None,
    ) -> None:
        """`topic` is the full name on the cluster, under which both watermarks are kept.

        `planning` is shared by the shards of a process: only one plans a large batch at a time.
        Else all would end with it at one moment, and then all wait for PostgreSQL.
        """
        self._shard = shard
        self._planning = planning or asyncio.Lock()
        self._topic = topic
        self._policy = policy
        self._record = record
        self._wheel = wheel
        self._outbox = outbox
        self._patience = patience or Patience(f"{topic}/{shard}")
        # The watermarks as last seen. Only ever used as the expected side of a swap: a cached
        # value may lie in both directions, so nothing is skipped because of it.
        self._record_at: int | None = None
        self._wheel_at: int | None = None
        # The version of the orders, likewise: what was planned by an older one is refused.
        self._orders_version: int | None = None
        self._buried: set[int] = set()

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        """Apply `records` (of this shard, offsets ascending); afterwards they may be acked.

        Waits for as long as a store is away. A record that cannot be applied is confirmed on
        `dead-letter` (at least once) before the watermark moves over it. `scheduled` statuses are
        at least once: those of records that had been applied before are sent again, with the same
        ids, unless the activity has fired meanwhile; then `dispatched` speaks for it. Anything
        raised is a bug: the records must not be acked.
        """
        self._buried.clear()
        pieces = list(chunks([read(record, PostDetected) for record in records]))
        pieces.reverse()
        while pieces:
            piece = pieces.pop()
            try:
                applied = await self._patiently(partial(self._commit, piece))
            except DataRefusedError as error:
                pieces += reversed(parted(piece, error))
                continue
            await self._patiently(partial(self._add, applied))
            await self._patiently(partial(self._announce, applied))

    async def catch_up(self) -> None:
        """Compare the watermarks of both stores, and add what the wheel has lost.

        To be called at start and now and then: a Redis that came back without its last adds
        shows nothing of it until the next event. Raises `TransientError`; try again later.
        """
        self._forget()
        # In this order a wheel ahead of the record cannot be a race: rows are committed first.
        wheel_at = await self._wheel.watermark(self._shard, self._topic)
        record_at = await self._record.watermark(self._topic, self._shard)
        where = {"topic": self._topic, "shard": self._shard}
        if wheel_at > record_at:
            log.error(
                "PostgreSQL has lost what it had confirmed; the wheel is rebuilt from it. To get"
                " the lost events back, set the offsets of the worker group back",
                **where,
                wheel_at=wheel_at,
                record_at=record_at,
            )
            await self._wheel.forget(self._shard)
            return
        if wheel_at < record_at:
            log.info("reading back", **where, wheel_at=wheel_at, record_at=record_at)
        self._wheel_at = await self._read_back(wheel_at, record_at)

    async def _patiently(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        return await self._patience.until_done(attempt, forget=self._forget)

    def _forget(self) -> None:
        self._record_at = self._wheel_at = self._orders_version = None

    async def _commit(self, piece: Sequence[Item[PostDetected]]) -> _Applied:
        """Bring `piece` into the record, by one swap of its watermark."""
        lost_at: tuple[int, Orders] | None = None
        while True:
            at = self._record_at
            if at is None or piece[0].offset <= at:
                at = await self._record.watermark(self._topic, self._shard)
            new = [item for item in piece if item.offset > at]
            old = piece[: len(piece) - len(new)]
            covered = (old[0].offset, old[-1].offset) if old else None
            if not new:
                self._record_at = at
                # Up to where the record is, which may be beyond this piece: the wheel must follow
                # it, and never be sent back.
                return _Applied(at, at, (), covered)
            orders = await self._orders(new)
            if (at, orders) == lost_at:
                raise StoreUnavailableError("PostgreSQL", f"its watermark {at} is stale")
            rows = await self._planned(new, orders)
            upto = new[-1].offset
            # In doubt until the answer is here.
            self._record_at = self._orders_version = None
            there = await self._record.apply_plan(
                self._topic,
                self._shard,
                at,
                upto,
                rows,
                decided_by=orders.version,
                plans=orders.plans,
            )
            if there is not None:
                self._record_at, self._orders_version = upto, orders.version
                if there:
                    rows = [row for row in rows if row.activity_id not in there]
                return _Applied(at, upto, rows, covered)
            lost_at = (at, orders)

    async def _orders(self, items: Sequence[Item[PostDetected]]) -> Orders:
        """What is to be known of the members in `items`; asked for where anything ever was."""
        if self._orders_version == -1:
            return Orders()
        events = [item.event for item in items if item.event is not None]
        members = {name for event in events for name in event.member_ids}
        pods = {event.pod_id for event in events}
        orders = await self._record.orders(self._topic, self._shard, members, pods)
        since_ms = min((millis(event.detected_at) for event in events), default=0)
        return await with_times(self._record, orders, since_ms)

    async def _planned(
        self, items: Sequence[Item[PostDetected]], orders: Orders
    ) -> list[PlannedActivity]:
        """The plan for `items` in order, each seeing what those before it have planned."""
        posts = {item.event.post_id for item in items if item.event is not None}
        plans = dict(await self._record.plans(sorted(posts))) if posts else {}
        large = sum(item.rows for item in items) > PLANNED_PER_TURN
        async with self._planning if large else nullcontext():
            rows, dead = await self._plan(items, plans, orders)
        for record, reason in dead:
            await self._bury(record, reason)
        return rows

    async def _plan(
        self, items: Sequence[Item[PostDetected]], plans: dict[str, PostPlan], orders: Orders
    ) -> tuple[list[PlannedActivity], list[tuple[SourceRecord, str]]]:
        """What `items` make on top of `plans`, by post; and what cannot be planned, and why. Waits
        for no store: others may wait for this."""
        rows: list[PlannedActivity] = []
        dead: list[tuple[SourceRecord, str]] = []
        unyielded = 0
        for item in items:
            event = item.event
            if event is None:
                dead.append((item.record, item.reason))
                continue
            existing = plans.get(event.post_id, _NOTHING_PLANNED)
            try:
                planned = plan(event, self._policy, existing, item.offset, orders)
            except Exception as error:
                # A bug in the planner; but one event must not hold up its neighbours for ever.
                log.exception("an event cannot be planned", shard=self._shard, offset=item.offset)
                dead.append((item.record, f"cannot be planned: {error!r}"))
                continue
            if planned:
                plans[event.post_id] = extended(existing, planned)
                orders = planned_for(orders, planned)
                rows += planned
            unyielded += item.rows
            if unyielded >= PLANNED_PER_TURN:
                unyielded = 0
                await asyncio.sleep(0)
        return rows, dead

    async def _bury(self, record: SourceRecord, reason: str) -> None:
        # A retry of this batch for another reason must not send it again each time.
        if record.offset not in self._buried:
            await self._outbox.dead_letter(record, reason)
            self._buried.add(record.offset)

    async def _add(self, done: _Applied) -> None:
        """Bring the wheel to where the record is, at least up to `done`."""
        at = self._wheel_at
        if at is None or at >= done.upto:
            at = await self._wheel.watermark(self._shard, self._topic)
        if at == done.expected:
            timers = [_timer(row) for row in done.rows if row.skipped is None]
            self._wheel_at = None
            at = await self._wheel.add(
                self._shard, self._topic, at, done.upto, timers, planned=True
            )
        self._wheel_at = await self._read_back(at, done.upto)

    async def _read_back(self, at: int, upto: int) -> int:
        """Add from the record what the wheel lacks in (at, upto]; returns the wheel's watermark."""
        while at < upto:
            self._wheel_at = None
            near = min(at + READ_BACK_OFFSETS, upto)
            to = await self._record.reach_between(self._shard, at, near, MAX_ROWS)
            timers = await self._record.unfired_between(self._shard, at, to)
            at = await self._wheel.add(self._shard, self._topic, at, to, timers)
        return at

    async def _announce(self, done: _Applied) -> None:
        """Send the `scheduled` statuses; again for what had been applied before."""
        statuses: list[Announcement] = []
        if done.covered:
            first, last = done.covered
            timers = await self._record.unfired_between(self._shard, first - 1, last)
            statuses += [_scheduled(timer, timer.due_ms) for timer in timers]
            if self._orders_version != -1:
                statuses += await self._record.skipped_between(self._shard, first - 1, last)
        statuses += [_planned(row) for row in done.rows]
        if statuses:
            await self._outbox.announce(self._shard, statuses)


def _timer(row: PlannedActivity) -> Timer:
    return Timer(
        row.activity_id,
        row.pod_id,
        row.post_id,
        row.member_id,
        row.engagement_type,
        1,
        row.scheduled_for_ms,
    )


def _planned(row: PlannedActivity) -> Announcement:
    told = _scheduled(row, row.scheduled_for_ms)
    if row.skipped is None:
        return told
    return replace(told, status=Status.CANCELLED, scheduled_for_ms=None, reason=row.skipped)


def _scheduled(each: Timer | PlannedActivity, due_ms: int) -> Announcement:
    return Announcement(
        each.activity_id,
        each.pod_id,
        each.post_id,
        each.member_id,
        each.engagement_type,
        Status.SCHEDULED,
        1,
        due_ms,
    )
