"""Membership in the dispatchers' consumer group: who owns which shard."""

import asyncio
import contextlib
from collections.abc import Collection

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from scheduler.adapters.kafka_consumer import stop
from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_member import check_alive, leave, member, unless_replaced
from scheduler.kafka_servers import Kafka
from scheduler.tasks import ended

log = structlog.get_logger(__name__)

POLL_MS = 1000

LEAVE_S = 3.0
"""How long the group may take to let a member go. A rebalance that waits for somebody dead takes
longer, and there is no leaving meanwhile."""


class KafkaShardGroup:
    """The `ShardGroup` port, over the partitions of `wheel-cursor`."""

    def __init__(
        self,
        kafka: Kafka,
        topic: str,
        group_id: str,
        session_timeout_ms: int,
        instance_id: str | None = None,
    ) -> None:
        """Joins on the first `changed`, as a static member if there is an `instance_id`."""
        self._kafka = kafka
        self._topic = topic
        self._group_id = group_id
        self._session_timeout_ms = session_timeout_ms
        self._instance_id = instance_id
        self._consumer: AIOKafkaConsumer | None = None
        self._polling: asyncio.Task[None] | None = None
        self._assignments: asyncio.Queue[frozenset[int]] = asyncio.Queue()
        self._assigned: frozenset[int] = frozenset()

    @property
    def assigned(self) -> frozenset[int]:
        """See `ShardGroup.assigned`."""
        return self._assigned

    async def changed(self) -> frozenset[int]:
        """See `ShardGroup.changed`."""
        if self._consumer is None:
            await self._join()
        assert self._polling is not None  # noqa: S101 - set by _join
        waiting = asyncio.ensure_future(self._assignments.get())
        try:
            await asyncio.wait([waiting, self._polling], return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                self._assigned = waiting.result()
                return self._assigned
        finally:
            waiting.cancel()
        polling = self._polling
        await self.close()
        with translated():
            polling.result()
        raise RuntimeError("the group's poll loop ended without a reason")

    async def close(self) -> None:
        """See `ShardGroup.close`."""
        consumer, self._consumer = self._consumer, None
        polling, self._polling = self._polling, None
        if polling is not None:
            await ended(polling)
        if consumer is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(LEAVE_S):
                    await leave(consumer)
            await stop(consumer)

    async def _join(self) -> None:
        consumer = member(
            self._kafka,
            self._group_id,
            self._session_timeout_ms,
            self._instance_id,
            auto_offset_reset="latest",
        )
        consumer.subscribe([self._topic], listener=_Listener(consumer, self._assignments))
        with translated(), unless_replaced(consumer):
            try:
                await consumer.start()
            except BaseException:
                await stop(consumer)
                raise
        self._consumer = consumer
        self._polling = asyncio.create_task(self._poll(consumer), name="group-poll")

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        # Nothing is ever returned; this is what keeps a consumer in its group, and what raises
        # when the group has thrown it out for good.
        while True:
            check_alive(consumer)
            with unless_replaced(consumer):
                await consumer.getmany(timeout_ms=POLL_MS)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped here
    """Revocations are ignored: until the next assignment says otherwise a shard goes on firing,
    and if another process takes it meanwhile, epoch and fence end that."""

    def __init__(
        self, consumer: AIOKafkaConsumer, assignments: "asyncio.Queue[frozenset[int]]"
    ) -> None:
        self._consumer = consumer
        self._assignments = assignments

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Nothing, on purpose."""

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Pause all of it, and tell the dispatcher."""
        self._consumer.pause(*assigned)
        self._assignments.put_nowait(frozenset(tp.partition for tp in assigned))
