"""The log of one shard's owner: a transactional producer, and the cursor it left behind."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from decimal import Decimal

import aiokafka.producer.sender
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation

from scheduler.adapters.kafka_batches import Batches, send_all
from scheduler.adapters.kafka_consumer import reading
from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_producer import fetched, throw_away
from scheduler.errors import StoreUnavailableError
from scheduler.kafka_servers import Kafka, client_options
from scheduler.timer import Timer
from schemas import codec
from schemas.events import EngagementStatus, ExecuteEngagement, PodCommand, WheelCursor
from schemas.headers import (
    Headers,
    event_headers,
    headers_behind_id,
    overdue_headers_behind_id,
    timeout_headers_behind_id,
)
from schemas.ids import execute_event_id, status_event_id, timeout_event_id
from schemas.topics import Topics

# Between two transactions of one id aiokafka pauses for 20 ms while the coordinator writes its
# markers. That pause is nearly all of a small transaction's time; 2 ms was measured safe.
aiokafka.producer.sender.BACKOFF_OVERRIDE = 0.002

log = structlog.get_logger(__name__)

BATCH_BYTES = 900_000
"""Below the broker's default limit of 1 MiB a batch, with room for its header."""

TRANSACTION_TIMEOUT_MS = 15_000
"""After this time the broker aborts what a dead owner left open, if no new owner did before.
Readers of committed records wait that long at most."""

CALL_S = 10.0
"""A broker that does not answer within this time counts as away."""

ENCODE_SLICE = 500
"""Timers encoded before others may run: about 5 ms."""

CURSOR_STEP = 64
"""Records read back from the end at first when looking for the last cursor."""

Fired = Callable[[int, Sequence[Timer], int], AbstractAsyncContextManager[Sequence[Headers]]]
"""Entered around a commit, with its shard, timers and time (ms); gives headers for each timer."""


