"""Fuzz records in the topics of a running engine, and a judge of what has become of them."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer, ConsumerRecord

from scheduler.command import about, fault
from scheduler.settings import Settings
from schemas.codec import InvalidEvent, decode
from schemas.events import (
    EngagementExecuted,
    EngagementStatus,
    Event,
    ExecuteEngagement,
    PodCommand,
    PostDetected,
    WheelCursor,
)
from schemas.headers import dead_letter_headers
from tests.fuzz.octets import Fuzzed, largest, record
from tests.fuzz.size import SEED, randomness
from tests.integration.scenario import Key, Published, read

Position = tuple[str, int, int]

AT_ONCE = 40
"""Records of a batch, if they fit."""


def types_of(settings: Settings) -> dict[str, type[Event]]:
    """What is expected in each topic that anything reads."""
    topics = settings.topics
    return {
        topics.post_detected: PostDetected,
        topics.engagement_executed: EngagementExecuted,
        topics.pod_commands: PodCommand,
        topics.execute_engagement: ExecuteEngagement,
        topics.engagement_status: EngagementStatus,
        topics.wheel_cursor: WheelCursor,
        topics.dead_letter: PostDetected,
    }


async def send_fuzz(
    settings: Settings, count: int, purpose: str, *, large: bool = False
) -> dict[Position, Fuzzed]:
    """`count` records into each topic, in all partitions; returns what stands where. With `large`
    also the largest that there can be."""
    sent: dict[Position, Fuzzed] = {}
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka_bootstrap, max_batch_size=1_000_000
    )
    await producer.start()
    try:
        for topic, event_type in types_of(settings).items():
            rng = randomness(f"{purpose}/{event_type.__name__}", 0)
            waiting: dict[int, list[Fuzzed]] = defaultdict(list)
            for number, made in enumerate(_made(rng, event_type, count, large)):
                if not _harmless(settings, topic, made.value):
                    continue
                if topic == settings.topics.wheel_cursor and made.key is None:
                    continue  # the broker of a compacted topic takes none
                partition = number % settings.partitions
                waiting[partition].append(made)
                if len(waiting[partition]) == AT_ONCE:
                    await _ship(producer, topic, partition, waiting.pop(partition), sent)
            for partition, records in waiting.items():
                await _ship(producer, topic, partition, records, sent)
    finally:
        await producer.stop()
    return sent


def _made(rng: Random, event_type: type[Event], count: int, large: bool) -> Iterator[Fuzzed]:
    if large:
        yield from largest(event_type)
    for _ in range(count):
        yield record(rng, event_type)


def _harmless(settings: Settings, topic: str, value: bytes | None) -> bool:
    """False for the valid command that would stop or change what others have planned."""
    if topic != settings.topics.pod_commands:
        return True
    event = _decoded(PodCommand, value)
    if event is None or event.command in ("schedule", "dispatch", "postpone", "expire"):
        return True
    scope, name = about(event)
    return scope == "activities" or name.startswith("fuzz")


async def _ship(
    producer: AIOKafkaProducer,
    topic: str,
    partition: int,
    records: Sequence[Fuzzed],
    sent: dict[Position, Fuzzed],
) -> None:
    left = list(records)
    while left:
        batch = producer.create_batch()
        taken: list[Fuzzed] = []
        for each in left:
            fields = {"key": each.key, "value": each.value, "headers": each.headers}
            if batch.append(timestamp=None, **fields) is None:
                break
            taken.append(each)
        if not taken:
            left = left[1:]  # larger than a broker takes
            continue
        sending = await producer.send_batch(batch, topic, partition=partition)
        first = int((await sending).offset)
        for at, each in enumerate(taken):
            sent[topic, partition, first + at] = each
        left = left[len(taken) :]


def _decoded(event_type: type[Any], value: bytes | None) -> Any:
    """None for what is no such event, or a command that makes no sense."""
    try:
        event = decode(event_type, value)
    except InvalidEvent:
        return None
    return None if isinstance(event, PodCommand) and fault(event) else event


@dataclass
class Found:
    """All that stands in the topics and the record when it is over."""

    records: dict[str, list[ConsumerRecord]]
    rows: list[asyncpg.Record]
    counts: dict[str, int]
    watermarks: dict[tuple[str, int], int] = field(default_factory=dict)


async def found(settings: Settings) -> Found:
    """Look at everything."""
    records = {topic: await read(settings, topic) for topic in types_of(settings)}
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        rows = await connection.fetch("select * from pod_activities")
        counts = await connection.fetch("select * from member_engagement")
        offsets = await connection.fetch("select * from ingested_offsets")
    finally:
        await connection.close()
    return Found(
        records,
        rows,
        {row["member_id"]: row["engagement_count"] for row in counts},
        {(row["topic"], row["partition"]): row["last_offset"] for row in offsets},
    )


def judge(
    settings: Settings, published: Published, sent: Mapping[Position, Fuzzed], seen: Found
) -> None:
    """Everything that was promised, though all topics are full of nonsense."""
    forged = _forged(settings, sent, seen)
    _rows(settings, published, seen, forged)
    _fired(settings, published, sent, seen, forged)
    _letters(settings, sent, seen)
    for topic in settings.topics.inputs:
        ends: dict[int, int] = {}
        for each in seen.records[topic]:
            ends[each.partition] = max(each.offset, ends.get(each.partition, -1))
        for partition, last in ends.items():
            assert seen.watermarks[topic, partition] >= last, f"{topic}/{partition} was not applied"


def _asked_for(settings: Settings, seen: Found) -> dict[Key, PostDetected]:
    """What the events that are valid ask for, ours and those of the fuzzer."""
    asked: dict[Key, PostDetected] = {}
    for each in seen.records[settings.topics.post_detected]:
        event = _decoded(PostDetected, each.value)
        if event is None:
            continue
        for member in event.member_ids:
            for kind in event.engagement_types:
                if member != event.author_id:
                    asked.setdefault((event.pod_id, event.post_id, member, kind), event)
    return asked


def _key(row: Any) -> Key:
    return row["pod_id"], row["post_id"], row["member_id"], row["engagement_type"]


def _forged(settings: Settings, sent: Mapping[Position, Fuzzed], seen: Found) -> set[Key]:
    """Of which the fuzzer has said what only a dispatcher can know: nobody can tell that from the
    truth, and whoever takes the shard over believes it. Never one of those that we published."""
    topic = settings.topics.engagement_status
    claimed = {
        str(event.activity_id)
        for each in seen.records[topic]
        if (topic, each.partition, each.offset) in sent
        and (event := _decoded(EngagementStatus, each.value)) is not None
    }
    return {_key(row) for row in seen.rows if str(row["id"]) in claimed}


def _rows(settings: Settings, published: Published, seen: Found, forged: set[Key]) -> None:
    rows = {_key(row): row for row in seen.rows}
    assert len(rows) == len(seen.rows)
    assert set(rows) == set(_asked_for(settings, seen)), "planned what nobody asked for, or not"
    assert set(published.due) <= set(rows)
    assert not forged & set(published.due)
    now = datetime.now(UTC)
    for key, row in rows.items():
        if key in forged:
            continue
        if key in published.due or row["scheduled_for"] < now:
            assert (row["status"], row["attempt"]) == ("executed", 1), f"FUZZ_SEED={SEED} {row}"
        else:
            assert row["status"] == "scheduled", f"FUZZ_SEED={SEED} {row}"
    done = Counter(row["member_id"] for row in seen.rows if row["status"] == "executed")
    assert {name: count for name, count in seen.counts.items() if count} == dict(done)


def _fired(
    settings: Settings,
    published: Published,
    sent: Mapping[Position, Fuzzed],
    seen: Found,
    forged: set[Key],
) -> None:
    topic = settings.topics.execute_engagement
    times: Counter[Key] = Counter()
    for each in seen.records[topic]:
        if (topic, each.partition, each.offset) not in sent:
            event = decode(ExecuteEngagement, each.value)
            assert event.dispatched_at >= event.scheduled_for, "early"
            times[event.pod_id, event.post_id, event.member_id, event.engagement_type] += 1
    assert {key: count for key, count in times.items() if count > 1} == {}, "twice"
    executed = {_key(row) for row in seen.rows if row["status"] == "executed"}
    assert set(times) - forged == executed - forged
    assert set(published.due) <= set(times), "lost"


def _letters(settings: Settings, sent: Mapping[Position, Fuzzed], seen: Found) -> None:
    """Each broken record is there, byte for byte, and no other is."""
    originals = {
        (topic, each.partition, each.offset): each
        for topic in settings.topics.inputs
        for each in seen.records[topic]
    }
    types = types_of(settings)
    broken = {
        position
        for position, each in originals.items()
        if _decoded(types[position[0]], each.value) is None
    }
    buried = set()
    for each in seen.records[settings.topics.dead_letter]:
        if (settings.topics.dead_letter, each.partition, each.offset) in sent:
            continue
        added = dict(each.headers[-5:])
        assert added.keys() == {
            "ce_id", "source_topic", "source_partition", "source_offset", "reason"
        }, f"FUZZ_SEED={SEED} {added}"  # fmt: skip
        position = (
            added["source_topic"].decode(),
            int(added["source_partition"]),
            int(added["source_offset"]),
        )
        original = originals[position]
        where = f"FUZZ_SEED={SEED} {position}: {(original.value or b'').hex()[:5000]}"
        assert position in broken, f"valid, and buried: {added['reason']!r} {where}"
        wanted = dead_letter_headers(original.headers, *position, added["reason"].decode())
        assert (each.key, each.value) == (original.key, original.value), where
        assert list(each.headers) == wanted, where
        buried.add(position)
    assert buried == broken, f"FUZZ_SEED={SEED} {sorted(broken - buried)[:5]}"
