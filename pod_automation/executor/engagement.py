"""What a handler is given, and what it may raise."""

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from schemas.codec import InvalidEvent
from schemas.events import MAX_RETRY_AFTER_MS, EngagementType, ExecuteEngagement, is_id

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engagement:
    """One like or comment that is due. Times are aware, in UTC."""

    activity_id: str
    pod_id: str
    post_id: str
    member_id: str
    """Who is to like or comment."""
    engagement_type: EngagementType
    """`like` or `comment`."""
    attempt: int
    """Which try this is, from 1."""
    scheduled_for: datetime
    """When it fell due."""
    dispatched_at: datetime
    """When the engine sent it."""
    traceparent: str | None = None
    """The trace that it belongs to (W3C), where the engine or whoever published the post keeps one;
    its result is given the same one."""

    @property
    def idempotency_key(self) -> str:
        """Names what is to be done once: the same in every copy and in every attempt.

        In every attempt, since one that failed may have done its work before it failed. Give it to
        the platform where that takes such a key; otherwise ask it first what is there already.
        """
        return self.activity_id

    @classmethod
    def of(cls, event: ExecuteEngagement, traceparent: str | None = None) -> "Engagement":
        """What `event` asks for. Raises `InvalidEvent` where an id is none that a result may carry:
        it would be refused, or be too large to be sent, and hold up those behind it."""
        for name in ("activity_id", "pod_id", "post_id", "member_id"):
            if not is_id(getattr(event, name)):
                raise InvalidEvent(f"no result may carry such an id - at `$.{name}`")
        return cls(
            activity_id=event.activity_id,
            pod_id=event.pod_id,
            post_id=event.post_id,
            member_id=event.member_id,
            engagement_type=event.engagement_type,
            attempt=event.attempt,
            scheduled_for=event.scheduled_for,
            dispatched_at=event.dispatched_at,
            traceparent=traceparent,
        )


Handler = Callable[[Engagement], Awaitable[None]]
"""Does one engagement. Returning means done; raising `Permanent` means that it never can be,
`Retry` and every other exception that another attempt may help."""


class Retry(Exception):  # noqa: N818 - what the handler wants, rather than what went wrong
    """Not now: the engine is to try again.

    `after` (seconds, or a timedelta) replaces the engine's back-off where it is given; a week at
    most. `reason` is for people.
    """

    after_ms: int | None = None
    """Of the class too: one of yours may have an `__init__` of its own."""

    def __init__(self, after: float | timedelta | None = None, reason: str = "") -> None:
        super().__init__(reason or "try again")
        self.after_ms = None if after is None else _millis(after)


class Permanent(Exception):  # noqa: N818 - as Retry
    """Never: another attempt would not help. `reason` is for people."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason or "refused for good")


async def dry_run(engagement: Engagement) -> None:
    """Say what a real handler would do now, and do nothing."""
    log.info(
        "would do",
        what=engagement.engagement_type,
        post=engagement.post_id,
        activity=engagement.activity_id,
        attempt=engagement.attempt,
    )


def _millis(after: float | timedelta) -> int:
    seconds = after.total_seconds() if isinstance(after, timedelta) else float(after)
    if math.isnan(seconds):
        raise ValueError("Retry(after=...) is not a number")
    return int(min(max(seconds * 1000, 0), MAX_RETRY_AFTER_MS))
