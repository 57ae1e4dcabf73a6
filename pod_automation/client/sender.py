"""Records to partitions that the caller chooses, confirmed by Kafka."""

import asyncio
from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner
from msgspec import Struct

from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_producer import throw_away
from scheduler.adapters.kafka_topics import check_topics
from scheduler.kafka_servers import client_options
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

    After a failure the producer is thrown away: one that has given up a batch would be refused from
    then on. What was being sent may then be in Kafka or not.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        """Send `records` in order; returns their offsets once Kafka has confirmed all of them.

        Raises `StoreUnavailableError`, and `PermanentError` when `init` is missing.
        """
        producer = await self._started()
        sent: list[asyncio.Future[Any]] = []
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
        except BaseException:
            if producer is self._producer:
                self._producer = None
            await throw_away(producer)
            raise
        return [int(each.result().offset) for each in sent]

    async def close(self) -> None:
        """End the producer, within a bounded time. Nothing is waited for: all that `send` has
        returned for is confirmed."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await throw_away(producer)

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            if self._producer is None:
                # First, as to ask for a topic by name would create it on some brokers.
                await check_topics(self._settings)
                producer = AIOKafkaProducer(
                    **client_options(self._settings.kafka),
                    enable_idempotence=True,
                    request_timeout_ms=REQUEST_MS,
                )
                try:
                    with translated():
                        await producer.start()
                except BaseException:
                    await throw_away(producer)
                    raise
                self._producer = producer
            return self._producer
