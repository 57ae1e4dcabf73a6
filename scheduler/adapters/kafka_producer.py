"""Producers of aiokafka: what they have sent, and an end when they are of no more use."""

import asyncio
import contextlib
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

CLOSE_S = 2.0


def fetched(sent: "asyncio.Future[Any]") -> None:
    """A done callback for what is over anyway: an exception that nobody fetches, since an earlier
    one ended the matter, is logged much later, by the garbage collector."""
    if not sent.cancelled():
        sent.exception()


async def throw_away(producer: AIOKafkaProducer) -> None:
    """End `producer` and all who wait for it, delivering nothing more; takes 2 s at most.

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
    # aiokafka takes a batch that is to be sent again from here, and then misses it in a callback.
    for batches in accumulator._batches.values():
        accumulator._pending_batches.update(batches)
    # Others may wait for batches of their own: these must fail too, or they wait for ever.
    accumulator.fail_all(gone)
    for batch in accumulator._pending_batches:
        # Nobody waits for it, so its exception would be logged as one that nobody fetched.
        if batch._drain_waiter.done():
            batch._drain_waiter.exception()
    if (task := producer._sender.sender_task) is not None:
        # An error of what it has in hand may end it instead; aiokafka would then fail all batches
        # once more, and a transaction that an idempotent producer has not.
        task.remove_done_callback(producer._sender._fail_all)
        task.add_done_callback(fetched)
        task.cancel()
        await asyncio.wait([task], timeout=CLOSE_S)
    with contextlib.suppress(KafkaError, OSError):
        await producer.client.close()
