"""Readers of `engagement-status`, for the projector."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer, TopicPartition

from scheduler.adapters.kafka.consumer import reading
from scheduler.adapters.kafka.errors import translated
from scheduler.ports import StatusPage, StatusReader

PAGE_RECORDS = 10_000
"""Records of one turn over all shards, at most: what a projection holds in memory."""


class KafkaStatusLog:
    """The `StatusLog` port. Readers belong to no group: their offsets are in the record."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        """Connects when a reader is opened."""
        self._bootstrap = bootstrap
        self._topic = topic

    @asynccontextmanager
    async def reader(self, offsets: Mapping[int, int]) -> AsyncIterator[StatusReader]:
        """See `StatusLog.reader`. Raises `StoreUnavailableError`."""
        partitions = [TopicPartition(self._topic, shard) for shard in offsets]
        with translated():
            async with reading(self._bootstrap, partitions) as consumer:
                reader = _Reader(consumer, self._topic)
                for shard, offset in offsets.items():
                    reader.seek(shard, offset)
                yield reader


class _Reader:
    def __init__(self, consumer: AIOKafkaConsumer, topic: str) -> None:
        self._consumer = consumer
        self._topic = topic

    def seek(self, shard: int, offset: int) -> None:
        self._consumer.seek(TopicPartition(self._topic, shard), offset)

    async def pages(self, wait_ms: int) -> Sequence[StatusPage]:
        with translated():
            found = await self._consumer.getmany(timeout_ms=wait_ms, max_records=PAGE_RECORDS)
            return [
                StatusPage(
                    partition.partition,
                    await self._consumer.position(partition) - 1,
                    [record.value for record in records],
                )
                for partition, records in found.items()
                if records
            ]

    async def position(self, shard: int) -> int:
        with translated():
            return int(await self._consumer.position(TopicPartition(self._topic, shard)))
