"""What processes at work say: in one form, and of no member."""

import re
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from aiokafka import AIOKafkaProducer

from pod_automation import PodAutomation
from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.settings import Settings
from schemas.ids import activity_id
from tests.integration.scenario import POLICY, EngineProcess
from tests.integration.worker_bench import send_raw, until

pytestmark = pytest.mark.timeout(240)

LINE = re.compile(
    r"\[POD_AUTOMATION\] \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z (info|warning|error) +\S"
)


async def test_info_names_no_member(
    environment: dict[str, str], settings: Settings, tmp_path: Path
) -> None:
    await ensure_topics(settings)
    members = [f"member-{uuid4().hex}" for _ in range(3)]
    stranger = f"stranger-{uuid4().hex}"
    post = str(uuid4())
    event = {
        "event_id": str(uuid4()),
        "pod_id": "pod",
        "post_id": post,
        "member_ids": members,
        "detected_at": datetime.now(UTC).isoformat(),
    }
    result = {
        "event_id": str(uuid4()),
        "activity_id": activity_id("pod", post, members[0], "like"),
        "pod_id": "pod",
        "post_id": post,
        "member_id": stranger,
        "engagement_type": "like",
        "attempt": 1,
        "outcome": "executed",
        "executed_at": datetime.now(UTC).isoformat(),
    }
    logs = {name: tmp_path / name for name in ("worker", "dispatcher", "executor")}
    quiet = environment | POLICY | {"POD_AUTOMATION_LOG_LEVEL": "info"}
    processes = [EngineProcess(name, quiet, log=log) for name, log in logs.items()]
    topics = settings.topics
    try:
        for process in processes:
            await process.start()
        async with (
            PodAutomation(settings) as pods,
            AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer,
        ):
            await pods.opt_out(member_id=members[2], reason="asked to")
            await pods.publish_post_detected(event)
            # Dead letters of each kind that quotes what it got.
            for topic, nonsense in (
                (topics.post_detected, event | {"post_id": stranger * 9}),
                (topics.post_detected, event | {"member_ids": [stranger, 7]}),
                (topics.engagement_executed, result),
                (topics.pod_commands, {"command": "opt_out", "member_id": stranger}),
            ):
                await send_raw(producer, topic, 0, (None, orjson.dumps(nonsense), []))

            async def done() -> bool:
                stats = await pods.get_pod_engagement_stats("pod")
                return stats.executed == 4 and stats.cancelled == 2

            await until(done, "what is to be done")
        assert [await process.stop() for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            await process.kill()
    for name, log in logs.items():
        said = log.read_text("utf-8")
        assert said
        for line in said.splitlines():
            assert LINE.match(line), line
            assert "[^" not in line, "Faust tells of its services"
            assert not any(who in line for who in (*members, stranger)), f"{name}: {line}"
