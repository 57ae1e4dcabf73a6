"""The ports: what the use cases need of the world. Adapters of these pass the same contract tests.

A shard is the number of a Kafka partition. Offsets are Kafka offsets; a watermark is the offset of
the last record applied, -1 when there is none. Times are milliseconds UTC. Every method may raise
`StoreUnavailableError`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType
from typing import Literal, Protocol

from msgspec import Struct

from scheduler.activity import (
    ActivityRow,
    Announcement,
    PlannedActivity,
    PostPlan,
    RowChange,
    Standing,
    Status,
    StatusChange,
)
from scheduler.controls import NO_VERDICT, Orders, Selection, Subject, Verdict
from scheduler.policy import OverduePolicy
from scheduler.quiet_hours import QuietHours
from scheduler.timer import Timer
from schemas.events import PodCommand, WheelCursor

NOTHING_BEFORE: Mapping[str, int] = MappingProxyType({})
NO_PLANS: Mapping[str, int] = MappingProxyType({})
NOBODY: Mapping[Subject, bool] = MappingProxyType({})


class Claim(Struct, frozen=True):
    """A shard's in-flight batch. An empty one says that nothing was due; `seq` is the settled one.

    `timers` are to be fired; `timeouts` are attempts that were fired and whose result has not come
    in time, with the deadline as `due_ms`; `overdue` are timers that are held back since they are
    too late (`Wheel.claim`), to be laid out anew `shift_ms` later, or given up where that is None.
    `next_due_ms` is the time of the earliest timer or deadline that the wheel still waits for
    (None: there is none), and `now_ms` the wheel's clock; sleep by their difference, never by this
    host's clock.
    """

    seq: int
    nonce: str
    timers: Sequence[Timer]
    next_due_ms: int | None
    now_ms: int
    timeouts: Sequence[Timer] = ()
    overdue: Sequence[Timer] = ()
    shift_ms: int | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to commit."""
        return not self.timers and not self.timeouts and not self.overdue


class WheelState(Struct, frozen=True):
    """What `take` finds: `gen` is None for a wheel that must be rebuilt."""

    gen: str | None
    seq: int
    nonce: str


class Aside(Struct, frozen=True):
    """For each timer whether it is set aside (`held`), in the wheel of generation `gen`; `step` is
    how many calls of `set_aside`, and of `add` with `seen`, that wheel has had, by whomever."""

    gen: str
    step: int
    held: Sequence[bool]


class WheelSize(Struct, frozen=True):
    """`pending` timers that wait, of which `due` are due, `held` are held back as overdue, and
    `parked` have fallen due since their pod or member was paused; `in_flight` in the claimed batch;
    `awaited`: attempts that were fired and whose result has not come; the earliest time of all that
    are neither held back nor paused."""

    gen: str | None
    pending: int
    in_flight: int
    next_due_ms: int | None
    watermarks: Mapping[str, int]
    due: int = 0
    awaited: int = 0
    held: int = 0
    parked: int = 0


