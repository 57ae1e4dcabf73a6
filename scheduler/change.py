"""Applies inputs that change rows which are there already, exactly once: results and commands.

The steps are those of `scheduler.apply`, and so is the guarantee: the rows with the record's
watermark, then the wheel with its own, then statuses and dead letters; the caller acks after that.

Two things are new. A row is changed by inputs of several topics, each applied by another process
perhaps, so a decision counts only for the row as it was read (`Record.change`). And what they do to
the wheel must happen there in the order in which it happened in PostgreSQL, or a cancelled timer
could be put back by whoever had planned it: the record tells what a change follows from, and the
wheel refuses it until that is there (`Wheel.add`, `after`).
"""

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Generic, Literal, TypeVar

import structlog
from msgspec import Struct

from scheduler.activity import ActivityRow, Announcement
from scheduler.batch import EventT, Item, chunks, parted, read
from scheduler.controls import Subject
from scheduler.errors import (
    CulpritError,
    StoreUnavailableError,
    WheelBehindError,
    WheelLostError,
)
from scheduler.ledger import Ledger, Letter
from scheduler.patience import Patience
from scheduler.ports import Outbox, Record, SourceRecord, Wheel
from scheduler.timer import Timer
from schemas.headers import HISTORY

READS = 5
"""How often a decision is made anew at once, when its rows change between reading and writing."""

BEHIND_TRIES = 10
"""How often a redone change waits for other topics to come up (some eight seconds in all)."""

log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Done(Struct, Generic[EventT], frozen=True):
    """What the record now holds: the changes of `ledger` for (expected, upto], and what of the
    piece it had before (`old`)."""

    expected: int
    upto: int
    old: Sequence[Item[EventT]]
    ledger: Ledger
    after: Mapping[str, int]


class Redo(Struct):
    """What records that the record knows already mean for a wheel that does not."""

    add: list[Timer]
    remove: list[Timer]
    pauses: dict[Subject, bool]
    lost: bool = False
    """The rows cannot tell: the wheel must be rebuilt."""


