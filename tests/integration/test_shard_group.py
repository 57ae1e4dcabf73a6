"""Membership in the dispatchers' group, when the client breaks in ways of its own."""

import pytest

from scheduler.adapters.kafka_shard_group import KafkaShardGroup
from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.errors import StoreUnavailableError
from scheduler.settings import Settings

pytestmark = pytest.mark.timeout(240)


async def test_a_client_whose_own_task_has_died_is_replaced(settings: Settings) -> None:
    await ensure_topics(settings)
    group = KafkaShardGroup(
        settings.kafka_bootstrap,
        settings.topics.wheel_cursor,
        settings.dispatcher_group,
        settings.session_timeout_ms,
    )
    everything = frozenset(range(settings.partitions))
    try:
        assert await group.changed() == everything
        assert group._consumer is not None
        group._consumer._client._sync_task.cancel()
        with pytest.raises(StoreUnavailableError, match="task of the client has ended"):
            await group.changed()
        assert await group.changed() == everything
    finally:
        await group.close()
