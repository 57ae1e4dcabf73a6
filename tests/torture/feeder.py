"""What upstream and operators do to a tortured site: posts, some twice, some broken; a cancel, and
a pause that is taken back."""

import asyncio
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from scheduler.adapters.kafka_producer import throw_away
from scheduler.settings import Settings

PODS, MEMBERS = 7, 60
BROKEN: tuple[bytes | None, ...] = (
    None,
    b"",
    b"{",
    b"[]",
    b"\xff\xfe\x00",
    b'{"event_id": "e"}',
    orjson.dumps(
        {"event_id": "e", "pod_id": "p", "post_id": 5, "member_ids": [], "detected_at": 1}
    ),
    b"x" * 100_000,
)


@dataclass
class Fed:
    """What was sent and is confirmed. Written as it happens, so that a run that breaks tells it."""

    events: list[tuple[str, int, int]] = field(default_factory=list)
    """Event id, partition and offset of each confirmed `post-detected`."""
    broken: set[str] = field(default_factory=set)
    """`topic/partition/offset` of each record that is no event."""
    cancelled: dict[str, float] = field(default_factory=dict)
    """Pods of which a cancel was sent, and when."""


class Feeder:
    """Feeds one round."""

    def __init__(self, settings: Settings, rng: random.Random, *, rate: float) -> None:
        """`rate` is posts a second."""
        self._settings = settings
        self._rng = rng
        self._rate = rate
        self._starting = asyncio.Lock()
        self._producer: AIOKafkaProducer | None = None
        self.fed = Fed()

    async def run(self, seconds: float, enough: asyncio.Event) -> Fed:
        """Feed for so long, and until `enough`. What Kafka does not take at once is sent until it
        does."""
        began, number = time.monotonic(), 0
        posts: list[dict[str, Any]] = []
        sending: set[asyncio.Task[None]] = set()
        cancel_at = began + seconds * self._rng.uniform(0.4, 0.8)
        pausing = asyncio.create_task(self._pause_for_a_while("pod-0", seconds))
        sending.add(pausing)
        try:
            while (now := time.monotonic()) < began + seconds or not enough.is_set():
                event = self._event(number, posts)
                number += 1
                sending.add(asyncio.create_task(self._publish(event, twice=self._chance(0.1))))
                if self._chance(0.04):
                    sending.add(asyncio.create_task(self._break()))
                if now > cancel_at:
                    cancel_at = float("inf")
                    sending.add(asyncio.create_task(self._cancel(f"pod-{PODS - 1}")))
                await asyncio.sleep(self._rng.expovariate(self._rate))
            await asyncio.gather(*sending)
        finally:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            await self._close()
        return self.fed

    def _chance(self, share: float) -> bool:
        return self._rng.random() < share

    def _event(self, number: int, posts: list[dict[str, Any]]) -> dict[str, Any]:
        rng = self._rng
        members = rng.sample(range(MEMBERS), rng.randint(1, 10))
        event: dict[str, Any] = {
            "event_id": f"event-{number}",
            "pod_id": f"pod-{number % PODS}",
            "post_id": f"post-{number}",
            "member_ids": [f"member-{each}" for each in members],
            "detected_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        }
        if posts and self._chance(0.08):
            # A known post, with members that it had and others.
            known = rng.choice(posts[-30:])
            event |= {"pod_id": known["pod_id"], "post_id": known["post_id"]}
        elif self._chance(0.3):
            event["author_id"] = event["member_ids"][0]
        posts.append(event)
        return event

    async def _publish(self, event: dict[str, Any], *, twice: bool) -> None:
        key, topic = event["post_id"].encode(), self._settings.topics.post_detected
        for _ in range(1 + twice):
            partition, offset = await self._send(topic, key, orjson.dumps(event), None)
            self.fed.events.append((event["event_id"], partition, offset))

    async def _break(self) -> None:
        topic = self._settings.topics.post_detected
        value = self._rng.choice(BROKEN)
        partition = self._rng.randrange(self._settings.partitions)
        partition, offset = await self._send(topic, b"any", value, partition)
        self.fed.broken.add(f"{topic}/{partition}/{offset}")

    async def _cancel(self, pod: str) -> None:
        self.fed.cancelled[pod] = time.time()
        await self._command("cancel", pod)

    async def _pause_for_a_while(self, pod: str, seconds: float) -> None:
        await asyncio.sleep(seconds * 0.2)
        await self._command("pause", pod)
        await asyncio.sleep(seconds * 0.4)
        await self._command("resume", pod)

    async def _command(self, name: str, pod: str) -> None:
        command = {
            "event_id": f"{name}-{pod}",
            "command": name,
            "issued_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "pod_id": pod,
            "reason": "a test",
        }
        for partition in range(self._settings.partitions):
            topic = self._settings.topics.pod_commands
            await self._send(topic, pod.encode(), orjson.dumps(command), partition)

    async def _send(
        self, topic: str, key: bytes, value: bytes | None, partition: int | None
    ) -> tuple[int, int]:
        while True:
            producer = await self._started()
            try:
                async with asyncio.timeout(8):
                    sent = await producer.send_and_wait(topic, value, key=key, partition=partition)
            except (KafkaError, OSError, TimeoutError):
                # It may have arrived all the same; then the engine sees it twice.
                if producer is self._producer:
                    await self._close()
                await asyncio.sleep(0.3)
            else:
                return sent.partition, sent.offset

    async def _started(self) -> AIOKafkaProducer:
        async with self._starting:
            while self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._settings.kafka_bootstrap,
                    acks="all",
                    enable_idempotence=True,
                    request_timeout_ms=5000,
                    max_batch_size=1_000_000,
                )
                try:
                    await producer.start()
                except (KafkaError, OSError):
                    await throw_away(producer)
                    await asyncio.sleep(0.3)
                else:
                    self._producer = producer
            return self._producer

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await throw_away(producer)
