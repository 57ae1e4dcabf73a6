"""Reading a topic once, from its beginning to its end."""

from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from scheduler.adapters.kafka_errors import translated
from scheduler.kafka_servers import Kafka, client_options

POLL_MS = 500


async def read_through(kafka: Kafka, topic: str, partitions: int) -> AsyncIterator[ConsumerRecord]:
    """Every committed record of `topic` that was there when the call began.

    A consumer of its own, without group or memory: it knows nothing of what others have read.
    """
    assigned = [TopicPartition(topic, number) for number in range(partitions)]
    # Uncommitted: under read_committed the end would be that of the last finished transaction.
    with translated():
        async with AIOKafkaConsumer(**client_options(kafka)) as asked:
            ends = await asked.end_offsets(assigned)
    consumer = AIOKafkaConsumer(
        **client_options(kafka),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    consumer.assign(assigned)
    async with consumer:
        await consumer.seek_to_beginning(*assigned)
        left = {partition for partition, end in ends.items() if end}
        while left:
            with translated():
                found = await consumer.getmany(timeout_ms=POLL_MS)
            for partition, records in found.items():
                for record in records:
                    if record.offset < ends[partition]:
                        yield record
            # Positions, as the last records may be markers or aborted.
            left = {each for each in left if await consumer.position(each) < ends[each]}
