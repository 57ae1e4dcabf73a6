"""An input topic as the broker sees it, read beside Faust and never in its place."""

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from scheduler.adapters.kafka_consumer import check_tasks, stop
from scheduler.errors import StoreUnavailableError
from scheduler.kafka_servers import Kafka, client_options
from scheduler.ports import SourceRecord

REQUEST_MS = 10_000
POLL_MS = 100
FETCH_WAIT_MS = 50
"""How long the broker may hold an empty fetch: what is asked next waits behind it."""


class SourceLog:
    """Offsets of one topic, asked of the broker. Connects on first use; joins no group.

    Each method raises `StoreUnavailableError`, and may be called by several tasks.
    """

    def __init__(self, kafka: Kafka, topic: str, group_id: str) -> None:
        """`group_id` is the group whose committed offsets are asked for."""
        self._kafka = kafka
        self._topic = topic
        self._group_id = group_id
        self._consumer: AIOKafkaConsumer | None = None
        self._lock = asyncio.Lock()

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        """By partition, the offset behind its last record."""
        async with self._use() as consumer:
            found = await consumer.end_offsets([self._tp(each) for each in partitions])
            return {tp.partition: end for tp, end in found.items()}

    async def next_of_group(self, partitions: Collection[int]) -> Mapping[int, int]:
        """By partition, the offset at which the group goes on: the committed one, else the
        beginning."""
        tps = [self._tp(each) for each in partitions]
        with _translated():
            # For this alone, and never assigned anything: what keeps the offsets of a group in
            # aiokafka crashes where assignments follow each other closely.
            member = await self._started(self._group_id)
            try:
                found = await member.beginning_offsets(tps)
                for tp in tps:
                    if (committed := await member.committed(tp)) is not None:
                        found[tp] = committed
            finally:
                await stop(member)
        return {tp.partition: int(offset) for tp, offset in found.items()}

    async def has_record(self, partition: int, start: int, end: int) -> bool:
        """Whether there is a record in [start, end): offsets may be taken by markers alone."""
        return bool(await self.read(partition, start, end, 1))

    async def read(
        self, partition: int, start: int, end: int, limit: int
    ) -> Sequence[SourceRecord]:
        """The first records in [start, end), at most `limit`; empty when there are none."""
        async with self._use() as consumer:
            tp = self._tp(partition)
            consumer.assign([tp])
            try:
                consumer.seek(tp, start)
                while await consumer.position(tp) < end:
                    check_tasks(consumer)
                    found = await consumer.getmany(tp, timeout_ms=POLL_MS, max_records=limit)
                    if tp in found:
                        return [_record(each) for each in found[tp] if each.offset < end]
                return []
            finally:
                # Else it would go on fetching, for as long as nothing else is asked for.
                consumer.unsubscribe()

    async def close(self) -> None:
        """Close the connections, within a bounded time."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop(consumer)

    def _tp(self, partition: int) -> TopicPartition:
        return TopicPartition(self._topic, partition)

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[AIOKafkaConsumer]:
        async with self._lock:
            try:
                with _translated():
                    if self._consumer is None:
                        self._consumer = await self._started(None)
                    yield self._consumer
            except StoreUnavailableError:
                await self.close()
                raise

    async def _started(self, group_id: str | None) -> AIOKafkaConsumer:
        consumer = AIOKafkaConsumer(
            **client_options(self._kafka),
            group_id=group_id,
            enable_auto_commit=False,
            # Where retention has removed what is asked for, the first record there is.
            auto_offset_reset="earliest",
            # As Faust reads: what it delivers of an aborted transaction is no gap.
            isolation_level="read_uncommitted",
            request_timeout_ms=REQUEST_MS,
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        try:
            await consumer.start()
        except BaseException:
            await stop(consumer)
            raise
        return consumer


def _record(record: ConsumerRecord) -> SourceRecord:
    return SourceRecord(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        tuple(record.headers or ()),
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise StoreUnavailableError("Kafka", str(error) or type(error).__name__) from error
