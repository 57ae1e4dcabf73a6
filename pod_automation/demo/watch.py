"""A consumer that looks on while the demo runs: it only counts, for the live picture."""

from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, TopicPartition

from pod_automation.demo.count import Tally
from scheduler.adapters.kafka_errors import translated
from scheduler.kafka_servers import client_options
from scheduler.settings import Settings
from scheduler.tasks import cancelled

POLL_MS = 250


async def watch_dispatched(settings: Settings, tally: Tally, reading: Callable[[], object]) -> None:
    """Count every committed `execute-engagement` in `tally` until cancelled; `reading` is called
    once it reads."""
    consumer = AIOKafkaConsumer(
        **client_options(settings.kafka),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    topic = settings.topics.execute_engagement
    consumer.assign([TopicPartition(topic, number) for number in range(settings.partitions)])
    async with consumer:
        reading()
        while not cancelled():
            with translated():
                found = await consumer.getmany(timeout_ms=POLL_MS)
            for records in found.values():
                for record in records:
                    tally.add(record.value, record.timestamp)