class Wheel(Protocol):
    """The timer wheel: one for each shard, each operation atomic."""

    async def watermark(self, shard: int, topic: str) -> int:
        """How far `topic` has been added. Raises `WheelLostError`, after a wake-up for the owner,
        when the wheel is gone or is being rebuilt."""

    async def now_ms(self) -> int:
        """The wheel's clock, by which everything is due."""

    async def add(
        self,
        shard: int,
        topic: str,
        expected: int,
        upto: int,
        timers: Sequence[Timer],
        *,
        remove: Sequence[Timer] = (),
        after: Mapping[str, int] = NOTHING_BEFORE,
        planned: bool = False,
        pauses: Mapping[Subject, bool] = NOBODY,
        seen: Aside | None = None,
    ) -> int:
        """Add `timers` and move the watermark of `topic` from `expected` to `upto`.

        `remove` are timers that no longer count, each taken away wherever it is: in its slot (by
        `due_ms`), among those that are held back, or among those whose result is awaited, so that
        its deadline never comes. One in the claimed batch is fired all the same, but its result is
        not awaited. They are removed before `timers` are added. A timer that is in both (the same
        attempt of the same activity) is moved: from its slot or from those that are held back, and
        not at all if it is in neither, since it has been claimed then and would be fired again.

        `after`: watermarks of other topics that must be reached before, since this call follows
        from what they have changed; else raises `WheelBehindError`, and nothing has changed.

        `planned`: all of `timers` have just been planned, so that their ids are the derived ones,
        and nobody need work them out again.

        `pauses`: who is paused from now on (true), or is no longer. Timers of who is paused do not
        fire: they keep their place, and are parked as they fall due. Those that were parked are due
        again when neither their pod, nor their member, nor everybody is paused any more.

        `seen` is the last answer of `set_aside`, with the calls since in its `step`: a wheel that
        knows of fewer, in the same life, has gone back in time and is declared lost, as by
        `forget`.

        Returns the watermark after the call: `upto` when it moved; anything else means that
        another writer was there first and nothing has changed. Raises `WheelLostError` as
        `watermark` does, and `ValueError` for an `upto` before `expected`: what had fired would be
        added again.
        """

    async def set_aside(
        self,
        shard: int,
        topic: str,
        expected: int,
        timers: Sequence[Timer],
        *,
        after: Mapping[str, int] = NOTHING_BEFORE,
        seen: Aside | None = None,
    ) -> Aside | None:
        """Set those of `timers` aside that still wait, in their slots or held back, since an input
        of `topic` is about to change them, until `add` removes or moves them. What is left when the
        watermark of `topic` moves waits in its slot again.

        Returns which of them cannot fire now. None when the watermark of `topic` is not at
        `expected`, and then nothing has changed. `after`, `seen` and errors as for `add`. To be
        called again, it does nothing more. Not for more than `MAX_FIND`.
        """

    async def aside(self, shard: int, topic: str) -> Sequence[Timer]:
        """The timers that are set aside for an input of `topic`. Raises as `watermark` does."""

    async def take(self, shard: int, epoch: str) -> WheelState:
        """Become the owner: from now on every call with another epoch is fenced."""

    async def claim(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        nonce: str,
        limit: int,
        await_ms: int,
        overdue: OverduePolicy | None = None,
    ) -> Claim:
        """Settle the batch `done` (seq, nonce) and claim up to `limit` due timers, earliest first.

        Where more is due than that, a pod that has more than a quarter of a batch does not hold up
        the others: such pods together get a quarter of each batch, and what the others leave. So
        the timers of a pod that does not crowd wait for no more than a batch. Where more than four
        batches of such pods' timers stand before them, only those that fell due last do, who have
        a quarter of each batch then; the others wait for one batch in every four that stand there.

        With the settling the results of the timers in that batch are awaited: `await_ms` from now
        on each becomes a timeout, unless `add` removes it before. Timeouts that have come take an
        eighth of `limit`, and what is left of it after the due timers.

        Timers that are overdue by the policy are not fired but held back: for good, until `add`
        moves or removes them. The batch says which they are, so that they can be reported. All of
        one backlog have one `shift_ms`: how long the shard's time had stood still when the first
        of them was found, from the earliest of them or from the last batch, whichever was later.
        What it stands still for once more before that, by more than the policy allows, is added.
        The backlog ends with the first claim that finds none overdue.

        The new batch has seq + 1 and `nonce`. A batch that was claimed and not yet settled is
        handed out again unchanged, with the nonce it had. Raises `FencedError` when another owner
        has taken the shard; `WheelLostError` when `gen` is not there or the wheel has gone back in
        time.
        """

    async def wipe(self, shard: int, epoch: str) -> None:
        """Begin a rebuild: remove `gen` first, then all timers. Adds and claims refuse from here.

        Raises `FencedError`.
        """

    async def load(self, shard: int, epoch: str, timers: Sequence[Timer]) -> None:
        """Add timers to a wheel that is being rebuilt. Raises `FencedError`, and `WheelLostError`
        for one that is open, or was not wiped to the end: it has gone back in time meanwhile."""

    async def load_awaited(self, shard: int, epoch: str, timers: Sequence[Timer]) -> None:
        """Likewise timers that have fired and whose result is awaited until `due_ms`."""

    async def open(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        watermarks: Mapping[str, int],
        *,
        holding: tuple[int, int] | None = None,
        paused: Collection[Subject] = (),
        last_ms: int = 0,
    ) -> None:
        """End a rebuild: set seq, nonce, watermarks, who is `paused`, and `gen` in one step. Raises
        `FencedError`.

        `holding`: how many timers, and how many awaited ones, have been loaded. Raises
        `WheelLostError` if the wheel holds other numbers, or was not wiped: it has gone back in
        time meanwhile.

        `last_ms`: when the shard's last batch was claimed, in whichever life of the wheel; 0 where
        nobody knows.
        """

    async def size(self, shard: int) -> WheelSize:
        """A look at the shard, without owning it."""

    async def forget(self, shard: int) -> None:
        """Declare the shard's wheel lost (remove `gen`), so that its dispatcher rebuilds it."""

    def wakes(self, shards: Sequence[int]) -> AbstractAsyncContextManager[AsyncIterator[int]]:
        """Yields a shard whenever an add put a timer before the time its owner sleeps until.

        A hint, lossy by nature: an owner also looks by itself now and then.
        """


