"""A world of one shard in memory, for the tests of what applies records."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any, cast

from scheduler.activity import Announcement, PlannedActivity, PostPlan, Status
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.apply import PostDetectedApplier
from scheduler.controls import Orders
from scheduler.errors import DataRefusedError
from scheduler.patience import Patience
from scheduler.policy import PacingPolicy
from scheduler.ports import NO_PLANS, Claim, Outbox, Record, SourceRecord, Wheel
from scheduler.timer import Timer

TOPIC = "post-detected"
SHARD = 3
DETECTED_AT = "2026-11-24T08:00:00.000Z"
LATE_MS = 4_000_000_000_000  # everything planned is due by then
AWAIT_MS = 900_000
UNACCEPTABLE = "unacceptable"  # a member id that the record refuses

Around = Callable[[str, Callable[..., Awaitable[Any]], tuple[Any, ...]], Awaitable[Any]]


class RowsInMemory:
    """As much of the `Record` port as an applier needs; refuses members called UNACCEPTABLE."""

    def __init__(self) -> None:
        self.rows: dict[str, PlannedActivity] = {}
        self.fired: set[str] = set()
        self.at = -1
        self.orders_given = Orders()

    async def orders(
        self, topic: str, shard: int, member_ids: Collection[str], pod_ids: Collection[str] = ()
    ) -> Orders:
        assert (topic, shard) == (TOPIC, SHARD)
        given = self.orders_given
        return Orders(given.version, given.opted_out.intersection(member_ids))

    async def skipped_between(self, shard: int, after: int, upto: int) -> Sequence[Announcement]:
        return [
            Announcement(
                row.activity_id,
                row.pod_id,
                row.post_id,
                row.member_id,
                row.engagement_type,
                Status.CANCELLED,
                1,
                reason=row.skipped,
            )
            for row in self.rows.values()
            if after < row.source_offset <= upto and row.skipped
        ]

    async def watermark(self, topic: str, shard: int) -> int:
        assert (topic, shard) == (TOPIC, SHARD)
        return self.at

    async def plans(self, post_ids: Sequence[str]) -> Mapping[str, PostPlan]:
        found: dict[str, PostPlan] = {}
        for row in self.rows.values():
            if row.post_id in post_ids:
                plan = found.get(row.post_id, PostPlan())
                likes = (row.scheduled_for_ms,) if row.engagement_type == "like" else ()
                found[row.post_id] = PostPlan(
                    plan.activity_ids | {row.activity_id},
                    tuple(sorted((*plan.like_times_ms, *likes))),
                )
        return found

    async def apply_plan(
        self,
        topic: str,
        shard: int,
        expected: int,
        upto: int,
        activities: Sequence[PlannedActivity],
        *,
        decided_by: int | None = None,
        plans: Mapping[str, int] = NO_PLANS,
    ) -> frozenset[str] | None:
        assert (topic, shard) == (TOPIC, SHARD)
        assert upto > expected
        if self.at != expected or decided_by != self.orders_given.version:
            return None
        if any(row.member_id == UNACCEPTABLE for row in activities):
            raise DataRefusedError("22021 unacceptable")
        there = frozenset(row.activity_id for row in activities if row.activity_id in self.rows)
        for row in activities:
            assert expected < row.source_offset <= upto
            self.rows.setdefault(row.activity_id, row)
        self.at = upto
        return there

    async def reach_between(self, shard: int, after: int, upto: int, limit: int) -> int:
        assert shard == SHARD
        offsets = sorted(
            row.source_offset for row in self.rows.values() if after < row.source_offset <= upto
        )
        if len(offsets) <= limit:
            return upto
        return max((each for each in offsets if each < offsets[limit]), default=offsets[0])

    async def unfired_between(self, shard: int, after: int, upto: int) -> Sequence[Timer]:
        assert shard == SHARD
        return [
            Timer(
                row.activity_id,
                row.pod_id,
                row.post_id,
                row.member_id,
                row.engagement_type,
                1,
                row.scheduled_for_ms,
            )
            for row in self.rows.values()
            if after < row.source_offset <= upto
            and row.activity_id not in self.fired
            and row.skipped is None
        ]


class KeptOutbox:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.statuses: list[Announcement] = []
        self.letters: list[tuple[int, str]] = []

    async def announce(self, shard: int, statuses: Sequence[Announcement]) -> None:
        assert shard == SHARD
        self.statuses += statuses

    async def dead_letter(
        self, record: SourceRecord, reason: str, extra: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        self.letters.append((record.offset, reason))


class Interposed:
    """A port each call of which goes through `around(name, method, positional arguments)`."""

    def __init__(self, target: object, around: Around) -> None:
        self._target = target
        self._around = around

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._target, name)

        async def call(*args: Any, **options: Any) -> Any:
            return await self._around(name, partial(method, **options), args)

        return call


async def straight(_: str, method: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> Any:
    """An `around` that adds nothing."""
    return await method(*args)


class World:
    """The stores of one shard, its log, and a dispatcher that fires what is in the wheel."""

    def __init__(self) -> None:
        self.record = RowsInMemory()
        self.wheel = MemoryWheel(now_ms=lambda: LATE_MS)
        self.outbox = KeptOutbox()
        self.log: list[SourceRecord] = []
        self.fired: Counter[str] = Counter()
        self._done = (0, "")
        self._lives = 0

    async def open_wheel(self, watermark: int | None = None) -> None:
        """(Re)build the wheel from the record, as a dispatcher does."""
        self._lives += 1
        await self.wheel.take(SHARD, "epoch")
        await self.wheel.wipe(SHARD, "epoch")
        at = self.record.at if watermark is None else watermark
        await self.wheel.load(SHARD, "epoch", await self.record.unfired_between(SHARD, -1, at))
        gen = f"gen{self._lives}"
        await self.wheel.open(SHARD, "epoch", gen, self._done, {TOPIC: at})

    async def fire(self, limit: int = 10**6) -> int:
        """Claim and settle once; the projection follows at once."""
        claim: Claim = await self.wheel.claim(
            SHARD, "epoch", f"gen{self._lives}", self._done, "nonce", limit, AWAIT_MS
        )
        self._done = (claim.seq, claim.nonce)
        self.fired.update(timer.activity_id for timer in claim.timers)
        self.record.fired.update(timer.activity_id for timer in claim.timers)
        return len(claim.timers)

    def post(self, post_id: str, members: Sequence[str], **fields: Any) -> SourceRecord:
        """Append an event to the log."""
        event = {
            "event_id": f"e-{len(self.log)}",
            "pod_id": "pod",
            "post_id": post_id,
            "member_ids": list(members),
            "detected_at": DETECTED_AT,
        }
        return self.raw(json.dumps(event | fields).encode())

    def raw(self, value: bytes | None, *, gap: int = 0) -> SourceRecord:
        """Append any record to the log, after a gap of `gap` offsets."""
        offset = (self.log[-1].offset + 1 if self.log else 0) + gap
        record = SourceRecord(TOPIC, SHARD, offset, b"key", value)
        self.log.append(record)
        return record

    def applier(
        self,
        around: Around = straight,
        sleep: Callable[[float], Awaitable[object]] = lambda _: asyncio.sleep(0),
        planning: asyncio.Lock | None = None,
    ) -> PostDetectedApplier:
        """A new one, as after an assignment, with `around` about each call of a port."""
        return PostDetectedApplier(
            SHARD,
            TOPIC,
            policy=PacingPolicy(),
            record=cast(Record, Interposed(self.record, around)),
            wheel=cast(Wheel, Interposed(self.wheel, around)),
            outbox=cast(Outbox, Interposed(self.outbox, around)),
            patience=Patience("test", sleep=sleep),
            planning=planning,
        )

    async def verify(self, activities: int) -> None:
        """`activities` rows, each fired once and announced, and both watermarks at the end."""
        assert len(self.record.rows) == activities
        assert self.record.at == self.log[-1].offset
        assert await self.wheel.watermark(SHARD, TOPIC) == self.record.at
        while await self.fire():
            pass
        assert self.fired == Counter(self.record.rows.keys())
