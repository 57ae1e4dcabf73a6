"""Stores the life of a site as a release writes it, for later releases to go on from.

Run it once a release, from its own checkout, with the wheel that is released:

    python -m build --wheel --outdir tests/upgrade/1.2.3 .
    python -m tests.upgrade.make_fixture 1.2.3

It starts the embedded servers, lets the wheel's worker and dispatcher plan and fire, answers as an
executor would, and stops them in mid-life. What is then in the three stores goes into the folder:

    database.sql  its migrations, and the rows
    wheel.jsonl   the keys in Redis, one a line; members in base64
    topics.jsonl  the records of all topics with their offsets, and what the groups have read
    timers.jsonl  timers, and how the release packs them
    site.json     when it was taken, and the settings that matter

Rows are in every status that the engine sets: pending, scheduled, dispatched (and awaited),
retrying, executed, failed and cancelled; pruned ones have left their notes, a dead letter was
replayed, and some inputs are unread.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import orjson
from aiokafka import AIOKafkaProducer
from redis.asyncio import Redis

from pod_automation.stack import EmbeddedStack
from scheduler.settings import ENV_PREFIX, Settings, load_settings
from tests.integration.scenario import EngineProcess, read
from tests.integration.worker_bench import until
from tests.upgrade.release import FOLDER, PREFIX, UUIDS, unpacked
from tests.upgrade.storing import store, vectors

# Likes fire at once, so that there is a past. All else lies some 40 seconds ahead, within a few
# seconds of each other: whoever loads it moves that to its own present.
SITE = {
    "TOPIC_PREFIX": PREFIX,
    "PARTITIONS": "2",
    "LIKE_MIN_DELAY_MS": "100",
    "LIKE_MAX_DELAY_MS": "500",
    "LIKE_CAP_WINDOW_MS": "100",
    "COMMENT_MIN_DELAY_MS": "40000",
    "COMMENT_MAX_DELAY_MS": "42000",
    "BACKOFF_INITIAL_DELAY_MS": "35000",
    "RESULT_TIMEOUT_MS": "40000",
    "COMPLETED_JOB_KEEP_COUNT": "2",
    "RETENTION_INTERVAL_MS": "0",
}
MEMBERS = ["ann", "bob", "cyd", "m\N{LATIN SMALL LETTER E WITH ACUTE}", *UUIDS]


async def main(release: str) -> None:
    folder = FOLDER / release
    with TemporaryDirectory(prefix="pod-automation-") as temporary:
        program = unpacked(release, Path(temporary))
        async with EmbeddedStack(Path(temporary, "stack")) as stack:
            environment = dict(stack.environment) | {
                ENV_PREFIX + name: value for name, value in SITE.items()
            }
            names = {k.removeprefix(ENV_PREFIX).lower(): v for k, v in environment.items()}
            settings = load_settings(**names)
            await live(settings, environment, program)
            await store(settings, SITE, folder, program)
            await vectors(program, folder)


async def command(environment: Mapping[str, str], program: Path, *arguments: str) -> None:
    """One command of the release."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pod_automation", *arguments),
        env={**os.environ, **environment, "PYTHONPATH": str(program)},
        cwd=program,
    )
    if await process.wait():
        raise SystemExit(f"{arguments} has failed")


async def live(settings: Settings, environment: Mapping[str, str], program: Path) -> None:
    """The past of the site."""
    await command(environment, program, "init")
    worker = EngineProcess("worker", environment, program=program)
    dispatcher = EngineProcess("dispatcher", environment, program=program)
    connection = await asyncpg.connect(settings.postgres_dsn)
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    await producer.start()
    try:
        await worker.start()
        await dispatcher.start()
        await publish(settings, producer, range(12))
        await producer.send_and_wait(settings.topics.post_detected, b"{broken", partition=0)
        await cancel(settings, connection, environment, program)
        await answer(settings, producer, connection)
        await command(
            environment, program, "dead-letters", "replay", "--reason", "not JSON", "--yes"
        )
        await command(environment, program, "prune")
        await insert_pending(connection)
        await asyncio.sleep(2)  # the last batch is settled, and projected
        for process in (worker, dispatcher):
            if await process.stop():
                raise SystemExit("a process has failed")
        # Unread: what nobody of this release has applied.
        await publish(settings, producer, range(12, 14), engagement_types=["like"])
        await late_result(settings, producer, connection)
    finally:
        await worker.kill()
        await dispatcher.kill()
        await producer.stop()
        await connection.close()


