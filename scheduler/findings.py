"""What was found of one shard: counted without a bound, kept up to one."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from scheduler.activity import Standing
from scheduler.difference import MEANINGS, Difference, Kind

KEPT_IDS = 100_000
"""Activities of which it is remembered that they were counted: some megabytes. One beyond them may
be counted once for its row and once for its timer."""

UNREAD = "the log is too long to be read in time, or a transaction stays open"
"""Why it is not known what has been sent."""

OF_HISTORY = (
    Kind.MISSING_TIMER,
    Kind.SENT_BEFORE,
    Kind.TIMER_OF_SENT_ROW,
    Kind.MISSING_DEADLINE,
)
"""What these really are depends on whether Kafka has ever had the attempt."""


class ShardReport(Struct, frozen=True):
    """The outcome for one shard.

    `counts` has each kind that was found, `first` the first differences of all with what each store
    says. `undecided` are activities, or whole checks, of which nothing could be told in time, by
    reason. `rows`, `timers` and `awaited` are what was looked at. `offsets` are those of each topic
    in each store.
    """

    shard: int
    counts: Mapping[Kind, int]
    first: tuple[Difference, ...]
    undecided: Mapping[str, int]
    rows: int
    timers: int
    awaited: int
    offsets: Mapping[str, Mapping[str, int | None]]

    @property
    def agrees(self) -> bool:
        """Whether no difference was found; there may be something undecided."""
        return not self.counts

    @property
    def heals(self) -> bool:
        """Whether a rebuild is of use."""
        return any(MEANINGS[kind].heals for kind in self.counts)

    @property
    def blocked(self) -> bool:
        """Whether a rebuild would do harm, or nobody knows whether it would."""
        return UNREAD in self.undecided or any(MEANINGS[kind].blocks for kind in self.counts)


class Findings:
    """Collects what is found of one shard."""

    def __init__(self, shard: int, most: int) -> None:
        """`most` differences are kept with all that is known of them."""
        self._shard = shard
        self._most = most
        self._counts: Counter[Kind] = Counter()
        self._first: list[Difference] = []
        self._undecided: Counter[str] = Counter()
        self._seen: set[str] = set()
        self.history: dict[str, tuple[Kind, Standing]] = {}
        """Activities, up to a bound, whose kind depends on what Kafka has had."""
        self.offsets: dict[str, dict[str, int | None]] = {}
        self.rows = 0
        self.timers = 0
        self.awaited = 0

    def add(self, difference: Difference, row: Standing | None = None) -> None:
        """Count `difference`, unless its activity was counted before."""
        name = difference.activity_id
        if name:
            if name in self._seen:
                return
            if len(self._seen) < KEPT_IDS:
                self._seen.add(name)
                if row is not None and difference.kind in OF_HISTORY:
                    self.history[name] = (difference.kind, row)
        self._counts[difference.kind] += 1
        if len(self._first) < self._most:
            self._first.append(difference)

    def turn(self, activity_id: str, kind: Kind, note: str, **kafka: Any) -> None:
        """What was counted of `activity_id` is really of this kind."""
        before, _ = self.history.pop(activity_id)
        self._counts[before] -= 1
        self._counts[kind] += 1
        for at, each in enumerate(self._first):
            if each.activity_id == activity_id:
                self._first[at] = replace(each, kind=kind, note=note, kafka=kafka or None)

    def undecided(self, reason: str, count: int = 1) -> None:
        """Nothing can be told of so many, for this reason."""
        self._undecided[reason] += count

    def report(self) -> ShardReport:
        """All of it."""
        return ShardReport(
            shard=self._shard,
            counts={kind: count for kind, count in self._counts.items() if count},
            first=tuple(self._first),
            undecided=dict(self._undecided),
            rows=self.rows,
            timers=self.timers,
            awaited=self.awaited,
            offsets=self.offsets,
        )
