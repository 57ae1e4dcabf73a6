"""Records to partitions that the caller chooses, confirmed by Kafka."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from msgspec import Struct

from scheduler.adapters.kafka_errors import TOO_LARGE, translated
from scheduler.adapters.kafka_producer import RenewableProducer
from scheduler.adapters.kafka_topics import check_topics
from scheduler.errors import DataRefusedError
from scheduler.settings import Settings
from schemas.headers import Headers

REQUEST_MS = 10_000

_partition_of = DefaultPartitioner()


def default_shard(post_id: str, partitions: int) -> int:
    """Where Kafka's default partitioner (murmur2 of the key) puts the records of a post."""
    everyone = list(range(partitions))
    return int(_partition_of(post_id.encode(), everyone, everyone))


class Outgoing(Struct, frozen=True):
    """A record to be sent to `partition`."""

    partition: int
    key: bytes | None
    value: bytes
    headers: Headers


class Sender:
    """One idempotent producer, made on first use. Safe to share between tasks of one loop.

    After a failure the producer is another one. What was being sent may then be in Kafka or not.
    """

    def __init__(self, settings: Settings) -> None:
        self._producer = RenewableProducer(
            settings.kafka,
            request_ms=REQUEST_MS,
            # First, as to ask for a topic by name would create it on some brokers.
            before=partial(check_topics, settings),
        )

    async def connect(self) -> AIOKafkaProducer:
        """A producer to send with; nothing has been sent where this raises. Raises
        `StoreUnavailableError`, and `PermanentError` when `init` is missing."""
        with translated():
            return await self._producer.started()

    async def send(
        self, topic: str, records: Sequence[Outgoing], producer: AIOKafkaProducer
    ) -> list[int]:
        """Send `records` in order with what `connect` gave; returns their offsets once Kafka has
        confirmed all of them.

        Raises as `connect` does, and `DataRefusedError` for what is larger than the topic takes.
        Cancelled it leaves the producer to the others, who may be sending with it: what that has
        taken will be sent, what it has not taken has no number, so there is no hole. Whoever ends
        it since it takes too long has to `discard` the producer.
        """
        sent: list[asyncio.Future[Any]] = []
        results: list[Any] = []
        try:
            with translated():
                try:
                    for each in records:
                        future = await producer.send(
                            topic,
                            each.value,
                            key=each.key,
                            partition=each.partition,
                            headers=each.headers,
                        )
                        sent.append(future)
                finally:
                    # All of them, also after a failure: an exception that nobody fetches is
                    # logged much later, by the garbage collector.
                    results = await asyncio.gather(*sent, return_exceptions=True)
                for result in results:
                    if isinstance(result, BaseException):
                        raise result
        except BaseException as error:
            too_large = isinstance(error.__cause__, TOO_LARGE)
            # Too large for the producer itself, a record is refused before it has a number.
            harmless = too_large or isinstance(error, asyncio.CancelledError)
            if not harmless or any(isinstance(each, BaseException) for each in results):
                self.discard(producer)
            if too_large:
                raise DataRefusedError(f"it is larger than {topic} takes") from error
            raise
        return [int(each.result().offset) for each in sent]

    def discard(self, producer: AIOKafkaProducer) -> None:
        """Have the next who sends use another one; who is sending with `producer` fails."""
        self._producer.discard(producer)

    async def close(self) -> None:
        """End the producer, within a bounded time. Nothing is waited for: all that `send` has
        returned for is confirmed."""
        await self._producer.close()
