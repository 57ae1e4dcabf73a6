"""Consumers without a group, opened and closed safely."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaConnectionError

FETCH_BYTES = 4 << 20
"""Fetched from one partition at a time, at most."""

FETCH_WAIT_MS = 1000
"""How long the broker holds an empty fetch; what an idle consumer costs is one request each."""

CLOSE_S = 2.0

HEARTBEATS_PER_SESSION = 12
"""A heartbeat every half second for a session of six: how soon a member learns of a rebalance."""

METADATA_MAX_AGE_MS = 5_000
"""A member that subscribes while the broker is away knows no partition of its topic. As the group's
leader it then gives out none, to anybody, until it asks again; by default after five minutes."""

NEVER_MS = 24 * 3_600_000
"""No time limit on polls: with every partition paused a member reads nothing, and must not be
thrown out for that."""


@asynccontextmanager
async def reading(
    bootstrap: str,
    partitions: Collection[TopicPartition] = (),
    *,
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer of `partitions`, stopped in bounded time. Raises aiokafka's errors."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level=isolation,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=FETCH_BYTES,
        fetch_max_wait_ms=FETCH_WAIT_MS,
    )
    if partitions:
        consumer.assign(partitions)
    try:
        await consumer.start()
        yield consumer
    finally:
        await stop(consumer)


def member(
    bootstrap: str, group_id: str, session_timeout_ms: int, **options: Any
) -> AIOKafkaConsumer:
    """A consumer of the group, not yet started, which commits nothing by itself and leaves alone
    the partitions that stay at a rebalance. `options` are aiokafka's."""
    return AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group_id,
        enable_auto_commit=False,
        session_timeout_ms=session_timeout_ms,
        heartbeat_interval_ms=max(100, session_timeout_ms // HEARTBEATS_PER_SESSION),
        rebalance_timeout_ms=session_timeout_ms,
        max_poll_interval_ms=NEVER_MS,
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        partition_assignment_strategy=[StickyPartitionAssignor],
        **options,
    )


def check_alive(consumer: AIOKafkaConsumer) -> None:
    """Raises `KafkaConnectionError` for a consumer that would wait for metadata for ever.

    The task that fetches them dies of a write on a connection that uvloop has closed, a
    `RuntimeError` that aiokafka does not expect; and nobody starts it again. To be called with
    every poll.
    """
    task = consumer._client._sync_task
    if task is not None and task.done():
        raise KafkaConnectionError("the client's own task has ended; a new consumer is needed")


async def stop(consumer: AIOKafkaConsumer) -> None:
    """Close `consumer` within `CLOSE_S`, whatever state it is in; raises nothing."""
    # In a task of its own: stop() awaits tasks that it has cancelled, and one that had not begun
    # yet lets its CancelledError out (group_coordinator.py:180), which would end our caller.
    stopping = asyncio.ensure_future(consumer.stop())
    done, _ = await asyncio.wait([stopping], timeout=CLOSE_S)
    if not done:
        stopping.cancel()
    elif not stopping.cancelled():
        stopping.exception()
