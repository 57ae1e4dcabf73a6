"""Puts the stored life of a site into real servers, as if it had been written there a moment ago.

Times in it are absolute, so all of them are moved by one amount: what is due first falls due
`LEAD_MS` from now. Moved are the timestamps of all rows, the times in pruned posts, every RFC 3339
time in a record, and in the wheel the times of slots, deadlines and `head`. For that the timers are
put into the slots of their new times; the timers themselves stay byte for byte what the release
wrote. Names get another prefix.

Offsets are part of what the stores know of each other, so every record gets the offset it had:
where a marker of a transaction stood, a record stands that no reader takes for anything.
"""

import base64
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from redis.asyncio import Redis

from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.settings import ENV_PREFIX, Settings, load_settings
from schemas.times import millis, rfc3339
from tests.upgrade.release import FOLDER

LEAD_MS = 6_000
"""Until the first timer: about what processes need to start."""

SLOT_MS = 10_000
"""The width of a slot in every release so far; another one belongs into its site.json."""

FILLER = b"{}"

_TIME = re.compile(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SLOT = re.compile(r":s:(\d+)$")


@dataclass(frozen=True)
class Loaded:
    """A site with a past."""

    environment: dict[str, str]
    settings: Settings
    shift_ms: int
    ends: Mapping[tuple[str, int], int]
    """Offsets behind what was loaded, by topic and partition."""
    gens: Mapping[int, str]
    """The generation of each shard's wheel as it was stored."""
    planned_once: bytes
    """An event of that past, whose activities are partly pruned."""


def lines(path: Path) -> list[dict[str, Any]]:
    """What a JSON lines file holds."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


async def load(release: str, environment: Mapping[str, str], *, wheel: bool) -> Loaded:
    """Load the life that `release` wrote into the servers, prefix and empty database of
    `environment`; without `wheel` as if Redis had lost everything."""
    folder = FOLDER / release
    site = json.loads((folder / "site.json").read_text("utf-8"))
    made = dict(environment) | {
        ENV_PREFIX + name: value
        for name, value in site["settings"].items()
        if name != "TOPIC_PREFIX"
    }
    names = {name.removeprefix(ENV_PREFIX).lower(): value for name, value in made.items()}
    settings = load_settings(**names)
    keys = lines(folder / "wheel.jsonl")
    stored = lines(folder / "topics.jsonl")
    async with Redis.from_url(settings.redis_url) as redis:
        seconds, micros = await redis.time()
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        shift_ms = now_ms + LEAD_MS - min(_due(keys))
        renamed = [
            each | {"key": each["key"].replace(site["prefix"], settings.topic_prefix)}
            for each in keys
        ]
        if wheel:
            await _load_wheel(redis, renamed, site["prefix"], settings, shift_ms)
    sql = (folder / "database.sql").read_text("utf-8")
    await _load_database(sql.replace(site["prefix"], settings.topic_prefix), settings, shift_ms)
    await _load_topics(stored, site["prefix"], settings, shift_ms)
    return Loaded(
        made,
        settings,
        shift_ms,
        {
            (each["topic"].replace(site["prefix"], settings.topic_prefix), each["partition"]): each[
                "end"
            ]
            for each in stored
            if "end" in each
        },
        {
            int(re.findall(r"\{(\d+)\}", each["key"])[0]): _bytes(each["value"]["gen"]).decode()
            for each in keys
            if each["key"].endswith(":meta")
        },
        next(
            _bytes(each["value"])
            for each in stored
            if each["topic"].endswith("post-detected") and "value" in each
        ),
    )


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


def _due(keys: list[dict[str, Any]]) -> list[int]:
    """Times of all timers and deadlines."""
    times = []
    for each in keys:
        if (slot := _SLOT.search(each["key"])) is not None:
            times += [int(slot[1]) * SLOT_MS + score for _, score in each["value"]]
        elif each["key"].endswith(":awaited"):
            times += [score for _, score in each["value"]]
    return times


async def _load_wheel(
    redis: Any, keys: list[dict[str, Any]], prefix: str, settings: Settings, shift_ms: int
) -> None:
    for each in keys:
        key, value = each["key"], each["value"]
        if (slot := _SLOT.search(key)) is not None:
            base = key[: slot.start()]
            for member, score in value:
                number, relative = divmod(int(slot[1]) * SLOT_MS + score + shift_ms, SLOT_MS)
                await redis.zadd(f"{base}:s:{number}", {_bytes(member): relative})
                await redis.zadd(f"{base}:index", {str(number): number})
        elif key.endswith(":awaited"):
            await redis.zadd(key, {_bytes(member): score + shift_ms for member, score in value})
        elif key.endswith(":meta"):
            fields = {
                name.replace(prefix, settings.topic_prefix): _bytes(v) for name, v in value.items()
            }
            if 0 < int(fields["head"]) < 2**53 - 1:
                fields["head"] = b"%d" % (int(fields["head"]) + shift_ms)
            await redis.hset(key, mapping=fields)
        elif key.endswith(":flight"):
            # Committed, so that of its times only the sign of the slot is read any more.
            await redis.set(key, _bytes(value))
        elif key.endswith(":answered"):
            await redis.sadd(key, *map(_bytes, value))
        else:
            assert key.endswith(":index"), f"a key that nobody moves: {key}"


async def _load_database(sql: str, settings: Settings, shift_ms: int) -> None:
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        await connection.execute(sql)
        times = await connection.fetch(
            "select table_name, column_name from information_schema.columns"
            " where table_schema = 'public' and data_type = 'timestamp with time zone'"
        )
        by_table: dict[str, list[str]] = defaultdict(list)
        for row in times:
            by_table[row["table_name"]].append(row["column_name"])
        shift = timedelta(milliseconds=shift_ms)
        for table, columns in by_table.items():
            moved = ", ".join(f"{column} = {column} + $1::interval" for column in columns)
            await connection.execute(f"update {table} set {moved}", shift)  # noqa: S608
        await connection.execute(
            "update pruned_posts set like_times_ms ="
            " array(select each + $1 from unnest(like_times_ms) each)",
            shift_ms,
        )
    finally:
        await connection.close()


async def _load_topics(
    stored: list[dict[str, Any]], prefix: str, settings: Settings, shift_ms: int
) -> None:
    def moved(text: str | None) -> bytes | None:
        if text is None:
            return None
        return _TIME.sub(
            lambda found: _moved(found[0], shift_ms),
            _bytes(text).replace(prefix.encode(), settings.topic_prefix.encode()),
        )

    await ensure_topics(settings)
    ends = [each for each in stored if "end" in each]
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap, max_batch_size=900_000)
    await producer.start()
    try:
        for each in ends:
            at = 0
            topic = each["topic"].replace(prefix, settings.topic_prefix)
            own = [
                record
                for record in stored
                if record["topic"] == each["topic"]
                and record["partition"] == each["partition"]
                and "offset" in record
            ]
            batch = producer.create_batch()
            for record in [*own, {"offset": each["end"]}]:
                while at < record["offset"]:
                    batch.append(timestamp=None, key=b"filler", value=FILLER, headers=[])
                    at += 1
                if "value" in record:
                    batch.append(
                        timestamp=None,
                        key=moved(record["key"]),
                        value=moved(record["value"]),
                        headers=[(name, moved(value)) for name, value in record["headers"]],
                    )
                    at += 1
            if at:
                sending = await producer.send_batch(batch, topic, partition=each["partition"])
                assert (await sending).offset == 0
            assert batch.record_count() == each["end"]
    finally:
        await producer.stop()
    await _commit(settings, prefix, ends)


async def _commit(settings: Settings, prefix: str, ends: list[dict[str, Any]]) -> None:
    """What the groups of workers and executors have read."""
    for group in (settings.worker_group, settings.executor_group):
        consumer = AIOKafkaConsumer(
            bootstrap_servers=settings.kafka_bootstrap, group_id=group, enable_auto_commit=False
        )
        await consumer.start()
        try:
            offsets = {}
            for each in ends:
                topic = each["topic"].replace(prefix, settings.topic_prefix)
                upto = each["workers"] if group == settings.worker_group else None
                if topic == settings.topics.execute_engagement and group != settings.worker_group:
                    upto = each["end"]
                if upto is not None:
                    offsets[TopicPartition(topic, each["partition"])] = upto
            consumer.assign(list(offsets))
            await consumer.commit(offsets)
        finally:
            await consumer.stop()


def _moved(text: bytes, shift_ms: int) -> bytes:
    at = datetime.fromisoformat(text.decode()).astimezone(UTC)
    return rfc3339(millis(at) + shift_ms).encode()