class WheelMeta(Struct, frozen=True):
    """What the wheel says of itself: `gen` is None for one that must be rebuilt, and `owned` is
    false where no dispatcher has taken it since."""

    gen: str | None
    seq: int
    nonce: str
    owned: bool
    watermarks: Mapping[str, int]


class Placed(Struct, frozen=True):
    """A timer in the wheel: one that waits or, with its deadline as `due_ms`, one that has `fired`
    and whose result is awaited."""

    timer: Timer
    fired: bool


class Sight(Struct, frozen=True):
    """Where one timer is: it `waits` where its due time says, it is `in_flight` (as a timer or as a
    deadline), its result is awaited until `deadline_ms`. All of it false: nowhere."""

    waits: bool
    in_flight: bool
    deadline_ms: int | None = None


class Sighting(Struct, frozen=True):
    """What was seen in one moment: `sights` are parallel to what was asked for."""

    meta: WheelMeta
    now_ms: int
    sights: Sequence[Sight]


class WheelCount(Struct, frozen=True):
    """Timers that wait, those in the claimed batch, and attempts whose result is awaited."""

    waiting: int
    in_flight: int
    awaited: int


class WheelView(Wheel, Protocol):
    """The wheel as an onlooker sees it, who owns nothing and holds nobody up."""

    async def meta(self, shard: int) -> WheelMeta:
        """What the wheel says of itself."""

    async def find(self, shard: int, timers: Sequence[Timer]) -> Sighting:
        """Where each of `timers` is, all in the same moment. Not for more than `MAX_FIND`."""

    def timers(self, shard: int) -> AsyncIterator[Sequence[Placed]]:
        """All timers but the claimed ones, page by page while others go on: one that is there from
        beginning to end is seen, one that comes or goes meanwhile perhaps, and perhaps twice."""

    async def count(self, shard: int) -> WheelCount:
        """How many there are, counted one by one; page by page as well."""


MAX_FIND = 1_000
"""Timers looked for in one call: about a millisecond of Redis."""


class Snapshot(Protocol):
    """One shard's unfired activities and watermarks, as of one moment."""

    watermarks: Mapping[str, int]
    """By topic; a topic without an entry has not been applied at all."""

    paused: Collection[Subject]
    """Who is paused."""

    opted_out: Collection[str]
    """Members who have opted out."""

    def unfired(self, chunk: int) -> AsyncIterator[Sequence[Timer]]:
        """All timers that belong in the wheel, in chunks of at most `chunk`."""

    def awaited(self, chunk: int) -> AsyncIterator[Sequence[Timer]]:
        """All attempts whose result is awaited, with the time they were dispatched as `due_ms`."""

    def commanded(self, command_offset: int, chunk: int) -> AsyncIterator[Sequence[ActivityRow]]:
        """All rows that the command at that offset was the last to change."""

    def matching(
        self, selection: Selection, statuses: Collection[Status], chunk: int
    ) -> AsyncIterator[Sequence[str]]:
        """Ids of the shard's activities that `selection` is about and that are in one of these
        statuses. Reads what matches, but for a selection of all."""

    def standing(self, chunk: int) -> AsyncIterator[Sequence[Standing]]:
        """All rows that the wheel must know of, whether they wait or their result is awaited; those
        too that lack the time that would be needed for it."""

    async def standings(self, activity_ids: Sequence[str]) -> Mapping[str, Standing]:
        """The rows with these ids, of whatever status and shard."""


