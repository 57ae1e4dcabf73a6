"""A pod's activities, and the queue, in numbers."""

from collections.abc import Sequence

import msgspec

from pod_automation.client.results import EngagementStats, QueueStatus
from pod_automation.client.stores import Stores
from scheduler.adapters.postgres_client import PostgresClient, QueueCounts
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.ports import WheelSize


async def pod_figures(stores: Stores, pod_id: str) -> EngagementStats:
    """Of PostgreSQL."""
    counts = await stores.record(lambda record: record.pod_stats(pod_id))
    retries = await stores.record(lambda record: record.pod_retries(pod_id))
    return EngagementStats(**msgspec.structs.asdict(counts), retries=retries)


async def queue_figures(stores: Stores) -> QueueStatus:
    """Of Redis and PostgreSQL. A wheel that is being rebuilt is no empty one: its part comes from
    the rows that it is built of."""

    async def sizes(wheel: RedisWheel) -> Sequence[WheelSize]:
        return [await wheel.size(shard) for shard in range(stores.settings.partitions)]

    wheels = await stores.wheels(sizes)
    counts = await stores.record(PostgresClient.overview)
    rebuilding = tuple(shard for shard, size in enumerate(wheels) if size.gen is None)
    lost = QueueCounts(0, 0, 0)
    if rebuilding:
        lost = await stores.record(lambda record: record.queue_of_shards(rebuilding))
    whole = [size for size in wheels if size.gen is not None]
    waiting = lost.waiting + sum(size.due for size in whole)
    delayed = lost.delayed + sum(size.pending - size.due for size in whole)
    active = lost.active + sum(size.in_flight + size.awaited for size in whole)
    return QueueStatus(
        waiting=waiting,
        active=active,
        delayed=delayed,
        completed=counts.executed,
        failed=counts.failed,
        total=waiting + active + delayed,
        rebuilding=rebuilding,
    )
