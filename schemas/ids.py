"""Ids are derived, never random, so that a replay carries the same id."""

from collections.abc import Callable
from hashlib import sha1
from struct import Struct

# UUIDv5 namespace of activity ids. Part of the contract: changing it would give every activity
# that is replayed a second identity.
NAMESPACE = bytes.fromhex("6f0c7e3a8d5b5c2e9a410d6a1b7f42e3")

# Cannot occur in an id (schemas.events.Id refuses control characters), so that no two different
# quadruples have the same name.
_SEPARATOR = "\x1f"


# The digit whose two upper bits say that it is a UUID of RFC 9562.
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_first_eight = Struct(">Q").unpack_from


def activity_id(pod_id: str, post_id: str, member_id: str, engagement_type: str) -> str:
    """The UUIDv5 (RFC 9562, 5.5) of (pod, post, member, type), in canonical form."""
    name = _SEPARATOR.join((pod_id, post_id, member_id, engagement_type)).encode()
    # uuid.uuid5 does the same at three times the cost, and this runs once for each timer fired.
    return _version_5(sha1(NAMESPACE + name, usedforsecurity=False).hexdigest())


def ids_of_post(pod_id: str, post_id: str) -> Callable[[str, str], tuple[str, int]]:
    """What gives `activity_id` for the members and types of one post, and with each id its first
    eight bytes as a number. What their names begin with is hashed once."""
    begun = sha1(
        NAMESPACE + f"{pod_id}{_SEPARATOR}{post_id}{_SEPARATOR}".encode(), usedforsecurity=False
    )

    def identified(member_id: str, engagement_type: str) -> tuple[str, int]:
        name = begun.copy()
        name.update(f"{member_id}{_SEPARATOR}{engagement_type}".encode())
        raw = name.digest()
        return _version_5(raw.hex()), _first_eight(raw)[0] & ~0xF000 | 0x5000

    return identified


def _version_5(h: str) -> str:
    """The UUID of a SHA-1, which comes in hexadecimal digits."""
    return f"{h[:8]}-{h[8:12]}-5{h[13:16]}-{_VARIANT[h[16]]}{h[17:20]}-{h[20:32]}"


def uuid_text(raw: bytes) -> str:
    """16 bytes as a canonical, lower-case UUID."""
    h = raw.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def execute_event_id(activity: str, attempt: int) -> str:
    """`event_id` of the `execute-engagement` event of one attempt."""
    return f"{activity}:execute:{attempt}"


def status_event_id(activity: str, status: str, attempt: int) -> str:
    """`event_id` of the `engagement-status` event of one attempt's status."""
    return f"{activity}:{status}:{attempt}"


def postponed_event_id(activity: str, status: str, attempt: int, due_ms: int) -> str:
    """The same, where the attempt waits once more, until another time than at first."""
    return f"{status_event_id(activity, status, attempt)}:{due_ms}"


def overdue_event_id(shard: int, nonce: str, number: int) -> str:
    """`event_id` of a dispatcher's command about overdue timers: the `number`th of its batch."""
    return f"overdue:{shard}:{nonce}:{number}"


def result_event_id(activity: str, outcome: str, attempt: int) -> str:
    """`event_id` of the `engagement-executed` event of one attempt."""
    return f"{activity}:{outcome}:{attempt}"


def timeout_event_id(activity: str, attempt: int) -> str:
    """The same, where the engine itself reports that no result has come in time."""
    return f"{activity}:timeout:{attempt}"


def dead_letter_id(topic: str, partition: int, offset: int) -> str:
    """`ce_id` of a dead letter: the source position, which tells doubles apart."""
    return f"{topic}/{partition}/{offset}"
