"""Consumers, opened and closed safely."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Literal

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaConnectionError

import scheduler.adapters.kafka_connection  # noqa: F401 - for all clients
from scheduler.kafka_servers import Kafka, client_options

FETCH_BYTES = 4 << 20
"""Fetched from one partition at a time, at most."""

FETCH_WAIT_MS = 1000
"""How long the broker holds an empty fetch; what an idle consumer costs is one request each."""

CLOSE_S = 2.0


@asynccontextmanager
async def reading(
    kafka: Kafka,
    partitions: Collection[TopicPartition] = (),
    *,
    isolation: Literal["read_committed", "read_uncommitted"] = "read_committed",
) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer of `partitions`, stopped in bounded time. Raises aiokafka's errors."""
    consumer = AIOKafkaConsumer(
        **client_options(kafka),
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


def check_tasks(consumer: AIOKafkaConsumer) -> None:
    """Raises `KafkaConnectionError` for a consumer that would find nothing for ever: one of its own
    tasks, which nobody starts again, has died of what aiokafka does not expect. To be called with
    every poll."""
    fetcher, coordinator = consumer._fetcher, consumer._coordinator
    for task in (
        consumer._client._sync_task,
        fetcher and fetcher._fetch_task,
        getattr(coordinator, "_coordination_task", None),
    ):
        if task is not None and task.done():
            error = None if task.cancelled() else task.exception()
            why = "" if error is None else f" ({error!r})"
            raise KafkaConnectionError(f"a task of the client has ended{why}; a new one is needed")


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
