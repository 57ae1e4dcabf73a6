"""What stands in the three stores, as files that any server can be filled from (`loading`)."""

import asyncio
import base64
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from redis.asyncio import Redis

from scheduler.migrations import VERSION_TABLE
from scheduler.settings import Settings
from schemas.ids import activity_id
from tests.integration.scenario import read
from tests.upgrade.release import PREFIX, UUIDS


async def store(settings: Settings, site: Mapping[str, str], folder: Path, program: Path) -> None:
    """Write down all of it; `site` are the settings that matter."""
    async with Redis.from_url(settings.redis_url) as redis:
        seconds, _ = await redis.time()
        lines = [await _key(redis, key) async for key in redis.scan_iter(f"{PREFIX}wheel:*")]
    _write(folder / "wheel.jsonl", sorted(lines))
    _write(folder / "topics.jsonl", [*await _records(settings), *await _groups(settings)])
    (folder / "database.sql").write_text(await _dump(settings, program), "utf-8")
    made = {"captured_at_ms": int(seconds) * 1000, "prefix": PREFIX, "settings": site}
    (folder / "site.json").write_text(json.dumps(made, indent=1) + "\n", "utf-8")


# Every form that an id can take in a timer, with the longest of them.
_IDS = (UUIDS[1], UUIDS[1].upper(), "x", "\N{SNOWMAN}" * 200, "a" * 200)
_PACK = """
import json, sys
from scheduler.timer import Timer, pack
for line in sys.stdin:
    timer = json.loads(line)
    print(json.dumps({"timer": timer, "packed": pack(Timer(**timer)).hex()}))
"""


async def vectors(program: Path, folder: Path) -> None:
    """Timers as the release packs them."""
    timers = [
        {
            "activity_id": own or activity_id(pod, post, member, kind),
            "pod_id": pod,
            "post_id": post,
            "member_id": member,
            "engagement_type": kind,
            "attempt": attempt,
            "due_ms": 1_795_507_200_000,
        }
        for pod, post, member in zip(_IDS, _IDS[1:] + _IDS[:1], _IDS[::-1], strict=True)
        for kind in ("like", "comment")
        for own, attempt in ((None, 1), (UUIDS[2], 2), ("their own id", 255))
    ]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PACK),
        env={**os.environ, "PYTHONPATH": str(program)},
        cwd=program,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate("".join(json.dumps(each) + "\n" for each in timers).encode())
    _write(folder / "timers.jsonl", out.decode().splitlines())


async def _key(redis: Any, key: bytes) -> str:
    kind = (await redis.type(key)).decode()
    value: Any
    if kind == "hash":
        value = {name.decode(): _text(each) for name, each in (await redis.hgetall(key)).items()}
    elif kind == "zset":
        pairs = await redis.zrange(key, 0, -1, withscores=True)
        value = [[_text(member), int(score)] for member, score in pairs]
    elif kind == "set":
        value = sorted(_text(member) for member in await redis.smembers(key))
    else:
        value = _text(await redis.get(key))
    return json.dumps({"key": key.decode(), "type": kind, "value": value})


async def _records(settings: Settings) -> list[str]:
    lines = []
    for topic in settings.topics:
        records = await read(settings, topic)
        records.sort(key=lambda each: (each.partition, each.offset))
        lines += [_record(each) for each in records]
    return lines


def _record(record: ConsumerRecord) -> str:
    return json.dumps(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": _text(record.key),
            "value": _text(record.value),
            "headers": [[name, _text(value)] for name, value in record.headers],
        }
    )


async def _groups(settings: Settings) -> list[str]:
    """How far each topic goes, markers of transactions included, and what the workers have read."""
    lines = []
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()
    await consumer.start()
    try:
        read_by = await admin.list_consumer_group_offsets(settings.worker_group)
        for topic in settings.topics:
            tps = [TopicPartition(topic, each) for each in range(settings.partitions)]
            for tp, end in (await consumer.end_offsets(tps)).items():
                committed = read_by.get(tp)
                upto = None if committed is None else committed.offset
                line = {"topic": topic, "partition": tp.partition, "end": end, "workers": upto}
                lines.append(json.dumps(line))
    finally:
        await consumer.stop()
        await admin.close()
    return lines


async def _dump(settings: Settings, program: Path) -> str:
    """The schema as the release's own migrations make it, then a line for each row."""
    parts = [
        each.read_text("utf-8")
        for each in sorted((program / "scheduler/migrations/sql").glob("*.up.sql"))
    ]
    parts.append(f"create table {VERSION_TABLE} (version_num varchar(32) primary key);\n")
    connection = await asyncpg.connect(settings.postgres_dsn)
    try:
        tables = await connection.fetch(
            "select table_name from information_schema.tables where table_schema = 'public'"
            " order by table_name"
        )
        for (table,) in tables:
            rows = await connection.fetch(
                "select format('insert into %I select * from json_populate_record(null::%I, %L);',"  # noqa: S608
                f" $1::text, $1::text, row_to_json(each)) from {table} each order by 1",
                table,
            )
            parts.append("".join(f"{line}\n" for (line,) in rows))
    finally:
        await connection.close()
    return "\n".join(parts)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
