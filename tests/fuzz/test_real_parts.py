"""A running engine whose every topic is full of nonsense: nobody dies of it, and nobody waits."""

import asyncio
from pathlib import Path

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from pod_automation.cli.exit_codes import ExitCode
from scheduler.adapters.kafka_records import read_foreign_headers
from scheduler.settings import Settings
from tests.fuzz.site import found, judge, send_fuzz
from tests.fuzz.size import RECORDS
from tests.integration.scenario import POLICY, QUICK_SESSION, EngineProcess, Published, publish
from tests.integration.test_cli import pod_automation, result_of
from tests.integration.worker_bench import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120 + RECORDS // 50)]

COUNT = max(100, RECORDS // 40)
"""For each topic, in two parts."""

QUICK = (
    POLICY
    | QUICK_SESSION
    | {
        "POD_AUTOMATION_LIKE_MIN_DELAY_MS": "100",
        "POD_AUTOMATION_LIKE_MAX_DELAY_MS": "600",
        "POD_AUTOMATION_LIKE_CAP_WINDOW_MS": "200",
        "POD_AUTOMATION_COMMENT_MIN_DELAY_MS": "200",
        "POD_AUTOMATION_COMMENT_MAX_DELAY_MS": "1200",
        "POD_AUTOMATION_QUEUE_CONCURRENCY": "200",
    }
)


async def test_nonsense_in_every_topic(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    read_foreign_headers()
    processes = [
        EngineProcess(command, environment | QUICK, log=tmp_path / f"{command}.log")
        for command in ("worker", "dispatcher", "executor")
    ]
    try:
        for process in processes:
            await process.start()
        sent, published = await asyncio.gather(
            send_fuzz(settings, COUNT, "first", large=True),
            publish(settings, 30, seed=31, over_s=2, most_members=8),
        )
        # Whoever takes a shard over reads the cursors and the statuses that are among the nonsense.
        for process in processes[:2]:
            await process.kill()
            await process.start()
        more, again = await asyncio.gather(
            send_fuzz(settings, COUNT, "second"),
            publish(settings, 30, seed=32, over_s=2, most_members=8, first=30),
        )
        sent |= more
        both = Published(published.due | again.due, published.broken | again.broken)
        await over(settings, both)
        judge(settings, both, sent, await found(settings))
        assert [process.running for process in processes] == [True] * 3
        await dead_letters_are_readable(environment)
        assert [await process.stop() for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            await process.kill()
    for process in processes:
        assert process.log is not None
        log = process.log.read_text()
        for line in log.splitlines():
            # A terminal takes it, and no record can flood it.
            assert line.isprintable(), line[:5000]
            assert len(line) < 2000, line[:5000]
        assert "Traceback" not in log, log[: log.index("Traceback") + 5000][-6000:]


async def over(settings: Settings, published: Published) -> None:
    """Wait until every input was applied and all that is due has come to its end."""
    connection = await asyncpg.connect(settings.postgres_dsn)
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_bootstrap)
    await admin.start()

    async def done() -> bool:
        waiting = await connection.fetchval(
            "select count(*) from pod_activities"
            " where status <> 'executed' and scheduled_for <= now()"
        )
        known = await connection.fetchval(
            "select count(*) from pod_activities where pod_id like 'pod-%' and status = 'executed'"
        )
        if waiting or known < len(published.due):
            return False
        for topic in settings.topics.inputs:
            rows = await connection.fetch(
                "select partition, last_offset from ingested_offsets where topic = $1", topic
            )
            at = {row["partition"]: row["last_offset"] for row in rows}
            if at != await last_offsets(settings, topic):
                return False
        return True

    try:
        await until(done, "all applied, and all that is due executed", every_s=0.2)
    finally:
        await admin.close()
        await connection.close()


async def last_offsets(settings: Settings, topic: str) -> dict[int, int]:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(
            [TopicPartition(topic, each) for each in range(settings.partitions)]
        )
        return {tp.partition: end - 1 for tp, end in ends.items() if end}
    finally:
        await consumer.stop()


async def dead_letters_are_readable(environment: dict[str, str]) -> None:
    listed = await result_of(environment, "dead-letters", "list", "--limit", "1000")
    assert listed["found"] > COUNT
    shown = [each["id"] for each in listed["letters"]]
    for name in (shown[0], shown[len(shown) // 2], shown[-1]):
        await result_of(environment, "dead-letters", "show", name)
    for arguments in (("list",), ("replay", "--all", "--dry-run")):
        outcome = await pod_automation(environment, "dead-letters", *arguments)
        assert outcome.shows_no_traceback()
        # What somebody else has put there cannot be replayed, and it says so.
        assert outcome.code in (ExitCode.OK, ExitCode.NO)
