"""Producers of aiokafka: what they have sent, and an end when they are of no more use."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NoReturn

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError

import scheduler.adapters.kafka_connection  # noqa: F401 - for all clients
from scheduler.kafka_servers import Kafka, client_options

CLOSE_S = 2.0

log = structlog.get_logger(__name__)


class RenewableProducer:
    """An idempotent producer, started when it is first needed, and another after a failure.

    One that has given up a batch, or whose record was refused, has a hole in its sequence numbers,
    and would be refused from then on: whoever sees that discards it. Safe to share between tasks
    of one loop.
    """

    def __init__(
        self,
        kafka: Kafka,
        *,
        request_ms: int,
        batch_bytes: int | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`request_ms` is how long one try of a batch may take, and how long it may wait for its
        partition's leader. Batches are of `batch_bytes` at most, or as aiokafka makes them. None is
        started where `before`, asked first, raises."""
        self._options = client_options(kafka) | {
            "enable_idempotence": True,  # and so confirmed by all replicas
            "request_timeout_ms": request_ms,
        }
        if batch_bytes is not None:
            self._options["max_batch_size"] = batch_bytes
        self._before = before
        self._producer: AIOKafkaProducer | None = None
        self._starting = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = 0

    @property
    def current(self) -> AIOKafkaProducer | None:
        """The one that is in use."""
        return self._producer

    async def started(self) -> AIOKafkaProducer:
        """The one that is in use, or a new one. Raises what `before` and its `start` do; nothing of
        it is left then."""
        async with self._starting:
            if self._producer is None:
                if self._before is not None:
                    await self._before()
                closed = self._closed
                producer = AIOKafkaProducer(**self._options)
                try:
                    await producer.start()
                    if closed != self._closed:
                        raise KafkaConnectionError("it was closed while it started")
                except BaseException:
                    await throw_away(producer)
                    raise
                self._producer = producer
                # Without the task that fetches metadata its sender may wait for ever.
                producer.client._sync_task.add_done_callback(partial(self._unless_ended, producer))
            return self._producer

    def _unless_ended(self, producer: AIOKafkaProducer, task: "asyncio.Task[None]") -> None:
        if not task.cancelled():
            self.discard(producer)

    def discard(self, failed: AIOKafkaProducer | None) -> None:
        """Have the next who sends use another one than `failed`, which is thrown away."""
        if failed is not None and failed is self._producer:
            self._producer = None
            closing = asyncio.create_task(throw_away(failed), name="producer-close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End it, and what is discarded, within a bounded time; nothing unconfirmed is waited for.
        What is sent afterwards begins with another one."""
        self._closed += 1
        self.discard(self._producer)
        await asyncio.gather(*self._closing)


def fetched(sent: "asyncio.Future[Any]") -> None:
    """A done callback for what is over anyway: an exception that nobody fetches, since an earlier
    one ended the matter, is logged much later, by the garbage collector."""
    if not sent.cancelled():
        sent.exception()


async def throw_away(producer: AIOKafkaProducer) -> None:
    """End `producer` and all who wait for it, delivering nothing more; takes some seconds at most,
    and raises nothing.

    Not by `stop`: that flushes first, which takes for ever with the broker away, and cancelled in
    that it leaves a sender behind that goes on for as long as the process.
    """
    producer._closed = True
    transaction = producer._txn_manager
    if transaction is not None and transaction._transaction_waiter is not None:
        # Nobody awaits the end of a transaction that was given up before its commit.
        transaction._transaction_waiter.add_done_callback(fetched)
    gone = KafkaConnectionError("the producer was thrown away")
    accumulator = producer._message_accumulator

    def refuse(*_: object) -> NoReturn:
        raise gone

    # Who waits for a batch of another to be taken looks at nothing more before it appends its own.
    accumulator._append_batch = refuse
    # aiokafka takes a batch that is to be sent again from here, and then misses it in a callback.
    for batches in accumulator._batches.values():
        accumulator._pending_batches.update(batches)
    # Others may wait for batches of their own: these must fail too, or they wait for ever.
    accumulator.fail_all(gone)
    for batch in accumulator._pending_batches:
        # Where nobody waits for one, its exception would be logged as one that nobody fetched.
        for future in (batch._drain_waiter, *(sent for sent, _ in batch._msg_futures)):
            if future.done():
                fetched(future)
    if (task := producer._sender.sender_task) is not None:
        # An error of what it has in hand may end it instead; aiokafka would then fail all batches
        # once more, and a transaction that an idempotent producer has not.
        task.remove_done_callback(producer._sender._fail_all)
        await _ended(task)
    client = producer.client
    # Not by the client: where this has died, it raises that, and closes no connection.
    task, client._sync_task = client._sync_task, None
    if task is not None:
        await _ended(task)
    if (asked := client._md_update_fut) is not None and not asked.done():
        asked.add_done_callback(fetched)
        asked.set_exception(gone)
    try:
        await client.close()
    except Exception as error:
        # Whatever it is: nobody uses it any more, and it must not end who throws it away.
        log.warning("a producer does not close", error=repr(error))


async def _ended(task: "asyncio.Task[None]") -> None:
    task.add_done_callback(fetched)
    task.cancel()
    await asyncio.wait([task], timeout=CLOSE_S)
