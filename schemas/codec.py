"""Events as bytes: JSON in UTF-8, read strictly and written the way the contract says.

orjson reads and writes the bytes, msgspec checks the shape (schemas.events). Nothing is coerced:
"3" is not 3. Unknown fields are ignored.
"""

from datetime import datetime
from functools import lru_cache
from typing import TypeVar, get_args, get_type_hints

import msgspec
import orjson

from schemas.events import EngagementType, Event, PodCommand, StatusName
from schemas.ids import execute_event_id, status_event_id, timeout_event_id
from schemas.printable import printable
from schemas.times import EARLIEST_MS, LATEST_MS, millis, moment, rfc3339, rfc3339_shared

MAX_REASON_CHARS = 300

_EARLIEST = moment(EARLIEST_MS)
_LATEST = moment(LATEST_MS)

EventT = TypeVar("EventT", bound=Event)

_INSTANTS: dict[type[msgspec.Struct], tuple[str, ...]] = {
    event_type: tuple(
        name
        for name, hint in get_type_hints(event_type).items()
        if hint in (datetime, datetime | None)
    )
    for event_type in get_args(Event)
}


class InvalidEvent(ValueError):  # noqa: N818 - the name that the contract gives it
    """These bytes are not the event; `reason` says why, in one printable line of 300 characters.

    The reason may quote what was read, so everything that could disturb a terminal or a log is
    escaped.
    """

    def __init__(self, reason: str) -> None:
        # Shortened before and after: what is quoted may be a megabyte, and escapes make it longer.
        self.reason = _shortened(printable(_shortened(reason)))
        super().__init__(self.reason)


def decode(event_type: type[EventT], data: bytes | None) -> EventT:
    """The event of type `event_type` (one of schemas.events) that `data` holds.

    `data` is a Kafka record's value; None, a tombstone, is no event. Raises `InvalidEvent` and
    nothing else, whatever the bytes are.
    """
    if not data:
        raise InvalidEvent("no value (a tombstone)" if data is None else "the value is empty")
    try:
        event = msgspec.convert(orjson.loads(data), event_type)
    except orjson.JSONDecodeError as error:
        raise InvalidEvent(_not_json(data, error)) from None
    except msgspec.ValidationError as error:
        raise InvalidEvent(_not_valid(str(error))) from None
    except RecursionError:
        raise InvalidEvent("not JSON: nested too deeply") from None
    for name in _INSTANTS[event_type]:
        at = getattr(event, name)
        if at is not None and not _EARLIEST <= at <= _LATEST:
            raise InvalidEvent(f"a time outside of 1970 to 2200 - at `$.{name}`")
    if isinstance(event, PodCommand) and not all(
        _EARLIEST <= at <= _LATEST for at in event.due_at or ()
    ):
        raise InvalidEvent("a time outside of 1970 to 2200 - at `$.due_at`")
    return event


def encode(event: Event) -> bytes:
    """`event` as JSON; times in UTC with milliseconds, optional fields left out when None.

    Values are not checked. Raises `InvalidEvent` only for text that is not Unicode (a lone
    surrogate), for which there are no bytes.
    """
    fields = {
        name: value
        for name in event.__struct_fields__
        if (value := getattr(event, name)) is not None
    }
    try:
        return orjson.dumps(fields, _instant_text, orjson.OPT_PASSTHROUGH_DATETIME)
    except orjson.JSONEncodeError as error:
        raise InvalidEvent(f"cannot be written as JSON: {error}") from None


def fired(
    activity_id: str,
    pod_id: str,
    post_id: str,
    member_id: str,
    engagement_type: EngagementType,
    attempt: int,
    scheduled_for_ms: int,
    dispatched_at_ms: int,
) -> tuple[bytes, bytes]:
    """What a timer becomes that fires: an `execute-engagement` event and the `engagement-status`
    event with status `dispatched`, without the detour over their types.

    Times in milliseconds UTC; event ids are derived. Values are not checked. The dispatcher's hot
    path: what both have in common is written once.
    """
    own = _plain(activity_id)
    what = (
        f'"activity_id":"{own}","pod_id":"{_shared(pod_id)}","post_id":"{_plain(post_id)}"'
        f',"member_id":"{_shared(member_id)}","engagement_type":"{engagement_type}"'
    )
    due, at = rfc3339(scheduled_for_ms), rfc3339_shared(dispatched_at_ms)
    return (
        f'{{"event_id":"{execute_event_id(own, attempt)}",{what}'
        f',"attempt":{attempt},"scheduled_for":"{due}","dispatched_at":"{at}"}}'.encode(),
        f'{{"event_id":"{status_event_id(own, "dispatched", attempt)}",{what}'
        f',"status":"dispatched","attempt":{attempt},"at":"{at}","scheduled_for":"{due}"}}'.encode(),
    )


