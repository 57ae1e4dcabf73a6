"""Readers of `engagement-status`, for the projection."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition

from scheduler.adapters.kafka_consumer import check_tasks, reading
from scheduler.adapters.kafka_errors import translated
from scheduler.kafka_servers import Kafka
from scheduler.ports import StatusPage, StatusReader

PAGE_RECORDS = 10_000
"""Records of one page, at most: what a projection holds in memory."""


class KafkaStatusLog:
    """The `StatusLog` port. Readers belong to no group: their offsets are in the record."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        """Connects when a reader is opened."""
        self._kafka = kafka
        self._topic = topic

    @asynccontextmanager
    async def reader(self, shard: int, offset: int) -> AsyncIterator[StatusReader]:
        """See `StatusLog.reader`. Raises `StoreUnavailableError`."""
        partition = TopicPartition(self._topic, shard)
        with translated():
            async with reading(self._kafka, [partition]) as consumer:
                reader = _Reader(consumer, partition)
                reader.seek(offset)
                yield reader


class _Reader:
    def __init__(self, consumer: AIOKafkaConsumer, partition: TopicPartition) -> None:
        self._consumer = consumer
        self._partition = partition

    def seek(self, offset: int) -> None:
        self._consumer.seek(self._partition, offset)

    async def page(self, wait_ms: int) -> StatusPage | None:
        with translated():
            check_tasks(self._consumer)
            found = await self._consumer.getmany(timeout_ms=wait_ms, max_records=PAGE_RECORDS)
            records = found.get(self._partition)
            if not records:
                return None
            # The position covers control and aborted records too, which are never seen.
            upto = await self._consumer.position(self._partition) - 1
            return StatusPage(self._partition.partition, upto, [record.value for record in records])

    async def position(self) -> int:
        with translated():
            return int(await self._consumer.position(self._partition))
