"""Compares what the three stores say of one shard, while the system runs.

First all timers of the wheel are held against their rows, page by page, then all rows against the
wheel. Nothing of that is of one moment, and while it goes on timers are added, sent and answered:
what does not agree at first sight is a candidate, and no more. A second look decides about it
(`scheduler.second_look`).

Why what it reports is real. For an activity, let R be its row as read in one snapshot together with
the record's watermarks M, and let its row be the same version when it is read again at the end: so
it was R all the while, and nothing that anybody applied to it was committed in between.

- *What inputs do.* Every change of a row is committed with its topic's watermark, and reaches the
  wheel in the order of the record (`Wheel.add`, `after`). The wheel is looked at once its
  watermarks have reached M in the same life (`gen`): by then it has had all that made R what it is.
  It has had nothing later of this activity, since that would have been committed before, and R
  would not be the same at the end. The one change without a watermark is a sweep at work
  (`scheduler.sweep`); its rows name a command that is not applied yet, and are left alone.
- *What sending does.* A timer leaves its slot for the batch in flight, and that one, once Kafka has
  committed it, for the awaited results; each in one step, and all are looked at in one moment. If
  it is awaited or gone, its `dispatched` was committed before that moment. The record knows of it
  (then R says so), or it stands in `engagement-status` behind M: that is read, to the end as it is
  after the look. A deadline that came is in `engagement-executed` likewise.
- *Rebuilds.* Each has a new generation; a look that meets another one than it began with throws
  away all that it has found, and begins anew.

What it may miss: what comes and goes between two looks, an activity that is claimed at that moment,
and what changes hands faster than it can be looked at. Another time it will be seen. What cannot be
decided in time, since a store is behind and does not come up, is reported as undecided; that the
store is behind is a difference of its own, once it has not moved for the time limit.

It owns nothing, locks nothing and writes nothing; pages are small, with a pause behind each.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing

from msgspec import Struct

from scheduler.compare import Known, agrees, row_side, timer_for
from scheduler.difference import Difference, Kind
from scheduler.findings import UNREAD, Findings, ShardReport
from scheduler.history import sort_by_history
from scheduler.mentions import dispatched
from scheduler.ports import LogView, Placed, Record, WheelView
from scheduler.second_look import (
    LOOK_S,
    AnotherLife,
    Candidate,
    SecondLook,
    Stores,
)
from schemas.topics import Topics

CHUNK = 1_000
"""Rows, or timers, held against the other side at once."""

PAUSE_S = 0.005
"""Behind each chunk, so that whoever dispatches comes first."""

LIVES = 3
"""How often a look begins anew since the wheel was rebuilt meanwhile."""

OVERDUE_MS = 10_000
"""What is due for longer than that should have fired, whatever owner has just died."""

REBUILT = "the wheel is rebuilt again and again"


class Reconciler:
    """Compares shards, one after the other. Writes nothing."""

    def __init__(
        self,
        wheel: WheelView,
        record: Record,
        log: LogView,
        topics: Topics,
        *,
        await_ms: int,
        timeout_s: float,
        first: int = 20,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`await_ms` is how long results are awaited. `timeout_s` is what a store that is behind
        may take to come up; `first` differences are reported with all that is known of them."""
        self._stores = Stores(
            wheel, record, log, topics, await_ms, timeout_s, lambda: _Limit(clock, timeout_s), sleep
        )
        self._first = first

    async def run_once(self, shard: int) -> ShardReport:
        """Compare one shard. Raises what the stores raise."""
        findings = Findings(shard, self._first)
        for _ in range(LIVES):
            findings = Findings(shard, self._first)
            try:
                await _Look(shard, self._stores, findings).run()
            except AnotherLife:
                continue
            return findings.report()
        findings.undecided(REBUILT)
        return findings.report()


class _Limit(Struct):
    clock: Callable[[], float]
    for_s: float
    began_s: float = -1.0

    def over(self) -> bool:
        """Whether it is over; it begins with the first question."""
        if self.began_s < 0:
            self.began_s = self.clock()
        return self.clock() - self.began_s >= self.for_s


