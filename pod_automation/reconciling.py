"""The reconciler over the real stores, wired in one place."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from scheduler.adapters.kafka_view import KafkaView
from scheduler.adapters.postgres_view import PostgresView
from scheduler.adapters.redis_view import RedisWheelView
from scheduler.quick_look import QuickLook
from scheduler.reconcile import Reconciler
from scheduler.settings import Settings

CONNECTIONS = 4
"""To PostgreSQL: the reading of all rows, and second looks beside it."""


@asynccontextmanager
async def reconciler(
    settings: Settings, *, timeout_s: float, first: int
) -> AsyncIterator[Reconciler]:
    """See `Reconciler`. Connects on first use."""
    async with AsyncExitStack() as stack:
        wheel = RedisWheelView(settings.redis_url, prefix=settings.topic_prefix)
        stack.push_async_callback(wheel.close)
        record = await PostgresView.connect(settings.postgres_dsn, max_connections=CONNECTIONS)
        stack.push_async_callback(record.close)
        kafka = KafkaView(settings.kafka, settings.topics, settings.worker_group)
        stack.push_async_callback(kafka.close)
        yield Reconciler(
            wheel,
            record,
            kafka,
            settings.topics,
            await_ms=settings.result_timeout_ms,
            timeout_s=timeout_s,
            first=first,
        )


@asynccontextmanager
async def quick_look(settings: Settings) -> AsyncIterator[QuickLook]:
    """See `QuickLook`. Connects on first use."""
    async with AsyncExitStack() as stack:
        wheel = RedisWheelView(settings.redis_url, prefix=settings.topic_prefix)
        stack.push_async_callback(wheel.close)
        record = await PostgresView.connect(settings.postgres_dsn, max_connections=1)
        stack.push_async_callback(record.close)
        kafka = KafkaView(settings.kafka, settings.topics, settings.worker_group)
        stack.push_async_callback(kafka.close)
        yield QuickLook(wheel, record, kafka, settings.topics, settings.partitions)
