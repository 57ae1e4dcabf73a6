"""Kafka as an onlooker sees it: offsets, cursors and stretches of a partition, without a group."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal

from aiokafka import AIOKafkaConsumer, TopicPartition

from scheduler.adapters.kafka_acked import acked
from scheduler.adapters.kafka_consumer import check_tasks, reading, stop
from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_records import read_foreign_headers
from scheduler.adapters.kafka_shard_log import last_cursor
from scheduler.kafka_servers import Kafka, client_options
from schemas.events import WheelCursor
from schemas.topics import Topics

CALL_S = 15.0
"""A broker that does not answer within this time counts as away; longer than a dead dispatcher's
transaction stays open would do no good, as nobody fires the shard then."""

PAGE_RECORDS = 5_000
POLL_MS = 200


class KafkaView:
    """The `LogView` port. Offsets are asked for on one connection; each reading has its own."""

    def __init__(self, kafka: Kafka, topics: Topics, worker_group: str) -> None:
        """Connects on first use."""
        self._kafka = kafka
        self._topics = topics
        self._group = worker_group
        self._asker: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()
        # Foreign clients write some of what is read here.
        read_foreign_headers()

    async def close(self) -> None:
        """Close the connection, within a bounded time."""
        asker, self._asker = self._asker, None
        if asker is not None:
            await stop(asker)

    async def cursors(self, shards: Sequence[int]) -> Mapping[int, WheelCursor | None]:
        """See `LogView.cursors`. Raises `StoreUnavailableError`, also where a transaction stays
        open."""
        topic = self._topics.wheel_cursor
        spans = (await self.spans([topic], shards))[topic]
        found: dict[int, WheelCursor | None] = {}
        with translated():
            async with reading(self._kafka) as consumer:
                for shard in shards:
                    partition = TopicPartition(topic, shard)
                    consumer.assign([partition])
                    async with asyncio.timeout(CALL_S):
                        found[shard] = await last_cursor(consumer, partition, *spans[shard])
        return found

    async def spans(
        self, topics: Sequence[str], shards: Sequence[int]
    ) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        """See `LogView.spans`."""
        async with self._asked() as consumer:
            partitions = [TopicPartition(topic, shard) for topic in topics for shard in shards]
            begin = await consumer.beginning_offsets(partitions)
            end = await consumer.end_offsets(partitions)
        return {
            topic: {
                shard: (
                    begin[TopicPartition(topic, shard)],
                    end[TopicPartition(topic, shard)],
                )
                for shard in shards
            }
            for topic in topics
        }

    async def acked(self) -> Mapping[str, Mapping[int, int]]:
        """See `LogView.acked`."""
        return await acked(self._kafka, self._group, self._topics.inputs)

    async def offset_at(self, topic: str, shard: int, at_ms: int) -> int:
        """See `LogView.offset_at`."""
        partition = TopicPartition(topic, shard)
        async with self._asked() as consumer:
            found = (await consumer.offsets_for_times({partition: at_ms}))[partition]
            if found is not None:
                return int(found.offset)
            return int((await consumer.end_offsets([partition]))[partition])

    async def read(
        self, topic: str, shard: int, start: int, end: int, *, committed: bool
    ) -> AsyncGenerator[Sequence[tuple[int, bytes | None]], None]:
        """See `LogView.read`. Unbounded in time."""
        partition = TopicPartition(topic, shard)
        isolation: Literal["read_committed", "read_uncommitted"] = (
            "read_committed" if committed else "read_uncommitted"
        )
        with translated():
            async with reading(self._kafka, [partition], isolation=isolation) as consumer:
                consumer.seek(partition, start)
                while await consumer.position(partition) < end:
                    check_tasks(consumer)
                    found = await consumer.getmany(
                        partition, timeout_ms=POLL_MS, max_records=PAGE_RECORDS
                    )
                    if records := found.get(partition):
                        yield [(each.offset, each.value) for each in records if each.offset < end]

    @asynccontextmanager
    async def _asked(self) -> AsyncIterator[AIOKafkaConsumer]:
        async with self._lock:
            try:
                with translated():
                    async with asyncio.timeout(CALL_S):
                        if self._asker is None:
                            # Read uncommitted: `end_offsets` would else be the last stable offset,
                            # which an open transaction holds back.
                            self._asker = AIOKafkaConsumer(
                                **client_options(self._kafka),
                                isolation_level="read_uncommitted",
                            )
                            await self._asker.start()
                        check_tasks(self._asker)
                        yield self._asker
            except BaseException:
                # Whatever it was, another one begins anew.
                await self.close()
                raise