class KafkaShardLog:
    """The `ShardLog` port."""

    def __init__(
        self,
        kafka: Kafka,
        topics: Topics,
        shard: int,
        transactional_id: str,
        await_ms: int | None = None,
        encoding: asyncio.Lock | None = None,
        fired: Fired | None = None,
    ) -> None:
        """Connects on `fence`. `await_ms`, how long a result is awaited, is for people to read.
        `fired` is entered around each commit that has timers, and gives the headers that the
        records of each are to have.

        `encoding` is shared by the shards of a process: only one encodes a large batch at a time.
        Else all would end with it at one moment, and then all wait for the broker.
        """
        self._kafka = kafka
        self._topics = topics
        self._shard = shard
        self._transactional_id = transactional_id
        self._no_result = _no_result(await_ms)
        self._encoding = encoding or asyncio.Lock()
        self._fired = fired
        self._producer: AIOKafkaProducer | None = None

    async def fence(self) -> None:
        """See `ShardLog.fence`."""
        producer = AIOKafkaProducer(
            **client_options(self._kafka),
            transactional_id=self._transactional_id,
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=BATCH_BYTES,
            request_timeout_ms=int(CALL_S * 1000),
        )
        self._producer = producer
        with translated(self._shard):
            async with asyncio.timeout(CALL_S):
                await producer.start()
                # Waits for InitProducerId; the transaction itself begins with its first record.
                await producer.begin_transaction()

    async def cursor(self) -> WheelCursor | None:
        """See `ShardLog.cursor`."""
        partition = TopicPartition(self._topics.wheel_cursor, self._shard)
        with translated(self._shard):
            async with asyncio.timeout(CALL_S):
                begin, end = await self._range(partition)
                async with reading(self._kafka, [partition]) as consumer:
                    return await last_cursor(consumer, partition, begin, end)

    async def status_end(self) -> int:
        """See `ShardLog.status_end`."""
        partition = TopicPartition(self._topics.engagement_status, self._shard)
        with translated(self._shard):
            async with asyncio.timeout(CALL_S):
                return (await self._range(partition))[1]

    async def commit(
        self,
        timers: Sequence[Timer],
        at_ms: int,
        cursor: WheelCursor,
        timeouts: Sequence[Timer] = (),
        reports: Sequence[PodCommand] = (),
    ) -> int:
        """See `ShardLog.commit`."""
        if self._fired is None or not timers:
            return await self._commit(timers, at_ms, cursor, timeouts, reports)
        async with self._fired(self._shard, timers, at_ms) as extra:
            return await self._commit(timers, at_ms, cursor, timeouts, reports, extra)

    async def _commit(
        self,
        timers: Sequence[Timer],
        at_ms: int,
        cursor: WheelCursor,
        timeouts: Sequence[Timer],
        reports: Sequence[PodCommand],
        extra: Sequence[Headers] = (),
    ) -> int:
        producer = self._producer
        if producer is None:
            raise StoreUnavailableError("Kafka", "the shard's log is not fenced")
        topics, shard = self._topics, self._shard
        # All by the wheel's clock: brokers refuse records that are an hour ahead of them, and this
        # host's clock must not be able to keep its shards from firing.
        executes = Batches(producer, topics.execute_engagement, shard, at_ms)
        statuses = Batches(producer, topics.engagement_status, shard, at_ms)
        results = Batches(producer, topics.engagement_executed, shard, at_ms)
        commands = Batches(producer, topics.pod_commands, shard, at_ms)
        parts = (executes, statuses, results, commands)
        # None of this waits for a broker: no shard holds up another, and none takes its turn for a
        # broker that does not answer.
        async with self._encoding if len(timers) > ENCODE_SLICE else nullcontext():
            await _encode(timers, at_ms, executes, statuses, extra)
        await self._give_up(timeouts, at_ms, results)
        await _report(reports, at_ms, commands)
        with translated(shard):
            async with asyncio.timeout(CALL_S):
                try:
                    await send_all(*parts)
                    moved = await producer.send(
                        topics.wheel_cursor,
                        codec.encode(cursor),
                        key=b"%d" % shard,
                        partition=shard,
                        timestamp_ms=at_ms,
                        headers=event_headers(WheelCursor, f"{shard}:{cursor.nonce}", at_ms),
                    )
                except IllegalOperation:
                    # Something that was sent before this has failed meanwhile, and with it the
                    # transaction. What that was says whether we are fenced.
                    await asyncio.gather(*(each for part in parts for each in part.sent))
                    raise StoreUnavailableError("Kafka", "the transaction has failed") from None
                moved.add_done_callback(fetched)
                # The commit waits for all of these, but does not look whether they failed.
                await asyncio.gather(*(each for part in parts for each in part.sent), moved)
                await producer.commit_transaction()
                await producer.begin_transaction()
                return await statuses.last_offset()

    async def close(self) -> None:
        """See `ShardLog.close`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await throw_away(producer)

    async def _give_up(self, timeouts: Sequence[Timer], at_ms: int, results: Batches) -> None:
        # Faust reads these before they are committed, and even where they never are. That does no
        # harm: the deadline has come all the same, and of the copies that follow none counts, since
        # the row is at another attempt by then.
        headers = timeout_headers_behind_id(at_ms)
        for start in range(0, len(timeouts), ENCODE_SLICE):
            await asyncio.sleep(0)
            for timer in timeouts[start : start + ENCODE_SLICE]:
                event_id = timeout_event_id(timer.activity_id, timer.attempt)
                results.append(
                    timer.post_id.encode(),
                    _timeout(timer, at_ms, self._no_result),
                    [("ce_id", event_id.encode()), *headers],
                )

    async def _range(self, partition: TopicPartition) -> tuple[int, int]:
        # Read uncommitted on purpose: under read_committed `end_offsets` is the last stable
        # offset, which an open transaction of a moment ago may still hold back.
        async with reading(self._kafka, isolation="read_uncommitted") as consumer:
            begin = await consumer.beginning_offsets([partition])
            end = await consumer.end_offsets([partition])
        return begin[partition], end[partition]


async def _encode(
    timers: Sequence[Timer],
    at_ms: int,
    executes: Batches,
    statuses: Batches,
    extra: Sequence[Headers],
) -> None:
    execute_headers = headers_behind_id(ExecuteEngagement, at_ms)
    status_headers = headers_behind_id(EngagementStatus, at_ms)
    for start in range(0, len(timers), ENCODE_SLICE):
        if start:
            await asyncio.sleep(0)
        for at, timer in enumerate(timers[start : start + ENCODE_SLICE], start):
            more = extra[at] if extra else ()
            activity_id, attempt = timer.activity_id, timer.attempt
            key = timer.post_id.encode()
            execute, dispatched = codec.fired(
                activity_id,
                timer.pod_id,
                timer.post_id,
                timer.member_id,
                timer.engagement_type,
                attempt,
                timer.due_ms,
                at_ms,
            )
            event_id = execute_event_id(activity_id, attempt).encode()
            executes.append(key, execute, [("ce_id", event_id), *execute_headers, *more])
            event_id = status_event_id(activity_id, "dispatched", attempt).encode()
            statuses.append(key, dispatched, [("ce_id", event_id), *status_headers, *more])


async def _report(reports: Sequence[PodCommand], at_ms: int, commands: Batches) -> None:
    # Read before they are committed, too: the timers are held back all the same, and of the copies
    # that follow none counts, since the row is due at another time by then.
    headers = overdue_headers_behind_id(at_ms)
    for report in reports:
        await asyncio.sleep(0)  # each is up to a thousand timers
        commands.append(None, codec.encode(report), [("ce_id", report.event_id.encode()), *headers])


def _timeout(timer: Timer, at_ms: int, error: str) -> bytes:
    return codec.result_timeout(
        timer.activity_id,
        timer.pod_id,
        timer.post_id,
        timer.member_id,
        timer.engagement_type,
        timer.attempt,
        at_ms,
        error,
    )


def _no_result(await_ms: int | None) -> str:
    if await_ms is None:
        return "no result in time"
    return f"no result within {Decimal(await_ms) / 1000:f} s"


async def last_cursor(
    consumer: AIOKafkaConsumer, partition: TopicPartition, begin: int, end: int
) -> WheelCursor | None:
    """The last committed cursor in offsets [begin, end), None when there is none. `consumer` reads
    committed records of `partition`, and waits for a transaction that is still open."""
    step, at = CURSOR_STEP, end
    while at > begin:
        at = max(begin, end - step)
        step *= 8
        last = await _cursor_in(consumer, partition, at, end)
        if last is not None:
            return last
    return None


async def _cursor_in(
    consumer: AIOKafkaConsumer, partition: TopicPartition, start: int, end: int
) -> WheelCursor | None:
    consumer.seek(partition, start)
    cursor = None
    while await consumer.position(partition) < end:
        for record in (await consumer.getmany(partition, timeout_ms=200)).get(partition, ()):
            if record.offset < end:
                try:
                    cursor = codec.decode(WheelCursor, record.value)
                except codec.InvalidEvent as error:
                    # Only owners write here; what somebody else has put there is none of theirs.
                    log.warning(
                        "not a cursor",
                        shard=partition.partition,
                        offset=record.offset,
                        reason=error.reason,
                    )
    return cursor
