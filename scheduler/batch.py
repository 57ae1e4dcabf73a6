"""A batch of consumed records: read, and parted where it is too large or holds a culprit."""

from collections.abc import Iterator, Sequence

from msgspec import Struct

from scheduler.errors import DataRefusedError
from scheduler.ports import SourceRecord
from schemas.codec import InvalidEvent, decode
from schemas.events import PostDetected

MAX_ROWS = 10_000
"""Activities of one statement, where events are small enough to be parted: 200 events of a large
pod would else hold Redis in one script for seconds. A single event is never parted."""


class Item(Struct, frozen=True):
    """A record as read: its event, or the reason why it has none."""

    record: SourceRecord
    event: PostDetected | None
    reason: str = ""

    @property
    def offset(self) -> int:
        """Where it stands in its partition."""
        return self.record.offset

    @property
    def rows(self) -> int:
        """Activities it can become, at most."""
        event = self.event
        return len(event.member_ids) * len(event.engagement_types) if event else 0


def read(record: SourceRecord) -> Item:
    try:
        return Item(record, decode(PostDetected, record.value))
    except InvalidEvent as error:
        return Item(record, None, error.reason)


def chunks(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """`items` in order, parted where a statement would grow beyond MAX_ROWS."""
    start = rows = 0
    for at, item in enumerate(items):
        if rows and rows + item.rows > MAX_ROWS:
            yield items[start:at]
            start, rows = at, 0
        rows += item.rows
    if start < len(items):
        yield items[start:]


def parted(piece: Sequence[Item], refusal: DataRefusedError) -> list[Sequence[Item]]:
    """`piece` in two halves; or, where one event is left, with that one as the culprit."""
    events = [at for at, item in enumerate(piece) if item.event is not None]
    if not events:
        # Nothing but the watermark was written, so no record can be the cause.
        raise refusal
    if len(events) == 1:
        culprit = piece[events[0]].record
        refused = Item(culprit, None, f"refused by PostgreSQL: {refusal}")
        return [[*piece[: events[0]], refused, *piece[events[0] + 1 :]]]
    middle = events[len(events) // 2]
    return [piece[:middle], piece[middle:]]
