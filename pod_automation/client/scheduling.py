"""Pending rows to `schedule` commands: in batches, one command for each post of a batch."""

import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from pod_automation.client.commands import event_id, schedule
from pod_automation.client.results import ScheduledJob
from pod_automation.client.sender import Outgoing, default_shard
from pod_automation.client.stores import Stores
from scheduler.activity import Status
from scheduler.adapters.postgres_client import PendingActivity
from scheduler.settings import Settings
from schemas.codec import InvalidEvent
from schemas.events import EngagementType, is_id

PAGE_BATCHES = 50
"""Batches read and sent at once, so that reading many rows takes few queries."""

COUNTED_AT_ONCE = 10_000

# What a row that was scheduled can be by the time it is counted.
_SCHEDULED = (
    Status.SCHEDULED,
    Status.RETRYING,
    Status.DISPATCHED,
    Status.EXECUTED,
    Status.FAILED,
)


@dataclass
class Sent:
    """What has been handed over: activities, the last offset in each partition, and how many rows
    cannot be sent, since their ids are none of the contract."""

    activity_ids: list[str] = field(default_factory=list)
    offsets: dict[int, int] = field(default_factory=dict)
    unsendable: int = 0
    commands: int = 0


def new_job_id(what: str) -> str:
    """Tells the events of one job from those of others."""
    return f"{what}-{time.time_ns() // 1_000_000}"


def batch_size(settings: Settings, engagement_type: EngagementType) -> int:
    """How many pending activities are scheduled at once."""
    if engagement_type == "like":
        return settings.batch_size_likes
    return settings.batch_size_comments


async def pages(
    stores: Stores, engagement_type: EngagementType, pod_id: str | None, batch: int
) -> AsyncIterator[Sequence[PendingActivity]]:
    """The rows that are pending and due, until none is left; each once, also those that stay
    pending."""
    limit = batch * PAGE_BATCHES
    after, as_of = None, None
    while True:
        page = await stores.record(
            lambda record, after=after, as_of=as_of: record.pending(  # type: ignore[misc]
                limit, pod_id=pod_id, engagement_type=engagement_type, after=after, as_of=as_of
            )
        )
        if page.activities:
            yield page.activities
        if len(page.activities) < limit:
            return
        after, as_of = page.activities[-1], page.as_of


async def hand_over(
    stores: Stores,
    rows: Sequence[PendingActivity],
    batch: int,
    like_cap: int | None,
    job_id: str,
    sent: Sent,
    actor: str,
) -> None:
    """Send `rows` in batches of `batch`, in the name of `actor`, and add them to `sent` once Kafka
    has confirmed them.

    A row that is sent twice is planned once: a worker leaves alone what is not pending.
    """
    posts = list(dict.fromkeys(row.post_id for row in rows))
    shards = await stores.record(lambda record: record.shards_of_posts(posts))
    records: list[Outgoing] = []
    ids: list[str] = []
    for start in range(0, len(rows), batch):
        by_post: dict[str, list[str]] = {}
        for row in rows[start : start + batch]:
            if is_id(row.pod_id) and is_id(row.post_id) and is_id(row.member_id):
                by_post.setdefault(row.post_id, []).append(row.activity_id)
            else:
                sent.unsendable += 1
        for post_id, activity_ids in by_post.items():
            shard = shards.get(post_id)
            if shard is None:
                shard = default_shard(post_id, stores.settings.partitions)
            name = event_id(job_id, post_id, sent.commands + len(records))
            try:
                records.append(schedule(shard, post_id, activity_ids, like_cap, name, actor))
            except InvalidEvent:
                sent.unsendable += len(activity_ids)
            else:
                ids += activity_ids
    if not records:
        return
    offsets = await stores.send(stores.settings.topics.pod_commands, records)
    sent.commands += len(records)
    sent.activity_ids += ids
    for each, offset in zip(records, offsets, strict=True):
        sent.offsets[each.partition] = max(offset, sent.offsets.get(each.partition, -1))


async def job(
    stores: Stores, sent: Sent, engagement_type: EngagementType, of: str, job_id: str, wait_s: float
) -> ScheduledJob:
    """Wait up to `wait_s` until workers have applied what was sent, and say what came of it."""
    number = len(sent.activity_ids)
    what = f"{engagement_type}{'' if number == 1 else 's'}"
    rest = ""
    if sent.unsendable:
        rest = f"; {sent.unsendable} cannot be: their ids are none of the contract"
    if not number:
        none = f"no {what} of {of} are pending and due"
        return ScheduledJob(
            job_id=job_id,
            scheduled_count=0,
            message=f"none of the pending {what} of {of} scheduled{rest}" if rest else none,
        )
    if not wait_s:
        message = f"{number} {what} of {of} sent, for a worker to schedule{rest}"
        return ScheduledJob(job_id=job_id, scheduled_count=number, message=message, applied=False)
    if await stores.behind(stores.settings.topics.pod_commands, sent.offsets, wait_s):
        message = (
            f"{number} {what} of {of} sent; no worker has scheduled all of them within"
            f" {wait_s:g} s: is one running? Once one runs, it schedules them{rest}"
        )
        return ScheduledJob(job_id=job_id, scheduled_count=number, message=message, applied=False)
    count = await counted(stores, sent.activity_ids)
    left = f"; {number - count} left as they are" if count < number else ""
    what = f"{engagement_type}{'' if count == 1 else 's'}"
    return ScheduledJob(
        job_id=job_id,
        scheduled_count=count,
        message=f"{count} {what} of {of} scheduled{left}{rest}",
    )


async def counted(stores: Stores, activity_ids: Sequence[str]) -> int:
    """How many of these have been scheduled by now, or are further on."""
    count = 0
    for start in range(0, len(activity_ids), COUNTED_AT_ONCE):
        some = activity_ids[start : start + COUNTED_AT_ONCE]
        count += await stores.record(
            lambda record, some=some: record.count_in_status(some, _SCHEDULED)  # type: ignore[misc]
        )
    return count
