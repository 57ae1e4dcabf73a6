"""What Prometheus reads from processes at work."""

import asyncio
import re
from collections.abc import Mapping
from urllib.request import urlopen

import pytest

from scheduler.adapters.kafka_topics import ensure_topics
from scheduler.settings import Settings
from tests.integration.scenario import POLICY, EngineProcess, publish, settled
from tests.integration.worker_bench import until
from tests.unit.test_quick_look import free_port

pytestmark = pytest.mark.timeout(240)

SAMPLE = re.compile(r"^(\w+)(\{[^}]*\})? (\S+)$", re.M)


async def scraped(port: int) -> Mapping[str, float]:
    """The sum of each metric over its labels, and each by itself; nothing where nobody listens."""

    def read() -> str:
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return str(answer.read().decode())

    try:
        text = await asyncio.to_thread(read)
    except OSError:
        return {}
    found: dict[str, float] = {}
    for name, labels, value in SAMPLE.findall(text):
        found[name] = found.get(name, 0) + float(value)
        found[name + labels] = float(value)
    return found


@pytest.mark.parametrize("together", [False, True], ids=["apart", "together"])
async def test_counts_agree_with_what_was_done(
    environment: dict[str, str], settings: Settings, together: bool
) -> None:
    await ensure_topics(settings)
    commands = ["run"] if together else ["worker", "dispatcher"]
    ports = [free_port() for _ in commands]
    processes = [
        EngineProcess(command, environment | POLICY | {"POD_AUTOMATION_METRICS_PORT": str(port)})
        for command, port in zip(commands, ports, strict=True)
    ]
    try:
        for process in processes:
            await process.start()
        published = await publish(settings, 60, seed=11, over_s=1)
        await settled(settings, published)

        async def told() -> bool:
            worker, dispatcher = await scraped(ports[0]), await scraped(ports[-1])
            return (
                worker.get("pod_automation_statuses_total", 0) >= len(published.due)
                and dispatcher.get("pod_automation_shards_owned", 0) == settings.partitions
                # Looked at now and then.
                and "pod_automation_clock_ahead_seconds" in dispatcher
            )

        await until(told, "metrics that tell of all")
        worker, dispatcher = await scraped(ports[0]), await scraped(ports[-1])
    finally:
        for process in processes:
            await process.kill()
    scheduled = sum(
        value
        for name, value in worker.items()
        if name.startswith("pod_automation_statuses_total{") and 'status="scheduled"' in name
    )
    assert scheduled == len(published.due)
    assert worker["pod_automation_dead_letters_total"] == len(published.broken)
    likes = sum(key[3] == "like" for key in published.due)
    assert dispatcher['pod_automation_fired_total{type="like"}'] == likes
    assert dispatcher["pod_automation_fired_total"] == len(published.due)
    assert dispatcher["pod_automation_lateness_seconds_count"] == len(published.due)
    assert dispatcher["pod_automation_transaction_seconds_count"] > 0
    assert abs(dispatcher["pod_automation_clock_ahead_seconds"]) < 60
    assert dispatcher["process_resident_memory_bytes"] > 0
