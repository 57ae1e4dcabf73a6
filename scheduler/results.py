"""Applies `engagement-executed` to one shard, exactly once: what became of each engagement."""

from collections.abc import Mapping, Sequence

import structlog

from scheduler.activity import FINAL, ActivityRow, Announcement, Status
from scheduler.batch import Item
from scheduler.change import Redo, RowApplier
from scheduler.controls import OPTED_OUT, Orders
from scheduler.ledger import Ledger, Letter, timer_of, told
from scheduler.outcome import Ignored, Step, judge, letter_of
from scheduler.patience import Patience
from scheduler.policy import RetryPolicy
from scheduler.ports import Outbox, Record, SourceRecord, Wheel
from scheduler.progress import MAX_ATTEMPT
from schemas.events import EngagementExecuted
from schemas.headers import REPLAYED_FROM

log = structlog.get_logger(__name__)


class ResultApplier(RowApplier[EngagementExecuted]):
    """See `RowApplier`. The rules are in `scheduler.outcome`."""

    def __init__(
        self,
        shard: int,
        topic: str,
        *,
        inputs: Sequence[str],
        retries: RetryPolicy,
        record: Record,
        wheel: Wheel,
        outbox: Outbox,
        patience: Patience | None = None,
    ) -> None:
        """See `RowApplier`."""
        super().__init__(
            shard,
            topic,
            EngagementExecuted,
            "result",
            inputs=inputs,
            record=record,
            wheel=wheel,
            outbox=outbox,
            patience=patience,
        )
        self._retries = retries

    def _ids(self, event: EngagementExecuted) -> Sequence[str]:
        return (event.activity_id,)

    async def _decide(self, items: Sequence[Item[EngagementExecuted]], ledger: Ledger) -> None:
        now_ms = 0
        orders = Orders()
        failed = [
            item.event
            for item in items
            if item.event is not None and item.event.outcome == "failed"
        ]
        if failed:
            # By the clock that will say when the retry is due.
            now_ms = await self._wheel.now_ms()
            orders = await self._record.orders(
                self._topic,
                self._shard,
                {event.member_id for event in failed},
                {event.pod_id for event in failed},
            )
            ledger.decided_by = orders.version
        for item in items:
            if item.event is None:
                await self._bury(item.record, item.reason)
                continue
            row = ledger.row(item.event.activity_id)
            if row is None:
                ledger.ignored[Ignored.UNKNOWN] += 1
            elif (difference := _difference(row, item.event)) is not None:
                await self._bury(item.record, difference)
            elif row.shard is not None and row.shard != self._shard:
                await self._forward(item.record, row.shard)
            else:
                await self._judge(item, item.event, row, ledger, now_ms, orders)

    async def _judge(
        self,
        item: Item[EngagementExecuted],
        result: EngagementExecuted,
        row: ActivityRow,
        ledger: Ledger,
        now_ms: int,
        orders: Orders,
    ) -> None:
        try:
            step = judge(
                row,
                result,
                self._retries,
                now_ms,
                replayed=_replayed(item.record),
                opted_out=row.member_id in orders.opted_out,
                quiet=orders.quiet_for(row.pod_id, row.member_id),
            )
        except Exception as error:
            # A bug in the rules; but one result must not hold up its neighbours for ever.
            log.exception("a result cannot be judged", shard=self._shard, offset=item.offset)
            await self._bury(item.record, f"cannot be judged: {error!r}")
            return
        if not isinstance(step, Step):
            ledger.ignored[step] += 1
            if step is Ignored.CANCELLED and (timer := timer_of(row, result.attempt)):
                # It was on its way when it was cancelled: nobody awaits its result.
                ledger.dropped.append(timer)
            return
        ledger.change(
            step.row,
            item.offset,
            step.announcement,
            executed_at_ms=step.executed_at_ms,
            last_error=step.last_error,
        )
        if step.letter is not None:
            ledger.letters.append(Letter(item.record, step.letter, step.row.failures))

    def _redo(
        self, item: Item[EngagementExecuted], rows: Mapping[str, ActivityRow], redo: Redo
    ) -> None:
        result = item.event
        row = rows.get(result.activity_id) if result else None
        if result is None or row is None or _difference(row, result) is not None:
            return
        if row.shard != self._shard:
            return
        if result.outcome == "failed" and (
            row.status is not Status.FAILED or row.result_offset != item.offset
        ):
            # It may have asked for a retry, and put a time in the place of the one at which the
            # attempt was due: if that had not fired by then, nobody knows any more where it is.
            redo.lost = True
        elif row.status in FINAL:
            # What is over has no timer, of this attempt or of a retry that was taken back.
            for attempt in (result.attempt, result.attempt + 1):
                if attempt <= MAX_ATTEMPT and (timer := timer_of(row, attempt)):
                    redo.remove.append(timer)

    def _retell(
        self, item: Item[EngagementExecuted], rows: Mapping[str, ActivityRow]
    ) -> tuple[list[Announcement], list[Letter]]:
        result = item.event
        row = rows.get(result.activity_id) if result else None
        if (
            result is None
            or row is None
            or row.result_offset != item.offset
            or row.shard != self._shard
            or row.status is Status.DISPATCHED
        ):
            return [], []
        reason = None if row.status is Status.EXECUTED else result.error
        if row.status is Status.CANCELLED:
            reason = OPTED_OUT
        letters = []
        if row.status is Status.FAILED:
            letters.append(Letter(item.record, letter_of(row, result), row.failures))
        return [told(row, reason)], letters


def _difference(row: ActivityRow, result: EngagementExecuted) -> str | None:
    """Why `result` is not about the activity whose id it has; None when it is."""
    for name in ("pod_id", "post_id", "member_id", "engagement_type"):
        if getattr(row, name) != getattr(result, name):
            return f"the activity has another {name}"
    return None


def _replayed(record: SourceRecord) -> bool:
    return any(name == REPLAYED_FROM for name, _ in record.headers)