def engagement_status(
    activity_id: str,
    pod_id: str,
    post_id: str,
    member_id: str,
    engagement_type: EngagementType,
    status: StatusName,
    attempt: int,
    at_ms: int,
    scheduled_for_ms: int | None = None,
    reason: str | None = None,
    event_id: str | None = None,
) -> bytes:
    """An `engagement-status` event, as in `fired`. `event_id`: another than the usual."""
    own = _plain(activity_id)
    named = status_event_id(own, status, attempt) if event_id is None else _plain(event_id)
    due = "" if scheduled_for_ms is None else f',"scheduled_for":"{rfc3339(scheduled_for_ms)}"'
    why = "" if reason is None else f',"reason":"{_escaped(reason)}"'
    return (
        f'{{"event_id":"{named}","activity_id":"{own}",{_of_post(pod_id, post_id)}'
        f',"member_id":"{_shared(member_id)}","engagement_type":"{engagement_type}"'
        f',"status":"{status}","attempt":{attempt},"at":"{rfc3339_shared(at_ms)}"{due}{why}}}'
    ).encode()


def _escaped(text: str) -> str:
    """`text` as it stands between the quotes of a JSON string."""
    return orjson.dumps(text)[1:-1].decode()


# Pods and members come again and again; posts do not, and would push them out.
_shared = lru_cache(maxsize=65_536)(_escaped)


def _plain(text: str) -> str:
    """The same, for ids that do not: nearly all need no escape, and are seen to faster."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return _escaped(text)


@lru_cache(maxsize=1024)
def _of_post(pod_id: str, post_id: str) -> str:
    # Where a post is planned, its statuses come one after the other.
    return f'"pod_id":"{_shared(pod_id)}","post_id":"{_plain(post_id)}"'


def result_timeout(
    activity_id: str,
    pod_id: str,
    post_id: str,
    member_id: str,
    engagement_type: EngagementType,
    attempt: int,
    at_ms: int,
    error: str,
) -> bytes:
    """An `engagement-executed` event by which the engine gives an attempt up; as in `fired`."""
    return orjson.dumps(
        {
            "event_id": timeout_event_id(activity_id, attempt),
            "activity_id": activity_id,
            "pod_id": pod_id,
            "post_id": post_id,
            "member_id": member_id,
            "engagement_type": engagement_type,
            "attempt": attempt,
            "outcome": "failed",
            "executed_at": rfc3339_shared(at_ms),
            "error": error,
            "retryable": True,
        }
    )


def _shortened(text: str) -> str:
    # From the middle, since the end says where in the event it is.
    return text if len(text) <= MAX_REASON_CHARS else f"{text[:200]}...{text[-97:]}"


def _not_valid(detail: str) -> str:
    # As a regex it would explain nothing. The contract has two: of ids, and of times of day.
    if "matching regex" in detail:
        where = detail[detail.rfind(" - at") :]
        clock = where.endswith(("quiet_from`", "quiet_until`"))
        what = "not a time of day like 22:00" if clock else "a control character in an id"
        return f"{what}{where}"
    return detail


def _not_json(data: bytes, error: orjson.JSONDecodeError) -> str:
    try:
        data.decode()
    except UnicodeDecodeError as undecodable:
        return f"not UTF-8: {undecodable.reason} at byte {undecodable.start}"
    return f"not JSON: {error}"


def _instant_text(value: object) -> str:
    if isinstance(value, datetime):
        return rfc3339(millis(value))
    raise TypeError(f"{type(value).__name__} has no form on the wire")
