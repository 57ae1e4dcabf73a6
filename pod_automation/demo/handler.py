"""The demo's handler: it only pretends, touches no platform, and fails as `fate` has it.

pod-automation executor --handler pod_automation.demo.handler:handle
"""

import asyncio
from uuid import UUID

from pod_automation.demo.fate import Answer, answer
from pod_automation.executor import Engagement, Permanent, Retry

LEAST_WORK_S = 0.002
WORK_STEPS = 13
"""Steps of a millisecond. The real thing takes seconds, but time is compressed."""

LATER_S = 0.2

HANG_S = 3600.0


async def handle(engagement: Engagement) -> None:
    """Pretend to like or comment."""
    await asyncio.sleep(LEAST_WORK_S + UUID(engagement.activity_id).int % WORK_STEPS / 1000)
    match answer(engagement.activity_id, engagement.attempt):
        case Answer.ERROR:
            raise RuntimeError("the platform has hiccups (pretended)")
        case Answer.LATER:
            raise Retry(LATER_S, "too many requests (pretended)")
        case Answer.NEVER:
            raise Permanent("the post is gone (pretended)")
        case Answer.HANG:
            await asyncio.sleep(HANG_S)
