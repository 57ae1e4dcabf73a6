"""The light form of reconciling, always at work: counts and watermarks of all shards.

One pass over PostgreSQL, and for each shard a handful of short calls to Redis. Numbers that are not
of one moment mean nothing while anything moves. So what does not add up counts only if it is the
same at two looks in a row between which nothing of its shard has moved: no batch, no watermark, no
row. A shard in which something always moves is thus never judged; that is what the full form is
for (`scheduler.reconcile`).
"""

from collections.abc import Mapping, Sequence

import structlog
from msgspec import Struct

from scheduler.difference import MEANINGS, Kind
from scheduler.ports import LogView, RecordCounts, RecordView, WheelCount, WheelMeta, WheelView
from schemas.events import WheelCursor
from schemas.topics import Topics

log = structlog.get_logger(__name__)


class ShardLook(Struct, frozen=True):
    """One shard at one look. `waiting` and `dispatched` are rows, `marks` the watermarks of
    PostgreSQL; `still`: the wheel was the same before and after all of it was read."""

    meta: WheelMeta
    held: WheelCount
    still: bool
    waiting: int
    dispatched: int
    marks: Mapping[str, int]
    cursor: WheelCursor | None


class QuickReport(Struct, frozen=True):
    """By shard and kind what differs, and has differed at the look before; and by topic and
    partition the records that are not applied yet."""

    differences: Mapping[int, Mapping[Kind, int]]
    lag: Mapping[str, Mapping[int, int]]


def imbalance(look: ShardLook, inputs: Sequence[str]) -> dict[Kind, int]:
    """What does not add up, and by how much; it may just be under way."""
    meta = look.meta
    if meta.gen is None:
        return {Kind.NO_WHEEL: 1}
    found: dict[Kind, int] = {}
    behind = [look.marks.get(topic, -1) - meta.watermarks.get(topic, -1) for topic in inputs]
    if missing := sum(by for by in behind if by > 0):
        found[Kind.WHEEL_BEHIND] = missing
    if beyond := -sum(by for by in behind if by < 0):
        found[Kind.WHEEL_AHEAD] = beyond
    cursor = look.cursor
    at = None if cursor is None else (cursor.gen, cursor.seq, cursor.nonce)
    if look.held.in_flight:
        # Claimed, and nothing moves: nobody sends it. What it holds is known to its owner alone.
        if cursor is None or (cursor.gen, cursor.seq + 1) != (meta.gen, meta.seq):
            found[Kind.CURSOR] = 1
        return found
    if at != (meta.gen, meta.seq, meta.nonce):
        found[Kind.CURSOR] = 1
    if not found:
        if by := look.waiting - look.held.waiting:
            found[Kind.WAITING] = by
        if by := look.dispatched - look.held.awaited:
            found[Kind.AWAITED] = by
    return found


def lasting(before: ShardLook | None, now: ShardLook, inputs: Sequence[str]) -> dict[Kind, int]:
    """What does not add up and did not at the look before, with nothing having moved since."""
    if before != now or not now.still:
        return {}
    return imbalance(now, inputs)


class QuickLook:
    """Looks at all shards. To be called now and then, by one process."""

    def __init__(
        self,
        wheel: WheelView,
        record: RecordView,
        log_view: LogView,
        topics: Topics,
        partitions: int,
    ) -> None:
        """`partitions` is the number of shards."""
        self._wheel = wheel
        self._record = record
        self._log = log_view
        self._topics = topics
        self._shards = range(partitions)
        self._before: dict[int, ShardLook] = {}
        self._told: dict[tuple[int, Kind], int] = {}

    async def run_once(self) -> QuickReport:
        """One look. What lasts is logged, once for each number. Raises what the stores raise."""
        inputs = self._topics.inputs
        looks = await self._look()
        differences = {
            shard: lasting(self._before.get(shard), look, inputs) for shard, look in looks.items()
        }
        self._before = looks
        self._tell(differences)
        spans = await self._log.spans(inputs, self._shards)
        lag = {
            topic: {
                shard: max(0, spans[topic][shard][1] - 1 - looks[shard].marks.get(topic, -1))
                for shard in self._shards
            }
            for topic in inputs
        }
        return QuickReport(differences, lag)

    async def _look(self) -> dict[int, ShardLook]:
        wheel = self._wheel
        before = {shard: await wheel.meta(shard) for shard in self._shards}
        held = {shard: await wheel.count(shard) for shard in self._shards}
        cursors = await self._log.cursors(self._shards)
        rows: RecordCounts = await self._record.counts()
        after = {shard: await wheel.meta(shard) for shard in self._shards}
        return {
            shard: ShardLook(
                meta=after[shard],
                held=held[shard],
                still=before[shard] == after[shard],
                waiting=rows.waiting.get(shard, 0),
                dispatched=rows.dispatched.get(shard, 0),
                marks=rows.watermarks.get(shard, {}),
                cursor=cursors[shard],
            )
            for shard in self._shards
        }

    def _tell(self, differences: Mapping[int, Mapping[Kind, int]]) -> None:
        lasting_now = {
            (shard, kind): by for shard, found in differences.items() for kind, by in found.items()
        }
        for (shard, kind), by in lasting_now.items():
            if self._told.get((shard, kind)) != by:
                log.warning(
                    "the stores differ",
                    shard=shard,
                    kind=kind.value,
                    by=by,
                    meaning=MEANINGS[kind].cause,
                    todo=f"pod-automation reconcile --shard {shard}",
                )
        for shard, kind in self._told.keys() - lasting_now.keys():
            log.info("the stores differ no longer, or move again", shard=shard, kind=kind.value)
        self._told = lasting_now