async def publish(
    settings: Settings, producer: AIOKafkaProducer, numbers: range, **fields: Any
) -> None:
    for number in numbers:
        event = {
            "event_id": f"event-{number}",
            "pod_id": UUIDS[0] if number % 3 == 0 else f"pod-{number % 3}",
            "post_id": f"post-{number}",
            "member_ids": MEMBERS,
            "author_id": MEMBERS[number % len(MEMBERS)],
            "detected_at": await now(settings),
        } | fields
        value, key = orjson.dumps(event), event["post_id"].encode()
        await producer.send_and_wait(
            settings.topics.post_detected, value, key=key, partition=number % settings.partitions
        )


async def now(settings: Settings) -> str:
    from schemas.times import rfc3339

    async with Redis.from_url(settings.redis_url) as redis:
        seconds, micros = await redis.time()
    return rfc3339(int(seconds) * 1000 + int(micros) // 1000)


async def cancel(
    settings: Settings,
    connection: "asyncpg.Connection[asyncpg.Record]",
    environment: Mapping[str, str],
    program: Path,
) -> None:
    """What waits of one pod, once its likes are out."""

    async def fired() -> bool:
        left = "select count(*) from pod_activities where engagement_type = 'like' and status <> $1"
        rows = await connection.fetchval("select count(*) from pod_activities")
        return rows == 12 * 14 and not await connection.fetchval(left, "dispatched")

    await until(fired, "all likes dispatched")
    await command(environment, program, "clear", "--pod", "pod-2", "--yes")


async def answer(
    settings: Settings, producer: AIOKafkaProducer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """Some are done, some fail once, some for good, and of some nobody hears."""
    events = [
        orjson.loads(record.value)
        for record in await read(settings, settings.topics.execute_engagement)
    ]
    events.sort(key=lambda each: each["activity_id"])
    wanted = {"executed": 0, "retrying": 0, "failed": 0}
    for number, event in enumerate(events):
        status = ("executed", "executed", "retrying", "failed", "dispatched")[number % 5]
        if status != "dispatched":
            wanted[status] += 1
            await producer.send_and_wait(
                settings.topics.engagement_executed, *_result(settings, event, status)
            )

    async def applied() -> bool:
        rows = await connection.fetch("select status, count(*) from pod_activities group by status")
        counts = {row["status"]: row["count"] for row in rows}
        return all(counts.get(status, 0) == count for status, count in wanted.items())

    await until(applied, f"results applied: {wanted}")


def _result(settings: Settings, event: dict[str, Any], status: str) -> tuple[bytes, bytes]:
    copied = ("activity_id", "pod_id", "post_id", "member_id", "engagement_type", "attempt")
    result = {name: event[name] for name in copied} | {
        "event_id": f"{event['activity_id']}:{status}",
        "outcome": "executed" if status == "executed" else "failed",
        "executed_at": event["dispatched_at"],
        "error": "the platform has hiccups",
        "retryable": status != "failed",
    }
    return orjson.dumps(result), event["post_id"].encode()


async def late_result(
    settings: Settings, producer: AIOKafkaProducer, connection: "asyncpg.Connection[asyncpg.Record]"
) -> None:
    """A result that the worker has not read."""
    row = await connection.fetchrow(
        "select id from pod_activities where status = 'dispatched' order by id limit 1"
    )
    assert row is not None
    for record in await read(settings, settings.topics.execute_engagement):
        event = orjson.loads(record.value)
        if event["activity_id"] == str(row["id"]):
            value, key = _result(settings, event, "executed")
            await producer.send_and_wait(
                settings.topics.engagement_executed, value, key=key, partition=record.partition
            )


async def insert_pending(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    """As an upstream system does."""
    await connection.execute(
        "insert into pod_activities (pod_id, post_id, member_id, engagement_type)"
        " select 'pod-up', 'post-up', 'member-' || n, 'like' from generate_series(1, 3) n"
    )


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