class _Look:
    """One look at one shard."""

    def __init__(self, shard: int, stores: Stores, findings: Findings) -> None:
        self._shard = shard
        self._stores = stores
        self._findings = findings

    async def run(self) -> None:
        await self._offsets()
        gen = await self._generation()
        if gen is None:
            self._tell(Kind.NO_WHEEL)
            return
        second = SecondLook(self._shard, gen, self._stores, self._findings)
        await self._watermarks(second)
        await self._projection()
        await self._cursor(second)
        await self._timers(second)
        await self._rows(second)
        await self._firing(second)
        try:
            async with asyncio.timeout(self._stores.read_s):
                await sort_by_history(self._shard, self._stores, self._findings)
        except TimeoutError:
            self._findings.undecided(UNREAD, len(self._findings.history))
        second.same(await self._stores.wheel.meta(self._shard))

    def _tell(self, kind: Kind, note: str = "") -> None:
        self._findings.add(Difference(kind, note=note))

    async def _generation(self) -> str | None:
        """The wheel's, once it has one; None where it gets none in time, and nobody builds it."""
        wheel, shard = self._stores.wheel, self._shard
        built, limit = None, self._stores.limit()
        while (gen := (meta := await wheel.meta(shard)).gen) is None:
            size = await wheel.size(shard)
            if built != (built := (meta.owned, size.pending, size.awaited)):
                limit = self._stores.limit()
            if limit.over():
                return None
            await self._stores.sleep(LOOK_S)
        return gen

    async def _offsets(self) -> None:
        """How far each store has come with each topic, each read before the one it may not be ahead
        of: what is acked was in the wheel before, that in the record, and that in Kafka."""
        stores, shard = self._stores, self._shard
        topics = stores.topics
        acked = await stores.log.acked()
        meta = await stores.wheel.meta(shard)
        async with stores.record.snapshot(shard) as snapshot:
            marks = snapshot.watermarks
        spans = await stores.log.spans([*topics.inputs, topics.engagement_status], [shard])
        for topic in (*topics.inputs, topics.engagement_status):
            at, end = marks.get(topic, -1), spans[topic][shard][1]
            known = self._findings.offsets[topic] = {"postgresql": at, "kafka": end - 1}
            if topic == topics.engagement_status:
                if at >= end:
                    self._tell(Kind.PROJECTION_AHEAD, f"at {at}, the topic ends at {end - 1}")
                continue
            in_wheel = None if meta.gen is None else meta.watermarks.get(topic, -1)
            done = acked.get(topic, {}).get(shard, -1)
            known |= {"redis": in_wheel, "acked": done}
            if at >= end:
                self._tell(Kind.RECORD_AHEAD, f"{topic} at {at}, it ends at {end - 1}")
            elif done > at:
                await self._unapplied(topic, at, done)

    async def _unapplied(self, topic: str, at: int, acked: int) -> None:
        """What is acked and not applied; there may be nothing but transaction markers."""
        stores, shard = self._stores, self._shard
        passed = stores.log.read(topic, shard, at + 1, acked + 1, committed=False)
        async with aclosing(passed):
            async for page in passed:
                offsets = [offset for offset, _ in page]
                at = await stores.record.watermark(topic, shard)
                if lost := [offset for offset in offsets if offset > at]:
                    self._tell(
                        Kind.ACKED_AHEAD,
                        f"{topic} is acked to {acked} and applied to {at}; offset {lost[0]} is not",
                    )
                    return

    async def _watermarks(self, second: SecondLook) -> None:
        stores, shard = self._stores, self._shard
        # The wheel first: rows come before timers.
        meta = second.same(await stores.wheel.meta(shard))
        async with stores.record.snapshot(shard) as snapshot:
            marks = snapshot.watermarks
        for topic in stores.topics.inputs:
            in_wheel, at = meta.watermarks.get(topic, -1), marks.get(topic, -1)
            if in_wheel > at:
                self._tell(Kind.WHEEL_AHEAD, f"{topic}: Redis at {in_wheel}, PostgreSQL at {at}")
        for topic, in_wheel in (await second.caught_up(marks)).items():
            self._tell(
                Kind.WHEEL_BEHIND,
                f"{topic}: Redis at {in_wheel}, PostgreSQL at {marks.get(topic, -1)}",
            )

    async def _projection(self) -> None:
        stores, shard = self._stores, self._shard
        topic = stores.topics.engagement_status
        at = await stores.record.watermark(topic, shard)
        end = (await stores.log.spans([topic], [shard]))[topic][shard][1]
        try:
            async with asyncio.timeout(stores.read_s):
                # Most of what is behind the watermark are statuses of the workers' own.
                sent = await dispatched(stores.log, topic, shard, at + 1, end, ())
        except TimeoutError:
            self._findings.undecided(UNREAD)
            return
        limit = stores.limit()
        while (at := await stores.record.watermark(topic, shard)) < sent.last:
            if limit.over():
                note = f"up to {sent.count} attempts, projected to {at} of {sent.last}"
                self._tell(Kind.PROJECTION_BEHIND, note)
                return
            await stores.sleep(LOOK_S)

    async def _cursor(self, second: SecondLook) -> None:
        stores, shard = self._stores, self._shard
        before = second.same(await stores.wheel.meta(shard))
        cursor = (await stores.log.cursors([shard]))[shard]
        after = second.same(await stores.wheel.meta(shard))
        if cursor is None:
            self._tell(Kind.CURSOR, "Kafka has none")
        elif cursor.gen != after.gen:
            self._tell(Kind.CURSOR, f"generation {after.gen}, Kafka has {cursor.gen}")
        # What is in flight has the next seq; and the owner may have gone on while we looked.
        elif not before.seq - 1 <= cursor.seq <= after.seq:
            self._tell(Kind.CURSOR, f"at batch {after.seq}, Kafka has committed {cursor.seq}")
        elif (
            before.seq == cursor.seq == after.seq
            and before.nonce == after.nonce
            and cursor.nonce != after.nonce
        ):
            self._tell(Kind.CURSOR, f"another batch {after.seq} than Kafka has committed")

    async def _timers(self, second: SecondLook) -> None:
        """All timers of the wheel against their rows."""
        chunk: list[Placed] = []
        async for page in self._stores.wheel.timers(self._shard):
            # A page may be a slot with one timer in it.
            chunk += page
            while len(chunk) >= CHUNK:
                await self._against_rows(second, chunk[:CHUNK])
                del chunk[:CHUNK]
        await self._against_rows(second, chunk)

    async def _against_rows(self, second: SecondLook, chunk: Sequence[Placed]) -> None:
        stores, shard = self._stores, self._shard
        async with stores.record.snapshot(shard) as snapshot:
            rows = await snapshot.standings([each.timer.activity_id for each in chunk])
        self._findings.awaited += sum(each.fired for each in chunk)
        self._findings.timers += sum(not each.fired for each in chunk)
        await second.decide(
            [
                Candidate(each.timer.activity_id, each)
                for each in chunk
                if not agrees(each, rows.get(each.timer.activity_id), shard)
            ]
        )
        await stores.sleep(PAUSE_S)

    async def _rows(self, second: SecondLook) -> None:
        """All rows that belong in the wheel against it."""
        stores, shard = self._stores, self._shard
        async with stores.record.snapshot(shard) as snapshot:
            async for rows in snapshot.standing(CHUNK):
                self._findings.rows += len(rows)
                sighting = await stores.wheel.find(shard, [timer_for(row) for row in rows])
                second.same(sighting.meta)
                known = Known(shard, stores.await_ms, sighting.now_ms)
                await second.decide(
                    [
                        Candidate(row.activity_id)
                        for row, sight in zip(rows, sighting.sights, strict=True)
                        if row_side(row, sight, known)
                    ]
                )
                await stores.sleep(PAUSE_S)

    async def _firing(self, second: SecondLook) -> None:
        """Whether somebody fires what is due."""
        stores, shard = self._stores, self._shard
        limit = stores.limit()
        began = second.same(await stores.wheel.meta(shard))
        while True:
            size = await stores.wheel.size(shard)
            now_ms = await stores.wheel.now_ms()
            late_ms = 0 if size.next_due_ms is None else now_ms - size.next_due_ms
            meta = second.same(await stores.wheel.meta(shard))
            if (late_ms < OVERDUE_MS and not size.in_flight) or meta.seq != began.seq:
                return
            if limit.over():
                what = f"{size.in_flight} claimed" if size.in_flight else f"{size.due} due"
                self._tell(Kind.NOT_FIRING, f"{what}, the first for {late_ms // 1000} s")
                return
            await stores.sleep(LOOK_S)