class Record(Protocol):
    """The record in PostgreSQL: the only store that must not lose data."""

    async def watermark(self, topic: str, shard: int) -> int:
        """How far `topic` has been applied, -1 when not at all."""

    async def plans(self, post_ids: Sequence[str]) -> Mapping[str, PostPlan]:
        """What the posts already have; a post without any activity has no entry."""

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
        """Insert `activities` as `scheduled`, or as `cancelled` those that are skipped, and move
        the watermark, in one statement.

        `decided_by` is the version of the `Orders` that they were planned by; None: none matter.
        `plans` are those of the `Orders`, of members with a daily cap: where somebody has planned
        for one of them since, in whatever shard, nothing changes either.

        Returns the ids that were there already and were left as they are (mostly none); None when
        the watermark is not at `expected`, or `decided_by` is not the last version, and then
        nothing has changed. Raises `DataRefusedError` when a value is refused.
        """

    async def orders(
        self, topic: str, shard: int, member_ids: Collection[str], pod_ids: Collection[str] = ()
    ) -> Orders:
        """What those who apply `topic` must know of these members and pods."""

    async def member_times(
        self, member_ids: Collection[str], from_ms: int
    ) -> Mapping[str, tuple[int, ...]]:
        """When what is planned for each of these members falls due, or fell due from `from_ms` on,
        of all shards: what was sent or will be."""

    async def skipped_between(self, shard: int, after: int, upto: int) -> Sequence[Announcement]:
        """What was planned from source offsets in (after, upto] to be skipped, and has not been
        changed since."""

    async def reach_between(self, shard: int, after: int, upto: int, limit: int) -> int:
        """How far one may go from source offset `after`, up to `upto`, for at most `limit` rows; to
        the first offset that has any at least."""

    async def unfired_between(self, shard: int, after: int, upto: int) -> Sequence[Timer]:
        """Timers of the rows that came from source offsets in (after, upto] and are `scheduled`: a
        later attempt is the matter of the result that asked for it."""

    async def rows(self, activity_ids: Sequence[str]) -> Mapping[str, ActivityRow]:
        """The rows with these ids; one that nobody has heard of has no entry."""

    async def change(
        self,
        topic: str,
        shard: int,
        expected: int,
        upto: int,
        changes: Sequence[RowChange],
        *,
        by: Literal["result", "command"],
        decided_by: int | None = None,
        plans: Mapping[str, int] = NO_PLANS,
        verdict: Verdict = NO_VERDICT,
        wheel_gen: str | None = None,
    ) -> Mapping[str, int] | None:
        """Apply `changes`, one a row at most, and what else commands change (`verdict`), and move
        the watermark, in one statement. What commands change is noted for the audit.

        Rows without a shard get this one. Returns the watermarks that the shard's other topics
        had: what these have changed may be what the changes follow from. None when the watermark
        is not at `expected`, when `decided_by` is not the last version of the topic's `Orders`,
        when `plans` are not those of the `Orders` any more (as in `apply_plan`), when a row is no
        longer as it was read, or when the shard's wheel is not that of `wheel_gen` any more; then
        nothing has changed. `upto` may be `expected`. Raises `DataRefusedError`.
        """

    async def begin_wheel(
        self, topic: str, shard: int, gen: str, *, instead_of: str | None = None
    ) -> None:
        """From now on the shard has the wheel of generation `gen`, which is about to be built: no
        change of an input of `topic` that depends on the one before happens any more. Nothing
        changes where it has another one than `instead_of`, if that is given."""

    async def wheel_gen(self, topic: str, shard: int) -> str | None:
        """What `begin_wheel` was told last; None where no wheel was begun."""

    async def shards_of_posts(self, post_ids: Sequence[str]) -> Mapping[str, int]:
        """The shard of each of those posts that has activities in one; the first of several."""

    async def quiet_before(
        self, shard: int, subject: Subject, command_offset: int
    ) -> QuietHours | None:
        """The quiet hours of a pod or a member that the last command before this offset has set;
        None where it took them back, or there is none on record."""

    async def count_commanded(self, shard: int, command_offset: int) -> int:
        """How many of the shard's rows the command at this offset was the last to change."""

    async def were_due(
        self, shard: int, command_offset: int, activity_ids: Collection[str]
    ) -> Mapping[str, int]:
        """When those of the activities (ids of rows) that the command at this offset has changed
        were due before it, in ms; what was not due at any time has no entry."""

    async def project(
        self, topic: str, shard: int, expected: int, upto: int, changes: Sequence[StatusChange]
    ) -> bool:
        """Apply status changes and move the watermark, in one statement; statuses never go back.

        False when the watermark is not at `expected`, and then nothing has changed.
        """

    def snapshot(self, shard: int) -> AbstractAsyncContextManager[Snapshot]:
        """A consistent view for a rebuild (one repeatable-read transaction)."""


