"""A timer of the wheel, and its packed form: the member of a Redis sorted set.

Layout of a packed timer: one byte of flags, one byte of attempt, then pod, post and member id, and
the activity id only where it is not the derived one. An id that is a canonical UUID takes 16 bytes;
any other is its UTF-8 after a two-byte length. A timer of UUIDs takes 50 bytes, so that a slot
stays a listpack (`zset-max-listpack-value` is 64 by default).
"""

from functools import lru_cache
from typing import Literal

from msgspec import Struct

from scheduler.controls import Subject
from schemas.events import EngagementType
from schemas.ids import activity_id as derived_id
from schemas.ids import uuid_text

_COMMENT = 0x01
_POD_UUID = 0x02
_POST_UUID = 0x04
_MEMBER_UUID = 0x08
_OWN_ID = 0x10
_OWN_ID_UUID = 0x20

_TYPES: tuple[Literal["like"], Literal["comment"]] = ("like", "comment")


class Timer(Struct, frozen=True, gc=False):
    """One attempt of one activity, due at `due_ms` (milliseconds UTC)."""

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    engagement_type: EngagementType
    attempt: int
    due_ms: int


def _pack_id(text: str) -> tuple[bool, bytes]:
    if len(text) == 36:
        try:
            raw = bytes.fromhex(text.replace("-", ""))
        except ValueError:
            pass
        else:
            # Only the canonical form: capitals, say, would not come back as they were.
            if len(raw) == 16 and uuid_text(raw) == text:
                return True, raw
    data = text.encode()
    return False, len(data).to_bytes(2, "big") + data


# Members and pods repeat over all posts: caching saves most of the formatting. Posts do not, and
# would push them out.
_uuid_text = lru_cache(maxsize=65_536)(uuid_text)
_pack_member = lru_cache(maxsize=65_536)(_pack_id)


@lru_cache(maxsize=4096)
def _pack_post(
    pod_id: str, post_id: str, engagement_type: EngagementType, attempt: int
) -> tuple[bytes, bytes]:
    # What the timers of one post share, and they come together: all before the member's id, where
    # that is no UUID and where it is one.
    pod_is_uuid, pod = _pack_member(pod_id)
    post_is_uuid, post = _pack_id(post_id)
    flags = (
        (_COMMENT if engagement_type == "comment" else 0)
        | (_POD_UUID if pod_is_uuid else 0)
        | (_POST_UUID if post_is_uuid else 0)
    )
    behind = bytes([attempt]) + pod + post
    return bytes([flags]) + behind, bytes([flags | _MEMBER_UUID]) + behind


def subject_key(subject: Subject) -> bytes:
    """How the wheel names who is paused (lua/paused.lua): by the bytes that their timers hold."""
    if subject.scope == "all":
        return b"all"
    is_uuid, packed = _pack_id(subject.name)
    return b"%b%c%b" % (subject.scope.encode(), b"#" if is_uuid else b"=", packed)


def pack_derived(timer: Timer) -> bytes:
    """`pack`, for a timer whose id is known to be the derived one."""
    post = _pack_post(timer.pod_id, timer.post_id, timer.engagement_type, timer.attempt)
    member_is_uuid, member = _pack_member(timer.member_id)
    return post[member_is_uuid] + member


def pack(timer: Timer) -> bytes:
    """`timer` without its due time, which is the score."""
    packed = pack_derived(timer)
    if timer.activity_id == derived_id(
        timer.pod_id, timer.post_id, timer.member_id, timer.engagement_type
    ):
        return packed
    own_is_uuid, own = _pack_id(timer.activity_id)
    flags = packed[0] | _OWN_ID | (_OWN_ID_UUID if own_is_uuid else 0)
    return b"%c%b%b" % (flags, packed[1:], own)


def unpack(packed: bytes, due_ms: int) -> Timer:
    """The exact inverse of `pack`."""
    flags = packed[0]
    engagement_type = _TYPES[flags & _COMMENT]
    if flags & ~_COMMENT == _POD_UUID | _POST_UUID | _MEMBER_UUID:
        # Three UUIDs and a derived id: nearly every timer there is.
        pod_id = _uuid_text(packed[2:18])
        post_id = uuid_text(packed[18:34])
        member_id = _uuid_text(packed[34:50])
        own_id = None
    else:
        pod_id, at = _unpack_id(packed, 2, flags & _POD_UUID)
        post_id, at = _unpack_id(packed, at, flags & _POST_UUID)
        member_id, at = _unpack_id(packed, at, flags & _MEMBER_UUID)
        own_id = _unpack_id(packed, at, flags & _OWN_ID_UUID)[0] if flags & _OWN_ID else None
    return Timer(
        own_id or derived_id(pod_id, post_id, member_id, engagement_type),
        pod_id,
        post_id,
        member_id,
        engagement_type,
        packed[1],
        due_ms,
    )


def _unpack_id(packed: bytes, at: int, is_uuid: int) -> tuple[str, int]:
    if is_uuid:
        return _uuid_text(packed[at : at + 16]), at + 16
    end = at + 2 + int.from_bytes(packed[at : at + 2], "big")
    return packed[at + 2 : end].decode(), end
