"""A batch of consumed records: read, and parted where it is too large or holds a culprit."""

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

from scheduler.errors import CulpritError
from scheduler.ports import SourceRecord
from schemas.codec import InvalidEvent, decode
from schemas.events import EngagementExecuted, PodCommand, PostDetected

MAX_ROWS = 10_000
"""Activities of one statement, where events are small enough to be parted: 200 events of a large
pod would else hold Redis in one script for seconds. A single event is never parted."""


EventT = TypeVar("EventT", bound=PostDetected | EngagementExecuted | PodCommand)


class Item(Struct, Generic[EventT], frozen=True):
    """A record as read: its event, or the reason why it has none."""

    record: SourceRecord
    event: EventT | None
    reason: str = ""

    @property
    def offset(self) -> int:
        """Where it stands in its partition."""
        return self.record.offset

    @property
    def rows(self) -> int:
        """Activities it can make or change, at most."""
        event = self.event
        if isinstance(event, PostDetected):
            return len(event.member_ids) * len(event.engagement_types)
        if isinstance(event, PodCommand):
            return len(event.activity_ids)
        return 0 if event is None else 1


def read(record: SourceRecord, event_type: type[EventT]) -> Item[EventT]:
    """`record` as an event of `event_type`."""
    try:
        return Item(record, decode(event_type, record.value))
    except InvalidEvent as error:
        return Item(record, None, error.reason)


def chunks(items: Sequence[Item[EventT]]) -> Iterator[Sequence[Item[EventT]]]:
    """`items` in order, parted where a statement would grow beyond MAX_ROWS."""
    start = rows = 0
    for at, item in enumerate(items):
        if rows and rows + item.rows > MAX_ROWS:
            yield items[start:at]
            start, rows = at, 0
        rows += item.rows
    if start < len(items):
        yield items[start:]


def parted(piece: Sequence[Item[EventT]], refusal: CulpritError) -> list[Sequence[Item[EventT]]]:
    """`piece` in two halves; or, where one event is left, with that one as the culprit."""
    events = [at for at, item in enumerate(piece) if item.event is not None]
    if not events:
        # Nothing but the watermark was written, so no record can be the cause.
        raise refusal
    if len(events) == 1:
        culprit = piece[events[0]].record
        refused: Item[EventT] = Item(culprit, None, f"{refusal.why}: {refusal}")
        return [[*piece[: events[0]], refused, *piece[events[0] + 1 :]]]
    middle = events[len(events) // 2]
    return [piece[:middle], piece[middle:]]