class SourceRecord(Struct, frozen=True):
    """A consumed record, with all that a dead letter must keep."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


class Outbox(Protocol):
    """The worker's at-least-once output. Each call returns once Kafka has confirmed all of it."""

    async def announce(self, shard: int, statuses: Sequence[Announcement]) -> None:
        """Status events, in order, into partition `shard`."""

    async def dead_letter(
        self, record: SourceRecord, reason: str, extra: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """`record` with its reason and `extra` headers, into the partition of the same number."""

    async def forward(self, record: SourceRecord, partition: int) -> None:
        """`record` as it is, into another partition of its topic."""


class ShardLog(Protocol):
    """Kafka as the owner of one shard sees it: the cursor, and one transaction a batch.

    Not reusable after an error: close it, and take the shard anew.
    """

    async def fence(self) -> None:
        """Shut out the former owner and settle the transaction it may have left open.

        After `Wheel.take`, so that the former owner claims nothing more, and before `cursor`: else
        two owners can commit the same batch.
        """

    async def cursor(self) -> WheelCursor | None:
        """The last committed cursor; None for a shard that never had one. Only after `fence`."""

    async def status_end(self) -> int:
        """The offset behind the last record of the shard's `engagement-status` partition."""

    async def commit(
        self,
        timers: Sequence[Timer],
        at_ms: int,
        cursor: WheelCursor,
        timeouts: Sequence[Timer] = (),
        reports: Sequence[PodCommand] = (),
    ) -> int:
        """Publish in one transaction: for each timer `execute-engagement` and `dispatched`, for
        each timeout a failed `engagement-executed`, the `reports` on `pod-commands`, and the
        cursor. Returns once Kafka has committed all of it, with the offset of the last status
        record (-1 without timers). `at_ms`, by the wheel's clock, is the time of all records.

        Raises `FencedError`, and `StoreUnavailableError` when the outcome is unknown.
        """

    async def close(self) -> None:
        """Throw the producer away, within a bounded time; nothing is aborted in place."""


class StatusPage(Struct, frozen=True):
    """Consecutive committed records of one partition of `engagement-status`.

    `upto` is the last offset that the page covers: control records and aborted ones count too.
    """

    shard: int
    upto: int
    values: Sequence[bytes | None]


class StatusReader(Protocol):
    """Reads committed records of one partition of `engagement-status`."""

    def seek(self, offset: int) -> None:
        """Read from `offset` on."""

    async def page(self, wait_ms: int) -> StatusPage | None:
        """What has come; None after `wait_ms` without anything."""

    async def position(self) -> int:
        """The offset that will be read next."""


class StatusLog(Protocol):
    """Opens readers of `engagement-status`."""

    def reader(self, shard: int, offset: int) -> AbstractAsyncContextManager[StatusReader]:
        """A reader of `shard`, from `offset` on."""


class ShardGroup(Protocol):
    """Membership in the group that shares the shards out."""

    @property
    def assigned(self) -> frozenset[int]:
        """The shards that are this process's at present."""

    async def changed(self) -> frozenset[int]:
        """Waits for the next assignment. Raises `StoreUnavailableError`, and
        `InstanceReplacedError` when this process must end."""

    async def close(self) -> None:
        """Leave, so that others get the shards at once. Bounded in time; raises nothing."""


class RecordCounts(Struct, frozen=True):
    """Of each shard, as of one moment: rows that wait, rows whose result is awaited, and
    watermarks by topic. A shard without any has no entry."""

    waiting: Mapping[int, int]
    dispatched: Mapping[int, int]
    watermarks: Mapping[int, Mapping[str, int]]


class RecordView(Record, Protocol):
    """The record as an onlooker asks it."""

    async def counts(self) -> RecordCounts:
        """Reads all rows, once: for a look by the minute."""


class LogView(Protocol):
    """Kafka as an onlooker sees it, who belongs to no group."""

    async def cursors(self, shards: Sequence[int]) -> Mapping[int, WheelCursor | None]:
        """The last committed cursors: at least what was committed before the call."""

    async def spans(
        self, topics: Sequence[str], shards: Sequence[int]
    ) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        """By topic and shard: the first offset that is kept, and the one behind the last record."""

    async def acked(self) -> Mapping[str, Mapping[int, int]]:
        """By input topic and shard: the last offset that the workers have acked; no entry or -1
        where there is none."""

    async def offset_at(self, topic: str, shard: int, at_ms: int) -> int:
        """The first offset whose record is of that time or later; the end where there is none."""

    def read(
        self, topic: str, shard: int, start: int, end: int, *, committed: bool
    ) -> AsyncGenerator[Sequence[tuple[int, bytes | None]], None]:
        """Offset and value of all records in [start, end), in pages; `committed` leaves out what
        was aborted, and waits until the transactions that are open there have come to an end."""
