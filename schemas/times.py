"""Times on the wire are RFC 3339 in UTC with milliseconds; inside, integer milliseconds UTC."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)

# Times outside of this range are nonsense on the wire, and some would not survive the way through
# datetime (year 9999) or PostgreSQL. The check belongs to whoever reads an event.
EARLIEST_MS = 0
LATEST_MS = 7_258_118_400_000  # 2200-01-01T00:00:00Z

# Looked up, not formatted: two of these go into every record that is sent.
_SECONDS = tuple(f"{second:02d}" for second in range(60))
_FRACTIONS = tuple(f".{millisecond:03d}Z" for millisecond in range(1000))


@lru_cache(maxsize=8192)
def _minute(minutes: int) -> str:
    # Formatting is the dearer half of a record. Comments are spread over hours: there are few
    # minutes in those, and more seconds than are worth keeping.
    return datetime.fromtimestamp(60 * minutes, UTC).strftime("%Y-%m-%dT%H:%M:")


def rfc3339(at_ms: int) -> str:
    """`at_ms` (milliseconds since the epoch, UTC) as ``2026-11-24T08:00:00.000Z``."""
    minutes, rest = divmod(at_ms, 60_000)
    return _minute(minutes) + _SECONDS[rest // 1000] + _FRACTIONS[rest % 1000]


rfc3339_shared = lru_cache(maxsize=64)(rfc3339)
"""The same, for a time that many records share: that of their batch."""


def millis(at: datetime) -> int:
    """An aware datetime as integer milliseconds since the epoch, rounded down."""
    return (at - _EPOCH) // _MILLISECOND


def moment(at_ms: int) -> datetime:
    """`at_ms` as an aware datetime in UTC; the exact inverse of `millis`."""
    return _EPOCH + at_ms * _MILLISECOND