class RowApplier(Generic[EventT]):
    """Applies the records of one shard of one topic. One instance for each time it is assigned.

    Not to be called by two tasks at once. Two instances for one shard, in whatever processes, do
    no harm: one of them loses each swap, reads again, and drops what is covered.
    """

    def __init__(
        self,
        shard: int,
        topic: str,
        event_type: type[EventT],
        by: Literal["result", "command"],
        *,
        inputs: Sequence[str],
        record: Record,
        wheel: Wheel,
        outbox: Outbox,
        patience: Patience | None = None,
    ) -> None:
        """`topic` is the full name on the cluster, under which both watermarks are kept; `inputs`
        are the names of all topics that have one."""
        self._shard = shard
        self._topic = topic
        self._event_type = event_type
        self._by: Literal["result", "command"] = by
        self._others = frozenset(inputs) - {topic}
        self._record = record
        self._wheel = wheel
        self._outbox = outbox
        self._patience = patience or Patience(f"{topic}/{shard}")
        # As in scheduler.apply: only ever the expected side of a swap.
        self._record_at: int | None = None
        self._wheel_at: int | None = None
        self._sent_away: set[int] = set()
        self._behind_at: tuple[int, int] | None = None
        self._tries = 0

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        """Apply `records` (of this shard, offsets ascending); afterwards they may be acked.

        Waits for as long as a store is away. A record that cannot be applied is confirmed on
        `dead-letter`, one that belongs to another shard in its partition there, before the
        watermark moves over it. Statuses and dead letters of failed activities are at least once:
        they are sent again for records that had been applied before, as long as nothing else has
        changed the row since. Anything raised is a bug: the records must not be acked.
        """
        self._sent_away.clear()
        self._behind_at = None
        items = [read(record, self._event_type) for record in records]
        pieces = [piece for run in self._runs(items) for piece in chunks(run)]
        pieces.reverse()
        while pieces:
            piece = pieces.pop()
            try:
                done = await self._patiently(partial(self._commit, piece))
            except CulpritError as error:
                pieces += reversed(parted(piece, error))
                continue
            self._tries = 0
            await self._patiently(partial(self._follow, piece, done))
            await self._patiently(partial(self._tell, piece, done))

    async def catch_up(self) -> None:
        """Compare the watermarks of both stores: the wheel is rebuilt if it has lost something.

        To be called at start and now and then. Raises `TransientError`; try again later.
        """
        self._forget()
        wheel_at = await self._wheel.watermark(self._shard, self._topic)
        record_at = await self._record.watermark(self._topic, self._shard)
        behind = (wheel_at, record_at)
        if wheel_at == record_at:
            self._behind_at = None
        elif wheel_at > record_at or behind == self._behind_at:
            # Behind is usual after a crash: then the records that the wheel lacks are about to
            # come again. But not where nothing has come since the last look.
            self._behind_at = None
            await self._rebuild(f"PostgreSQL has applied {self._topic} to {record_at}")
        else:
            self._behind_at = behind

    def _runs(self, items: Sequence[Item[EventT]]) -> Sequence[Sequence[Item[EventT]]]:
        """`items` in order, parted where some must be applied by themselves."""
        return [items]

    @abstractmethod
    def _ids(self, event: EventT) -> Sequence[str]:
        """The activities that `event` is about."""

    @abstractmethod
    async def _decide(self, items: Sequence[Item[EventT]], ledger: Ledger) -> None:
        """Enter into `ledger` what `items` make of its rows, in order."""

    @abstractmethod
    def _redo(self, item: Item[EventT], rows: Mapping[str, ActivityRow], redo: Redo) -> None:
        """Enter into `redo` what the wheel lacks of `item`, which the record has applied."""

    @abstractmethod
    def _retell(
        self, item: Item[EventT], rows: Mapping[str, ActivityRow]
    ) -> tuple[list[Announcement], list[Letter]]:
        """What is to be told of `item`, which had been applied before."""

    async def _patiently(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        return await self._patience.until_done(attempt, forget=self._forget)

    def _forget(self) -> None:
        self._record_at = self._wheel_at = None

    async def _commit(self, piece: Sequence[Item[EventT]]) -> Done[EventT]:
        """Bring `piece` into the record, by one swap of its watermark."""
        for _ in range(READS):
            at = self._record_at
            if at is None or piece[0].offset <= at:
                at = await self._record.watermark(self._topic, self._shard)
            new = [item for item in piece if item.offset > at]
            old = piece[: len(piece) - len(new)]
            if not new:
                self._record_at = at
                return Done(at, piece[-1].offset, old, Ledger({}), {})
            ledger = Ledger(await self._rows(new))
            await self._decide(new, ledger)
            upto = new[-1].offset
            self._record_at = None  # in doubt until the answer is here
            seen = await self._record.change(
                self._topic,
                self._shard,
                at,
                upto,
                ledger.changes,
                by=self._by,
                decided_by=ledger.decided_by,
                plans=ledger.plans,
                verdict=ledger.verdict,
            )
            if seen is not None:
                self._record_at = upto
                if ledger.ignored:
                    log.info(
                        "inputs that change nothing",
                        topic=self._topic,
                        shard=self._shard,
                        **{name.replace(" ", "_"): n for name, n in ledger.ignored.items()},
                    )
                after = {topic: to for topic, to in seen.items() if topic in self._others}
                return Done(at, upto, old, ledger, after)
        raise StoreUnavailableError("PostgreSQL", "its rows change all the time")

    async def _rows(self, items: Sequence[Item[EventT]]) -> Mapping[str, ActivityRow]:
        ids = {name for item in items if item.event is not None for name in self._ids(item.event)}
        return await self._record.rows(sorted(ids)) if ids else {}

    async def _follow(self, piece: Sequence[Item[EventT]], done: Done[EventT]) -> None:
        """Bring the wheel to where the record is, at least up to the end of `piece`."""
        at = self._wheel_at
        if at != done.expected:
            at = await self._wheel.watermark(self._shard, self._topic)
        if at < done.expected and at < done.upto:
            at = await self._catch_up_with(done, at)
        if at == done.expected and at < done.upto:
            self._wheel_at = None
            ledger = done.ledger
            at = await self._wheel.add(
                self._shard,
                self._topic,
                at,
                done.upto,
                ledger.added,
                remove=ledger.removed,
                after=done.after,
                pauses=ledger.pauses,
            )
        if at < done.upto:
            await self._rebuild(f"it is at {at} of {self._topic}")
            raise WheelLostError(self._shard, f"behind on {self._topic}")
        self._wheel_at = at

    async def _catch_up_with(self, done: Done[EventT], at: int) -> int:
        """Do to the wheel, which is at `at`, what the record had applied before; returns where it
        is then."""
        missed = [item for item in done.old if item.offset > at]
        if not missed or (missed[0] is done.old[0] and missed[0].offset > at + 1):
            # What it lacks is not all at hand.
            return at
        rows = await self._rows(missed)
        redo = Redo([], [], {})
        for item in missed:
            if item.event is not None:
                self._redo(item, rows, redo)
        if redo.lost or self._tries >= BEHIND_TRIES:
            return at
        # Whatever these rows follow from has been applied by now, and perhaps what follows from
        # them; and who applies that waits for us. So this is not waited for without an end.
        after = {
            topic: await self._record.watermark(topic, self._shard)
            for topic in sorted(self._others)
        }
        self._wheel_at = None
        try:
            return await self._wheel.add(
                self._shard,
                self._topic,
                at,
                missed[-1].offset,
                redo.add,
                remove=redo.remove,
                after=after,
                pauses=redo.pauses,
            )
        except WheelBehindError:
            self._tries += 1
            raise

    async def _rebuild(self, reason: str) -> None:
        log.warning("the wheel is rebuilt", shard=self._shard, reason=reason)
        await self._wheel.forget(self._shard)

    async def _tell(self, piece: Sequence[Item[EventT]], done: Done[EventT]) -> None:
        """Publish statuses and dead letters of `piece`; again for what had been applied before."""
        statuses: list[Announcement] = []
        letters: list[Letter] = []
        if done.old:
            rows = await self._rows(done.old)
            for item in done.old:
                if item.event is not None:
                    more, others = self._retell(item, rows)
                    statuses += more
                    letters += others
        statuses += done.ledger.announcements
        letters += done.ledger.letters
        if statuses:
            await self._outbox.announce(self._shard, statuses)
        for letter in letters:
            extra = [(HISTORY, letter.history.encode())] if letter.history else []
            await self._outbox.dead_letter(letter.record, letter.reason, extra)

    async def _bury(self, record: SourceRecord, reason: str) -> None:
        # A retry of this batch for another reason must not send it again each time.
        if record.offset not in self._sent_away:
            await self._outbox.dead_letter(record, reason)
            self._sent_away.add(record.offset)

    async def _forward(self, record: SourceRecord, shard: int) -> None:
        if record.offset not in self._sent_away:
            await self._outbox.forward(record, shard)
            self._sent_away.add(record.offset)
