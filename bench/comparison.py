"""The engine beside others, and beside what its servers take at best: rows, ratios and goals."""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from bench.results import (
    FIRE,
    OLD_REDIS,
    OURS,
    SCHEDULE,
    WHEEL_SCHEDULE,
    Figure,
    lateness_at,
    size_at,
)

BULLMQ = "BullMQ"

NEAREST = "whoever comes nearest"

FINEST = {"ms": 1.0, "% of a core": 0.01}
"""Less is not told apart, by unit: a lateness of 0 ms is not infinitely better than one of 1."""

SAME_AT_PEERS = {WHEEL_SCHEDULE: SCHEDULE}
"""Held against another quantity of theirs: their scheduling is into their one store."""


class Row(Struct, frozen=True):
    """One quantity: ours, and by title what each peer has at the better of its two setups."""

    quantity: str
    ours: Figure
    peers: Mapping[str, Figure]

    def ahead_of(self, title: str) -> float | None:
        """So many times better we are than a peer; None where it was not measured."""
        theirs = self.peers.get(title)
        return None if theirs is None else _times(self.ours, theirs)

    @property
    def best(self) -> str | None:
        """The peer that comes nearest; one that fires early is no match for who may not."""
        fair = [title for title, each in self.peers.items() if not early(each)]
        return min(fair, key=lambda title: _times(self.ours, self.peers[title]), default=None)


class Goal(Struct, frozen=True):
    """By how much we want to be ahead of a peer, and are."""

    quantity: str
    peer: str
    wanted: float
    found: float

    @property
    def reached(self) -> bool:
        """Whether we are."""
        return self.found >= self.wanted


class Share(Struct, frozen=True):
    """What we reach of what a server takes at best; `limit` counts as `ours` does."""

    quantity: str
    limit_is: str
    ours: float
    limit: float
    unit: str

    @property
    def share(self) -> float:
        """1 for all of it."""
        return self.ours / self.limit


def rows(figures: Sequence[Figure]) -> list[Row]:
    """One for each quantity of ours that has a name, in the order of `figures`."""
    made = []
    for ours in figures:
        if ours.who == OURS and ours.quantity:
            theirs = SAME_AT_PEERS.get(ours.quantity, ours.quantity)
            made.append(Row(ours.quantity, ours, _peers(figures, theirs)))
    return made


def goals(found: Sequence[Row]) -> list[Goal]:
    """All that can be judged by what was measured: some by name, and first place in each row."""
    by_quantity = {row.quantity: row for row in found}
    made = []
    for quantity, peer, wanted in _WANTED:
        row = by_quantity.get(quantity)
        title = row.best if row and peer == NEAREST else peer
        if row and title and (ahead := row.ahead_of(title)) is not None:
            made.append(Goal(quantity, title, wanted, ahead))
    return made + [
        Goal(row.quantity, best, 1, ahead)
        for row in found
        if (best := row.best) is not None and (ahead := row.ahead_of(best)) is not None
    ]


def shares(figures: Sequence[Figure]) -> list[Share]:
    """What each rate is of the limit that it meets first."""
    medians = {each.name: each.median for each in figures if each.who == OURS}
    quantities = {each.quantity: each for each in figures if each.who == OURS and each.quantity}
    made = []
    for quantity, limit, factor, what, unit in _LIMITS:
        if (ours := quantities.get(quantity)) and limit in medians:
            rate = ours.median
            if unit == "transactions/s":
                rate /= float(ours.notes["timers a transaction"])
            made.append(Share(quantity, what, rate, medians[limit] / factor, unit))
    return made


def early(figure: Figure) -> bool:
    """Whether something was fired before it was due."""
    earliest: Sequence[float] = figure.notes.get("earliest, ms") or [0]
    return min(earliest) < 0


def fewer(theirs: Figure, ours: Figure) -> bool:
    """Whether they were measured beside fewer timers that wait than we were."""
    beside, with_us = (each.notes.get("pending") for each in (theirs, ours))
    return beside is not None and with_us is not None and beside < with_us


_WANTED: Sequence[tuple[str, str, float]] = (
    (WHEEL_SCHEDULE, BULLMQ, 10),
    (SCHEDULE, BULLMQ, 3),
    (FIRE, NEAREST, 8),
    (size_at(100_000), BULLMQ, 13),
    (size_at(1_000_000), BULLMQ, 13),
    (size_at(100_000, OLD_REDIS), BULLMQ, 13),
    (size_at(1_000_000, OLD_REDIS), BULLMQ, 13),
    (lateness_at(200, "p50"), BULLMQ, 5),
    (lateness_at(200, "p99"), BULLMQ, 3),
)

_LIMITS = (
    (WHEEL_SCHEDULE, "limit: ZADD in pipelines", 1, "ZADD in pipelines, packed before", "timers/s"),
    (SCHEDULE, "limit: COPY of rows", 1, "COPY of the rows alone", "timers/s"),
    # Each timer that fires is two records: the engagement, and its status.
    (FIRE, "limit: records in batches", 2, "two records each, encoded before", "timers/s"),
    (FIRE, "limit: transactions, one after the other", 1, "transactions of one", "transactions/s"),
)


def _peers(figures: Sequence[Figure], quantity: str) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    for each in figures:
        if each.who != OURS and each.quantity == quantity:
            title = each.who.partition(",")[0]
            if title not in found or _better(each, found[title]):
                found[title] = each
    return found


def _better(one: Figure, other: Figure) -> bool:
    if early(one) != early(other):
        return early(other)
    return one.median > other.median if one.better == "more" else one.median < other.median


def _times(ours: Figure, theirs: Figure) -> float:
    least = FINEST.get(ours.unit, 1e-9)
    one, other = max(ours.median, least), max(theirs.median, least)
    return one / other if ours.better == "more" else other / one
