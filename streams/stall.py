"""Lag without progress: what a Faust that has stopped delivering looks like from outside."""

from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

PlaceT = TypeVar("PlaceT", bound=Hashable)


class Progress(NamedTuple):
    """One partition at one moment: the broker's end offset, the offset that must come next, and
    whether its pump has work in hand. A busy pump is no stall: it may be waiting for a store."""

    end: int
    next_offset: int
    busy: bool


class StallDetector(Generic[PlaceT]):
    """Remembers since when each partition, however named, has been lagging without progress."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._since: dict[PlaceT, tuple[int, float]] = {}

    def stalled(self, now_s: float, progress: Mapping[PlaceT, Progress]) -> list[PlaceT]:
        """Partitions that lag, and of which nothing has come for the time-out.

        A partition that is not in `progress` is not ours, and forgotten.
        """
        since: dict[PlaceT, tuple[int, float]] = {}
        for partition, seen in progress.items():
            if seen.busy or seen.end <= seen.next_offset:
                continue
            before = self._since.get(partition)
            same = before is not None and before[0] == seen.next_offset
            since[partition] = before if before and same else (seen.next_offset, now_s)
        self._since = since
        return [
            partition
            for partition, (_, start_s) in since.items()
            if now_s - start_s >= self._timeout_s
        ]

    def acquit(self, partition: PlaceT) -> None:
        """What seems to lag turned out to be no record at all."""
        self._since.pop(partition, None)
