"""Dispatchers are away while much falls due, and come back under each catch-up policy."""

from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import asyncpg
import pytest
from redis.asyncio import Redis

from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.settings import Settings
from schemas.codec import decode
from schemas.events import EngagementStatus
from schemas.times import millis
from tests.integration.scenario import (
    POLICY,
    QUICK_SESSION,
    Published,
    fired,
    judge,
    publish,
    read,
    running,
    settled,
)
from tests.integration.worker_bench import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

AFTER_MS = 3000


def catching_up(policy: str) -> dict[str, str]:
    return (
        POLICY
        | QUICK_SESSION
        | {
            "POD_AUTOMATION_CATCH_UP": policy,
            "POD_AUTOMATION_PACED_AFTER_MS": str(AFTER_MS),
            "POD_AUTOMATION_EXPIRE_AFTER_MS": str(AFTER_MS),
        }
    )


@asynccontextmanager
async def after_an_outage(
    environment: dict[str, str], settings: Settings, seed: int
) -> AsyncIterator[tuple[Published, datetime]]:
    """A dispatcher has just come back, at that time, to wheels in which all that is left is
    overdue."""
    async with running(environment, workers=1, dispatchers=1) as (_, dispatcher):
        await all_are_open(settings)
        published = await publish(settings, 25, seed=seed, over_s=2, most_members=12)
        await some_have_fired(settings)
        await dispatcher.kill()
        await all_is_overdue(settings, published)
        back_at = datetime.now(UTC)
        await dispatcher.start()
        yield published, back_at


async def all_are_open(settings: Settings) -> None:
    """What comes before a wheel is there would be late before any outage."""
    wheel = RedisWheel(settings.redis_url, prefix=settings.topic_prefix)

    async def opened() -> bool:
        sizes = [await wheel.size(shard) for shard in range(settings.partitions)]
        return all(size.gen is not None for size in sizes)

    try:
        await until(opened, "all wheels", every_s=0.1)
    finally:
        await wheel.close()


async def some_have_fired(settings: Settings) -> None:
    async def sent() -> bool:
        return bool(await fired(settings))

    await until(sent, "a first event", every_s=0.2)


async def all_is_overdue(settings: Settings, published: Published) -> None:
    connection = await asyncpg.connect(settings.postgres_dsn)

    async def overdue() -> bool:
        row = await connection.fetchrow(
            """
            select count(*) as planned, count(*) filter (
                where scheduled_for > now() - ($1::int + 500) * interval '1 millisecond'
            ) as waiting
            from pod_activities
            """,
            AFTER_MS,
        )
        assert row is not None
        return bool(row["planned"] == len(published.due) and not row["waiting"])

    try:
        await until(overdue, "all overdue", every_s=0.2)
    finally:
        await connection.close()


async def statuses(settings: Settings) -> dict[str, list[EngagementStatus]]:
    """Those of each activity, in the order in which they were sent."""
    found: dict[str, list[EngagementStatus]] = defaultdict(list)
    for record in await read(settings, settings.topics.engagement_status):
        status = decode(EngagementStatus, record.value)
        found[status.activity_id].append(status)
    return found


async def test_a_backlog_is_paced_again(environment: dict[str, str], settings: Settings) -> None:
    environment = environment | catching_up("paced")
    async with after_an_outage(environment, settings, seed=31) as (published, back_at):
        await settled(settings, published)
        # Each once, never early, and the cap is kept by the new times too.
        await judge(settings, published)
    shifts: dict[str, set[int]] = defaultdict(set)
    likes: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for told in (await statuses(settings)).values():
        # By id, since there may be copies; the second may come after `dispatched`.
        waits = {each.event_id: each for each in told if each.status == "scheduled"}
        moved = [each for each in waits.values() if each.at >= back_at]
        if not moved:
            continue  # it had fired before the outage
        second = moved[0]
        first = [each for each in waits.values() if each.at < back_at][-1]
        assert first.scheduled_for is not None
        assert second.scheduled_for is not None
        was_ms, new_ms = millis(first.scheduled_for), millis(second.scheduled_for)
        assert second.event_id == f"{second.activity_id}:scheduled:1:{new_ms}"
        assert second.reason is not None
        assert "postponed" in second.reason
        if told[0].engagement_type == "comment":
            shifts[told[0].post_id].add(new_ms - was_ms)
        else:
            likes[told[0].post_id].append((was_ms, new_ms))
    assert len(shifts) > 1
    assert all(len(by_ms) == 1 for by_ms in shifts.values()), "comments of a post were pushed up"
    for pairs in likes.values():
        assert sorted(pairs) == sorted(pairs, key=lambda pair: (pair[1], pair[0])), "out of order"


async def test_a_backlog_is_given_up(environment: dict[str, str], settings: Settings) -> None:
    environment = environment | catching_up("expire")
    connection = await asyncpg.connect(settings.postgres_dsn)

    async def over() -> bool:
        return not await connection.fetchval(
            "select count(*) from pod_activities where status = 'scheduled'"
        )

    try:
        async with after_an_outage(environment, settings, seed=32) as (published, _):
            await until(over, "all fired or expired", every_s=0.2)
            await nothing_waits(settings)
        rows = await connection.fetch("select id, status, last_error from pod_activities")
    finally:
        await connection.close()
    sent = [event["activity_id"] for event in await fired(settings)]
    expired = {str(row["id"]) for row in rows if row["status"] == "expired"}
    assert len(sent) == len(set(sent)), "twice"
    assert set(sent).isdisjoint(expired), "sent and given up"
    assert len(sent) + len(expired) == len(rows) == len(published.due)
    assert expired
    told = await statuses(settings)
    for row in rows:
        if row["status"] == "expired":
            last = told[str(row["id"])][-1]
            assert (last.status, last.reason) == ("expired", row["last_error"])
            assert last.reason is not None
            assert last.reason.endswith("late")


async def nothing_waits(settings: Settings) -> None:
    async with Redis.from_url(settings.redis_url) as redis:

        async def empty() -> bool:
            names = [key async for key in redis.scan_iter(f"{settings.topic_prefix}wheel:*")]
            return not any(b":s:" in key or key.endswith(b":held") for key in names)

        await until(empty, "a wheel in which nothing waits", every_s=0.1)
