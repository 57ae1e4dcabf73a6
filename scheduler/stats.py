"""How many activities stand where."""

from collections.abc import Iterable, Mapping
from typing import Self

from msgspec import Struct


class ActivityCounts(Struct, frozen=True, kw_only=True):
    """Activities by status; `total` is their sum."""

    total: int = 0
    pending: int = 0
    scheduled: int = 0
    dispatched: int = 0
    executed: int = 0
    failed: int = 0
    retrying: int = 0
    cancelled: int = 0
    expired: int = 0

    @classmethod
    def of(cls, by_status: Mapping[str, int] | Iterable[tuple[str, int]]) -> Self:
        """From statuses and their counts; one that is not there counts none."""
        counts = dict(by_status)
        return cls(total=sum(counts.values()), **counts)
