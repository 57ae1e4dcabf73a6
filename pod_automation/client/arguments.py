"""What callers give, checked before anything is asked of a store."""

from datetime import UTC, datetime, timedelta
from typing import get_args
from uuid import UUID

import msgspec

from pod_automation.client.errors import InvalidArgumentError
from pod_automation.tracing.carried import TRACEPARENT, carried
from schemas.events import MAX_SHIFT_MS, EngagementType, Id

MAX_COUNT = 2**31 - 1
"""What PostgreSQL's integer takes."""


def an_id(name: str, value: object) -> str:
    """`value` as an id of the contract."""
    try:
        return msgspec.convert(value, Id)
    except msgspec.ValidationError:
        raise InvalidArgumentError(
            f"{name} must be a text of 1 to 200 characters without control characters,"
            f" not {_shown(value)}"
        ) from None


def a_text(name: str, value: object) -> str:
    """`value` as a text."""
    if not isinstance(value, str):
        raise InvalidArgumentError(f"{name} must be a text, not {_shown(value)}")
    return value


def a_trace(name: str, value: object) -> str:
    """`value` as the trace context of W3C that readers take it for; what is none they pass over."""
    found = a_text(name, value)
    if carried([(TRACEPARENT, found.encode("utf-8", "replace"))]) is None:
        raise InvalidArgumentError(f"{name} must be a W3C trace context, not {_shown(value)}")
    return found


def a_moment(name: str, value: object) -> datetime:
    """`value` as an aware time."""
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise InvalidArgumentError(f"{name} must be a time with an offset from UTC")
    return value


def a_shift(name: str, value: object) -> timedelta:
    """`value` as how much later something is to be."""
    longest = timedelta(milliseconds=MAX_SHIFT_MS)
    if not isinstance(value, timedelta) or not timedelta() <= value <= longest:
        raise InvalidArgumentError(f"{name} must be a timedelta from nothing to 366 days")
    return value


def an_activity_id(value: object) -> str:
    """`value` as a canonical UUID; what is none is nobody's id, and stays as it is."""
    text = an_id("activity_id", value)
    try:
        return str(UUID(text))
    except ValueError:
        return text


def a_number(name: str, value: object, low: int, high: int = MAX_COUNT) -> int:
    """`value` as an int from `low` to `high`."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidArgumentError(
            f"{name} must be a whole number from {low} to {high}, not {_shown(value)}"
        )
    return value


def seconds(name: str, value: object, *, zero: bool = True) -> float:
    """`value` as a number of seconds, not below zero."""
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (0 < value < MAX_COUNT or (zero and value == 0))
    ):
        return value
    raise InvalidArgumentError(f"{name} must be a number of seconds, not {_shown(value)}")


def an_engagement_type(value: object) -> EngagementType:
    """`value` as like or comment."""
    for each in get_args(EngagementType):
        if each == value:
            return each  # type: ignore[no-any-return]
    raise InvalidArgumentError(f"engagement_type must be like or comment, not {_shown(value)}")


def now() -> datetime:
    """The client's clock, to the millisecond, as on the wire."""
    at = datetime.now(UTC)
    return at.replace(microsecond=at.microsecond // 1000 * 1000)


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
