"""What the benchmarks are fed with: events, timers and rows, with ids of real size."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer

from scheduler.settings import Settings
from scheduler.timer import Timer
from schemas.codec import encode
from schemas.events import EngagementType, PostDetected
from schemas.headers import event_headers
from schemas.ids import activity_id, uuid_text
from schemas.times import moment

MEMBERS = 20
TYPES: tuple[EngagementType, ...] = ("like", "comment")
PER_POST = MEMBERS * len(TYPES)

PODS = 1000
"""Pods in the world: 20,000 members, who come again in post after post."""

HOUR_MS = 3_600_000
PENDING_MS = 6 * HOUR_MS
"""Over how long the pending timers of a wheel are spread: what the default pacing comes to."""

COLUMNS = (
    *("id", "pod_id", "post_id", "member_id", "engagement_type", "status", "scheduled_for"),
    *("source_partition", "source_offset"),
)

Shards = Mapping[int, Sequence[Timer]]


class World:
    """Pods of members who post. Seeded: each run measures the same work."""

    def __init__(self, seed: int = 1, *, pods: int = PODS) -> None:
        self._random = Random(seed)
        self._pods = [
            (self._uuid(), tuple(self._uuid() for _ in range(MEMBERS))) for _ in range(pods)
        ]

    def post(self) -> tuple[str, str, tuple[str, ...]]:
        """Pod, post and members."""
        pod, members = self._random.choice(self._pods)
        return pod, self._uuid(), members

    def events(self, count: int, detected_at_ms: int) -> Iterator[PostDetected]:
        """New posts of 20 members each: 40 timers."""
        for _ in range(count):
            pod, post, members = self.post()
            yield PostDetected(
                event_id=f"{post}:detected",
                pod_id=pod,
                post_id=post,
                member_ids=members,
                detected_at=moment(detected_at_ms),
            )

    def timers(self, count: int, shards: int, from_ms: int, until_ms: int) -> Shards:
        """`count` timers by shard, due at random in [from_ms, until_ms): as the planner's posts."""
        made: dict[int, list[Timer]] = {shard: [] for shard in range(shards)}
        for number in range(-(-count // PER_POST)):
            pod, post, members = self.post()
            timers = made[number % shards]
            for member in members:
                for kind in TYPES:
                    due_ms = self._random.randrange(from_ms, until_ms)
                    own_id = activity_id(pod, post, member, kind)
                    timers.append(Timer(own_id, pod, post, member, kind, 1, due_ms))
        return made

    def _uuid(self) -> str:
        return uuid_text(self._random.randbytes(16))


def far_away() -> tuple[int, int]:
    """From when until when timers are due that only wait, in milliseconds UTC."""
    from_ms = time.time_ns() // 1_000_000 + HOUR_MS
    return from_ms, from_ms + PENDING_MS


def total(shards: Shards) -> int:
    """Timers of all shards."""
    return sum(map(len, shards.values()))


async def publish(settings: Settings, events: Iterable[PostDetected]) -> None:
    """Put `events` on `post-detected`, keyed as any upstream system does it."""
    async with AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, linger_ms=20, max_batch_size=256 * 1024
    ) as producer:
        sent = [
            await producer.send(
                settings.topics.post_detected,
                encode(event),
                key=event.post_id.encode(),
                headers=event_headers(PostDetected, event.event_id, 0),
            )
            for event in events
        ]
        for each in sent:
            await each


async def insert(settings: Settings, shards: Shards) -> None:
    """The rows of `shards`, as the worker would have left them."""
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        await connection.copy_records_to_table(
            "pod_activities", records=rows(shards), columns=COLUMNS, timeout=300
        )
        # What autovacuum has long done on a site that was not filled within a second.
        await connection.execute("vacuum (analyze) pod_activities", timeout=300)
    finally:
        await connection.close()


def rows(shards: Shards) -> Iterator[tuple[Any, ...]]:
    """The rows of `shards`, in the order of COLUMNS."""
    for shard, timers in shards.items():
        for offset, each in enumerate(timers):
            yield (
                *(each.activity_id, each.pod_id, each.post_id, each.member_id),
                *(each.engagement_type, "scheduled", moment(each.due_ms)),
                *(shard, offset // PER_POST),
            )
