"""Records for one partition, in batches as large as they may be."""

import asyncio
from collections import deque

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from scheduler.adapters.kafka_producer import fetched
from schemas.headers import Headers


class Batches:
    """Append records, then send the batches they fill, one after the other."""

    def __init__(
        self, producer: AIOKafkaProducer, topic: str, partition: int, at_ms: int | None = None
    ) -> None:
        """`at_ms`: the time of each record, in milliseconds UTC; when it is appended, if None."""
        self._producer = producer
        self._topic = topic
        self._partition = partition
        self._at_ms = at_ms
        self._batches: deque[BatchBuilder] = deque()
        self._count = 0
        self._last_count = 0
        self.sent: list[asyncio.Future[RecordMetadata]] = []
        """What was sent, in order; done with its delivery."""

    def append(self, key: bytes | None, value: bytes, headers: Headers) -> None:
        """Add a record. One that is larger than a batch has a batch of its own."""
        # BatchBuilder's own append does no more than this, in twice the time.
        if (
            self._batches
            and self._batches[-1]._builder.append(self._count, self._at_ms, key, value, headers)
            is not None
        ):
            self._count += 1
            return
        self._complete()
        batch = self._producer.create_batch()
        batch._builder.append(0, self._at_ms, key, value, headers)
        self._batches.append(batch)
        self._count = 1

    async def send_one(self) -> bool:
        """Send the next batch, once the one before it is on its way; False: there is none."""
        if not self._batches:
            return False
        if len(self._batches) == 1:
            self._complete()
        batch = self._batches.popleft()
        batch.close()
        self._last_count = batch.record_count()
        sent = await self._producer.send_batch(batch, self._topic, partition=self._partition)
        sent.add_done_callback(fetched)
        self.sent.append(sent)
        return True

    async def last_offset(self) -> int:
        """The offset of the last record sent, -1 when none was; only once all are delivered."""
        if not self.sent:
            return -1
        return int((await self.sent[-1]).offset) + self._last_count - 1

    def _complete(self) -> None:
        if self._batches:
            self._batches[-1]._relative_offset = self._count


async def send_all(*parts: Batches) -> None:
    """All that was appended; a batch of each in turn, since each waits for the one before it."""
    more = True
    while more:
        more = False
        for part in parts:
            more |= await part.send_one()
