"""Cancelling what waits, in every shard."""

from pod_automation.client import commands
from pod_automation.client.errors import NotAppliedError
from pod_automation.client.scheduling import new_job_id
from pod_automation.client.stores import Stores
from scheduler.adapters.postgres_client import PostgresClient


async def clear(
    stores: Stores, pod_id: str | None, wait_s: float, *, actor: str, reason: str
) -> int:
    """Cancel all that waits, of all pods or of one; returns how many. Raises `NotAppliedError`.

    The number is exact: each row names the command that has changed it last.
    """
    # First: without a record there would be no count to return.
    await stores.record(PostgresClient.ping)
    job_id = new_job_id("clear")
    topic, shards = stores.settings.topics.pod_commands, range(stores.settings.partitions)
    records = [
        commands.cancel(shard, pod_id, commands.event_id(job_id, "cancel", shard), actor, reason)
        for shard in shards
    ]
    offsets = dict(zip(shards, await stores.send(topic, records), strict=True))
    behind = await stores.behind(topic, offsets, wait_s)
    count = await stores.record(lambda record: record.cancelled_by(offsets))
    if behind:
        raise NotAppliedError(
            f"{count} activities are cancelled so far: workers have applied it to"
            f" {len(offsets) - len(behind)} of {len(offsets)} shards within {wait_s:g} s;"
            " the others follow once a worker has them"
        )
    return count
