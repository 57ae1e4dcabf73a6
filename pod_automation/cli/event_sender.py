"""Sends `post-detected` events: key `post_id`, CloudEvents headers, confirmed by all replicas."""

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder

from pod_automation.cli.loop import answer
from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_topics import check_topics
from scheduler.errors import PermanentError, StoreUnavailableError
from scheduler.kafka_servers import client_options
from scheduler.settings import Settings
from schemas.events import PostDetected
from schemas.headers import Headers, event_headers
from schemas.times import millis

BATCH_BYTES = 256 * 1024
ALL_BATCHES_BYTES = 16 * 1024 * 1024
"""What is being filled, of all partitions; as much again is on its way."""

GIVE_UP_S = 30.0
"""How long Kafka may be away before events count as not sent."""

CLOSE_S = 2.0


class EventSender:
    """Fills a batch for each partition and sends it when it is full; `flush` sends the rest.

    Whole batches, since one `send` a record costs aiokafka ten times as much. Events of a post stay
    in order. Any call may raise `StoreUnavailableError`; what `confirmed` counts is then in Kafka,
    of the rest some may be. Sending an event twice does no harm.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = settings.topics.post_detected
        self._producer: AIOKafkaProducer | None = None
        self._partition_of = DefaultPartitioner()
        self._partitions: list[int] = []
        self._batch_bytes = BATCH_BYTES
        self._filling: dict[int, BatchBuilder] = {}
        self._sent: set[asyncio.Future[object]] = set()
        self._failure: BaseException | None = None
        self.confirmed = 0

    async def __aenter__(self) -> Self:
        """Connect. Raises `StoreUnavailableError`, and `PermanentError` when `init` is missing."""
        # First, as to ask for a topic by name would create it on some brokers.
        await answer("Kafka", check_topics(self._settings))
        self._partitions = list(range(self._settings.partitions))
        self._batch_bytes = max(
            16 * 1024, min(BATCH_BYTES, ALL_BATCHES_BYTES // self._settings.partitions)
        )
        producer = AIOKafkaProducer(
            **client_options(self._settings.kafka),
            enable_idempotence=True,
            max_batch_size=self._batch_bytes,
            request_timeout_ms=int(GIVE_UP_S * 1000),
        )
        self._producer = producer
        try:
            with translated():
                await producer.start()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                await self.flush()
        finally:
            await self._close()

    async def send(self, value: bytes, event: PostDetected) -> None:
        """Send `value`, which holds `event`."""
        await self.send_record(
            event.post_id.encode(),
            value,
            event_headers(PostDetected, event.event_id, millis(event.detected_at)),
        )

    async def send_record(self, key: bytes, value: bytes, headers: Headers) -> None:
        """Send any record."""
        partition = self._partition_of(key, self._partitions, self._partitions)
        record = {"timestamp": None, "key": key, "value": value, "headers": headers}
        batch = self._filling.get(partition)
        if batch is None:
            batch = self._filling[partition] = self._started().create_batch()
        if batch.append(**record) is None:
            await self._ship(partition)
            batch = self._filling[partition] = self._started().create_batch()
            batch.append(**record)

    async def flush(self) -> None:
        """Send all that is left, and wait until Kafka has confirmed everything."""
        for partition in list(self._filling):
            await self._ship(partition)
        if self._sent:
            await asyncio.wait(self._sent)
            # The callbacks of the last futures run in the next turn of the loop.
            await asyncio.sleep(0)
        self._raise_failure()

    async def _ship(self, partition: int) -> None:
        self._raise_failure()
        batch = self._filling.pop(partition)
        batch.close()
        count = batch.record_count()
        with translated():
            # Waits while a batch of this partition is still in line: that bounds the memory.
            future = await self._started().send_batch(batch, self._topic, partition=partition)

        def confirmed(done: asyncio.Future[object]) -> None:
            self._sent.discard(done)
            if done.cancelled():
                return
            if (error := done.exception()) is not None:
                self._failure = self._failure or error
            else:
                self.confirmed += count

        self._sent.add(future)
        future.add_done_callback(confirmed)

    def _raise_failure(self) -> None:
        if isinstance(self._failure, MessageSizeTooLargeError):
            raise PermanentError(
                f"the broker refuses an event as too large: raise max.message.bytes of topic"
                f" {self._topic}"
            )
        if self._failure is not None:
            with translated():
                raise self._failure

    def _started(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise StoreUnavailableError("Kafka", "the sender is closed")
        return self._producer

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        # `stop` flushes first, and with the broker away that takes for ever.
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                await producer.stop()
        with contextlib.suppress(KafkaError, OSError):
            await producer.client.close()
