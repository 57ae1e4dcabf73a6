"""A handler whose every answer is known before: by activity and attempt alone."""

import asyncio
from uuid import UUID

from pod_automation.executor import Engagement, Permanent, Retry

HANG_S = 60.0


def answer(activity_id: str, attempt: int) -> str:
    """`executed`, `again`, `later`, `never` or `hang`."""
    chance = UUID(activity_id).int % 100
    if chance < 4:
        return "again"
    if chance < 8:
        return "never"
    if attempt == 1:
        if chance < 14:
            return "again"
        if chance < 20:
            return "later"
        if chance < 23:
            return "hang"
    return "executed"


def end(activity_id: str) -> tuple[str, int]:
    """The final status of an activity with three attempts, and its attempt."""
    for attempt in (1, 2, 3):
        said = answer(activity_id, attempt)
        if said == "executed":
            return "executed", attempt
        if said == "never":
            return "failed", attempt
    return "failed", 3


async def handle(engagement: Engagement) -> None:
    """Does nothing, and says so."""
    await asyncio.sleep(0.002)
    said = answer(engagement.activity_id, engagement.attempt)
    if said == "again":
        raise RuntimeError("the platform has hiccups")
    if said == "later":
        raise Retry(0.3, "not now")
    if said == "never":
        raise Permanent("the post is gone")
    if said == "hang":
        await asyncio.sleep(HANG_S)
