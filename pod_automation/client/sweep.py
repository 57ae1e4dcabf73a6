"""The sweep: schedules what upstream systems have inserted, of all pods, without being asked."""

from typing import get_args

from pod_automation.client.bounds import TIMEOUT_S
from pod_automation.client.scheduling import Sent, batch_size, hand_over, new_job_id, pages
from pod_automation.client.stores import Stores
from scheduler.settings import Settings
from schemas.events import EngagementType

MAX_ROWS = 10_000
"""Rows of each type that one sweep takes, about; the next one takes the rest."""

ACTOR = "worker"
"""Who asks for it, in the audit."""

APPLY_WAIT_S = 60.0
"""How long a sweep waits for its commands to be applied. Without it each sweep would send the same
rows again, for as long as no worker comes to them."""


async def sweep(
    settings: Settings, *, wait_s: float = APPLY_WAIT_S, timeout_s: float = TIMEOUT_S
) -> int:
    """Schedule the rows of all pods that are pending and due; returns how many were handed over.

    Returns when workers have applied it, or after `wait_s`; one answer of a store may take
    `timeout_s`. May run twice or die anywhere: a
    row is planned once. Raises `PodAutomationError`s, which are `EngineError`s.
    """
    stores = Stores(settings, timeout_s)
    try:
        sent = Sent()
        for engagement_type in get_args(EngagementType):
            batch = batch_size(settings, engagement_type)
            job_id = new_job_id(f"sweep-{engagement_type}s")
            until = len(sent.activity_ids) + MAX_ROWS
            async for rows in pages(stores, engagement_type, None, batch):
                await hand_over(stores, rows, batch, None, job_id, sent, ACTOR)
                if len(sent.activity_ids) >= until:
                    break
        if sent.offsets:
            await stores.behind(settings.topics.pod_commands, sent.offsets, wait_s)
        return len(sent.activity_ids)
    finally:
        await stores.close()
