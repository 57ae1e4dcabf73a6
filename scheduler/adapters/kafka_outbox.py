"""The worker's at-least-once output: statuses, dead letters, and records that go elsewhere."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from scheduler.activity import Announcement
from scheduler.adapters.kafka_batches import Batches, send_all
from scheduler.adapters.kafka_errors import TOO_LARGE
from scheduler.adapters.kafka_producer import RenewableProducer
from scheduler.errors import StoreUnavailableError
from scheduler.kafka_servers import Kafka
from scheduler.ports import SourceRecord
from schemas.codec import engagement_status
from schemas.events import EngagementStatus, StatusName
from schemas.headers import Headers, dead_letter_headers, headers_behind_id
from schemas.ids import postponed_event_id, status_event_id
from schemas.topics import Topics

BATCH_BYTES = 512 * 1024
"""One batch of statuses; a topic takes 1 MiB by default (max.message.bytes)."""

BUILT_PER_TURN = 1000
"""Statuses built before other tasks get their turn (some milliseconds)."""

MAX_REASON_CHARS = 1000
"""Of a status: a batch must stay below what the topic takes."""

# Bytes of the value that a dead letter keeps, when the broker does not take it whole.
CUTS = (512 * 1024, 32 * 1024, 0)

REQUEST_MS = 10_000
"""How long a batch may wait for its partition's leader. Longer, and a producer that was told of a
broker's orderly stop asks for another leader a thousand times a second until then."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class KafkaOutbox:
    """The `Outbox` port over one idempotent producer, shared by all shards of a process.

    Connects on first use. After any failure the producer is another one.
    """

    def __init__(
        self, kafka: Kafka, topics: Topics, *, now_ms: Callable[[], int] = _now_ms
    ) -> None:
        self._topics = topics
        self._now_ms = now_ms
        self._producer = RenewableProducer(kafka, request_ms=REQUEST_MS, batch_bytes=BATCH_BYTES)
        self._building = asyncio.Lock()

    async def announce(self, shard: int, statuses: Sequence[Announcement]) -> None:
        """See `Outbox.announce`. The time of each is now.

        A reason is cut to 1,000 characters; what of it is not Unicode is escaped. Raises
        `StoreUnavailableError`: then some may have been sent.
        """
        async with self._use() as producer:
            at_ms = self._now_ms()
            batches = Batches(producer, self._topics.engagement_status, shard, at_ms)
            headers = headers_behind_id(EngagementStatus, at_ms)
            # This waits for no broker: one shard after the other, or all would end with it at one
            # moment, and then all wait for the broker.
            async with self._building if len(statuses) > BUILT_PER_TURN else nullcontext():
                for count, each in enumerate(statuses, 1):
                    batches.append(*_status_record(each, at_ms, headers))
                    if not count % BUILT_PER_TURN:
                        await asyncio.sleep(0)
            await send_all(batches)
            await asyncio.gather(*batches.sent)

    async def dead_letter(
        self, record: SourceRecord, reason: str, extra: Sequence[tuple[str, bytes]] = ()
    ) -> None:
        """See `Outbox.dead_letter`.

        Where the broker refuses the record as too large, its value is cut and the header
        `truncated_from` gives the size it had; at worst key, headers and `extra` are left out as
        well. Raises `StoreUnavailableError`.
        """
        value = record.value
        headers = [*record.headers, *extra]
        try:
            return await self._bury(record, record.key, value, headers, reason)
        except TOO_LARGE:
            pass
        size = ("truncated_from", b"%d" % len(value or b""))
        for cut in CUTS:
            kept = None if value is None else value[:cut]
            try:
                return await self._bury(record, record.key, kept, [*headers, size], reason)
            except TOO_LARGE:
                continue
        await self._bury(record, None, None, [size], reason)

    async def forward(self, record: SourceRecord, partition: int) -> None:
        """See `Outbox.forward`.

        What the topic does not take there becomes a dead letter: a record that was compressed may
        be too large without it. Raises `StoreUnavailableError`.
        """
        topic = record.topic
        async with self._use() as producer:
            known = await producer.partitions_for(topic)
        if partition not in known:
            return await self.dead_letter(record, f"{topic} has no partition {partition}")
        try:
            await self._send(topic, partition, record.key, record.value, list(record.headers))
        except TOO_LARGE:
            await self.dead_letter(record, f"too large to be forwarded to partition {partition}")

    async def close(self) -> None:
        """Close the producer, within a bounded time; nothing unconfirmed is waited for."""
        await self._producer.close()

    async def _bury(
        self,
        record: SourceRecord,
        key: bytes | None,
        value: bytes | None,
        headers: Iterable[tuple[str, bytes]],
        reason: str,
    ) -> None:
        letter = dead_letter_headers(headers, record.topic, record.partition, record.offset, reason)
        await self._send(self._topics.dead_letter, record.partition, key, value, letter)

    async def _send(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, headers: Headers
    ) -> None:
        async with self._use() as producer:
            # A batch of one, since `send` refuses a record without key and value, which exists.
            batch = producer.create_batch()
            batch.append(timestamp=None, key=key, value=value, headers=headers)
            batch.close()
            await (await producer.send_batch(batch, topic, partition=partition))

    @asynccontextmanager
    async def _use(self) -> AsyncIterator[AIOKafkaProducer]:
        producer: AIOKafkaProducer | None = None
        try:
            producer = await self._producer.started()
            yield producer
        except TOO_LARGE:
            # The sequence number of what was refused is spent.
            self._producer.discard(producer)
            raise
        except (KafkaError, OSError, TimeoutError) as error:
            self._producer.discard(producer)
            raise StoreUnavailableError("Kafka", str(error) or type(error).__name__) from error


def _status_record(
    each: Announcement, at_ms: int, headers: Headers
) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of one status; `headers` are those that all of a batch share."""
    # Its text: an enumeration costs each f-string extra, and so does asking one for its `value`.
    status: StatusName = each.status._value_
    other_id = None
    if each.postponed and each.scheduled_for_ms is not None:
        event_id = other_id = postponed_event_id(
            each.activity_id, status, each.attempt, each.scheduled_for_ms
        )
    else:
        event_id = status_event_id(each.activity_id, status, each.attempt)
    value = engagement_status(
        each.activity_id,
        each.pod_id,
        each.post_id,
        each.member_id,
        each.engagement_type,
        status,
        each.attempt,
        at_ms,
        each.scheduled_for_ms,
        None if each.reason is None else _reason(each.reason),
        other_id,
    )
    return each.post_id.encode(), value, [("ce_id", event_id.encode()), *headers]


def _reason(text: str) -> str:
    # NUL is left out since a reader's database may not take it: PostgreSQL's jsonb does not.
    short = text[:MAX_REASON_CHARS].replace("\0", "")
    return short.encode(errors="backslashreplace").decode()
