"""The count that closes the demo: afresh, from the beginning, of what anyone can see."""

from pod_automation.demo.count import Report, Tally, compare
from pod_automation.demo.record import RecordProbe
from pod_automation.demo.scenario import LIKES_PER_WINDOW, Pacing, Scenario
from pod_automation.demo.topic import read_through
from scheduler.settings import Settings
from schemas.codec import InvalidEvent, decode
from schemas.events import EngagementExecuted, PostDetected


async def audit(
    settings: Settings, scenario: Scenario, pacing: Pacing, *, killed: int, seconds: float
) -> Report:
    """Read all topics through, and the rows, and compare them with what `scenario` asks for.

    Nothing that was seen while the demo ran is trusted, and nobody may be working any more.
    """
    topics = settings.topics

    async def values(topic: str) -> list[bytes]:
        records = read_through(settings.kafka_bootstrap, topic, settings.partitions)
        return [record.value async for record in records]

    tally = Tally(scenario.pods)
    async for record in read_through(
        settings.kafka_bootstrap, topics.execute_engagement, settings.partitions
    ):
        tally.add(record.value, record.timestamp)
    published = _events_of(scenario.pods, await values(topics.post_detected))
    results = await values(topics.engagement_executed)
    executed = {decode(EngagementExecuted, value).activity_id for value in results}
    buried = set(await values(topics.dead_letter))
    probe = await RecordProbe.connect(settings.postgres_dsn)
    try:
        rows = await probe.activities(scenario.pods)
        progress = await probe.progress(scenario.pods)
    finally:
        await probe.close()

    asked = scenario.asked_for
    lost, duplicates, not_asked_for = compare(asked, rows, tally)
    return Report(
        published=len(published),
        published_twice=len(published) - len(set(published)),
        asked_for=len(asked),
        planned=len(rows),
        dispatched=sum(tally.fired.values()),
        recorded=sum(each.recorded for each in progress.values()),
        executed=len(executed & asked),
        lost=lost,
        duplicates=duplicates,
        early=tally.early,
        not_asked_for=not_asked_for,
        over_the_cap=tally.over_the_cap(LIKES_PER_WINDOW, pacing.window_ms),
        broken=len(scenario.broken),
        dead_letters=len(buried & set(scenario.broken)),
        late_p50_ms=tally.late_ms(0.5),
        late_p99_ms=tally.late_ms(0.99),
        late_max_ms=tally.late_ms(1.0),
        killed=killed,
        seconds=round(seconds, 1),
    )


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
