"""One example of each event, for the generated documents and the tests."""

from datetime import UTC, datetime

from schemas.events import (
    EngagementExecuted,
    EngagementStatus,
    Event,
    ExecuteEngagement,
    PodCommand,
    PostDetected,
    WheelCursor,
)
from schemas.ids import activity_id, execute_event_id, status_event_id

_POD = "0b7a1c52-9f0e-4a53-8d9b-6f1f5a6f2d11"
_POST = "5e0f8a36-2b4d-4a0c-9a55-1d2c3b4a5f60"
_MEMBER = "c2a4e6f8-1b3d-4f5a-8c7e-9d0b2a4c6e80"
_AUTHOR = "7d1f3b59-8e2c-4d6a-b0f4-3a5c7e9b1d20"
_LIKE = activity_id(_POD, _POST, _MEMBER, "like")
_DETECTED = datetime(2026, 11, 24, 8, 0, 0, tzinfo=UTC)
_DUE = datetime(2026, 11, 24, 8, 5, 0, tzinfo=UTC)
_SENT = datetime(2026, 11, 24, 8, 5, 0, 12_000, tzinfo=UTC)
_DONE = datetime(2026, 11, 24, 8, 5, 1, 730_000, tzinfo=UTC)

EXAMPLES: dict[type[Event], Event] = {
    PostDetected: PostDetected(
        event_id="post-5e0f8a36",
        pod_id=_POD,
        post_id=_POST,
        member_ids=(_MEMBER, _AUTHOR),
        detected_at=_DETECTED,
        author_id=_AUTHOR,
        post_url="https://social.example/posts/5e0f8a36",
    ),
    ExecuteEngagement: ExecuteEngagement(
        event_id=execute_event_id(_LIKE, 1),
        activity_id=_LIKE,
        pod_id=_POD,
        post_id=_POST,
        member_id=_MEMBER,
        engagement_type="like",
        attempt=1,
        scheduled_for=_DUE,
        dispatched_at=_SENT,
    ),
    EngagementExecuted: EngagementExecuted(
        event_id=f"{_LIKE}:executed:1",
        activity_id=_LIKE,
        pod_id=_POD,
        post_id=_POST,
        member_id=_MEMBER,
        engagement_type="like",
        attempt=1,
        outcome="executed",
        executed_at=_DONE,
    ),
    EngagementStatus: EngagementStatus(
        event_id=status_event_id(_LIKE, "dispatched", 1),
        activity_id=_LIKE,
        pod_id=_POD,
        post_id=_POST,
        member_id=_MEMBER,
        engagement_type="like",
        status="dispatched",
        attempt=1,
        at=_SENT,
        scheduled_for=_DUE,
    ),
    PodCommand: PodCommand(
        event_id=f"schedule-likes-{_POD}-1795507500000:{_POST}",
        command="schedule",
        issued_at=_DUE,
        post_id=_POST,
        activity_ids=(_LIKE,),
        like_cap=3,
    ),
    WheelCursor: WheelCursor(seq=41, nonce="9f86d081884c7d65", gen="2c26b46b68ffc68f"),
}
