"""A stand-in for the user's executor: pretends to do the work, and reports it.

It touches no platform. A real one is a separate program on our SDK.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from pod_automation.cli.loop import cancelled
from pod_automation.demo.count import Tally
from scheduler.adapters.kafka_errors import translated
from scheduler.settings import Settings
from schemas.codec import encode
from schemas.events import EngagementExecuted, ExecuteEngagement
from schemas.headers import event_headers
from schemas.times import moment

CONCURRENCY = 5
"""Engagements in hand at once: the default of the engine's QUEUE_CONCURRENCY."""

WORK_S = (0.002, 0.015)
"""How long one takes here. The real thing takes seconds, but time is compressed."""

POLL_MS = 250


class PretendedExecutor:
    """Reads `execute-engagement` as committed, from its beginning, and answers to each event."""

    def __init__(self, settings: Settings, tally: Tally, *, seed: int = 2) -> None:
        """Every record is counted in `tally`; those of other pods are passed over."""
        self._settings = settings
        self._tally = tally
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._room = asyncio.Semaphore(CONCURRENCY)
        self.executed: set[str] = set()
        """Activities whose result Kafka has confirmed."""
        self.executed_by_pod: Counter[str] = Counter()

    async def run(self, ready: Callable[[], object]) -> None:
        """Work until cancelled; `ready` is called once it reads."""
        topic = self._settings.topics.execute_engagement
        bootstrap = self._settings.kafka_bootstrap
        consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        consumer.assign(
            [TopicPartition(topic, number) for number in range(self._settings.partitions)]
        )
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, enable_idempotence=True, linger_ms=5
        )
        async with consumer, producer, asyncio.TaskGroup() as working:
            ready()
            while not cancelled():
                with translated():
                    found = await consumer.getmany(timeout_ms=POLL_MS)
                for records in found.values():
                    for record in records:
                        event = self._tally.add(record.value, record.timestamp)
                        if event is not None:
                            await self._room.acquire()
                            working.create_task(self._work(producer, record, event))

    async def _work(
        self, producer: AIOKafkaProducer, record: ConsumerRecord, event: ExecuteEngagement
    ) -> None:
        try:
            await asyncio.sleep(self._chance.uniform(*WORK_S))
            at_ms = time.time_ns() // 1_000_000
            result = EngagementExecuted(
                event_id=f"{event.activity_id}:executed:{event.attempt}",
                activity_id=event.activity_id,
                pod_id=event.pod_id,
                post_id=event.post_id,
                member_id=event.member_id,
                engagement_type=event.engagement_type,
                attempt=event.attempt,
                outcome="executed",
                executed_at=moment(at_ms),
            )
            # Into the partition it came from: all of a post's life is in one shard.
            with translated():
                await producer.send_and_wait(
                    self._settings.topics.engagement_executed,
                    encode(result),
                    key=record.key,
                    partition=record.partition,
                    headers=event_headers(EngagementExecuted, result.event_id, at_ms),
                )
        finally:
            self._room.release()
        self.executed.add(event.activity_id)
        self.executed_by_pod[event.pod_id] += 1
