"""The stores held against each other on real parts: silent under load, not where they differ."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.request import urlopen

import asyncpg
import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.cli.rebuild import rebuilt_shards
from pod_automation.processes import dispatcher
from pod_automation.reconciling import reconciler
from scheduler.adapters.redis_keys import ShardKeys
from scheduler.adapters.redis_wheel import SLOT_MS
from scheduler.findings import ShardReport
from scheduler.settings import ENV_PREFIX, Settings, load_settings
from scheduler.timer import Timer, pack
from schemas.events import EngagementType
from schemas.ids import activity_id
from tests.integration.scenario import EngineProcess, fired, publish, running
from tests.integration.test_cli import pod_automation
from tests.integration.test_life import EXECUTOR, LIFE, ended
from tests.integration.worker_bench import event, producing, until
from tests.unit.test_quick_look import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Likes are sent at once, and wait for results that never come; comments wait for hours.
HALF_SENT = {
    "POD_AUTOMATION_LIKE_MIN_DELAY_MS": "0",
    "POD_AUTOMATION_LIKE_MAX_DELAY_MS": "0",
    "POD_AUTOMATION_LIKE_MAX_MEMBERS_PER_HOUR": "100",
    "POD_AUTOMATION_SESSION_TIMEOUT_MS": "30000",
}
POSTS, MEMBERS = 12, 5


def settings_of(environment: Mapping[str, str]) -> Settings:
    names = {name.removeprefix(ENV_PREFIX).lower(): value for name, value in environment.items()}
    return load_settings(**names)


async def look(
    settings: Settings, timeout_s: float = 0.3, *, shards: Iterable[int] | None = None
) -> dict[int, ShardReport]:
    async with reconciler(settings, timeout_s=timeout_s, first=100) as looking:
        return {
            shard: await looking.run_once(shard)
            for shard in (range(settings.partitions) if shards is None else shards)
        }


@pytest.mark.nightly
async def test_nothing_is_found_under_load(environment: dict[str, str], settings: Settings) -> None:
    environment = environment | LIFE
    async with running(environment, workers=1, dispatchers=1) as processes:
        executor = EngineProcess("executor", environment, *EXECUTOR)
        processes.append(executor)
        await executor.start()

        async def load() -> None:
            await ended(settings, await publish(settings, 250, seed=21, over_s=12, most_members=20))

        loading = asyncio.create_task(load())
        looks: list[ShardReport] = []
        async with reconciler(settings_of(environment), timeout_s=60, first=10) as looking:
            while not loading.done():
                looks += [await looking.run_once(shard) for shard in range(settings.partitions)]
            await loading
        for each in looks:
            assert each.counts == {}, each.first
            assert each.undecided == {}
        assert len(looks) > 20
        assert min(sum(getattr(each, name) for each in looks) for name in LOOKED_AT) > 300


LOOKED_AT = ("rows", "timers", "awaited")


class World:
    """An engine at rest: rows, timers and deadlines in every shard, and no process."""

    def __init__(
        self, settings: Settings, redis: "Redis", connection: "asyncpg.Connection[Any]"
    ) -> None:
        self.settings = settings
        self.redis = redis
        self.connection = connection
        self.shard = 0
        self.undo: list[str] = []

    @property
    def keys(self) -> ShardKeys:
        return ShardKeys.of(self.settings.topic_prefix, self.shard)

    async def row(self, status: str) -> Any:
        return await self.connection.fetchrow(
            "select *, (extract(epoch from scheduled_for) * 1000)::bigint as due_ms"
            " from pod_activities where source_partition = $1 and status = $2 order by id limit 1",
            self.shard,
            status,
        )

    async def timer(self, status: str) -> Timer:
        row = await self.row(status)
        kind: EngagementType = row["engagement_type"]
        return Timer(
            str(row["id"]),
            row["pod_id"],
            row["post_id"],
            row["member_id"],
            kind,
            row["attempt"],
            row["due_ms"],
        )

    async def put(self, timer: Timer) -> None:
        slot, at = divmod(timer.due_ms, SLOT_MS)
        await self.redis.zadd(f"{self.keys.slot_prefix}{slot}", {pack(timer): at})
        await self.redis.zadd(self.keys.slots, {str(slot): slot})

    async def drop(self, timer: Timer) -> None:
        key = f"{self.keys.slot_prefix}{timer.due_ms // SLOT_MS}"
        assert await self.redis.zrem(key, pack(timer)) == 1

    async def change(self, status: str, assignment: str, undo: str = "") -> None:
        """By hand, one row of that status; `undo` is what the advice says."""
        row = await self.row(status)
        what = f"update pod_activities set {{}} where id = '{row['id']}'"  # noqa: S608
        await self.connection.execute(what.format(assignment))
        if undo:
            self.undo.append(what.format(undo))

    async def offset(self, topic: str, change: str) -> None:
        await self.connection.execute(
            f"update ingested_offsets set last_offset = {change}"  # noqa: S608
            " where topic = $1 and partition = $2",
            topic,
            self.shard,
        )


FOREIGN = Timer(activity_id("p", "q", "r", "like"), "p", "q", "r", "like", 1, 4_000_000_000_000)


async def _delete_timer(world: World) -> None:
    await world.drop(await world.timer("scheduled"))


async def _drop_slot(world: World) -> None:
    timer = await world.timer("scheduled")
    key = f"{world.keys.slot_prefix}{timer.due_ms // SLOT_MS}"
    assert await world.redis.zcard(key) == 1
    await world.redis.delete(key)


async def _forget_slot(world: World) -> None:
    timer = await world.timer("scheduled")
    slot = timer.due_ms // SLOT_MS
    assert await world.redis.zcard(f"{world.keys.slot_prefix}{slot}") == 1
    await world.redis.zrem(world.keys.slots, str(slot))


async def _add_foreign(world: World) -> None:
    await world.put(FOREIGN)


async def _move(world: World) -> None:
    timer = await world.timer("scheduled")
    await world.drop(timer)
    await world.put(replace(timer, due_ms=timer.due_ms + 60_000))


async def _double(world: World) -> None:
    timer = await world.timer("scheduled")
    await world.put(replace(timer, due_ms=timer.due_ms + 60_000))


async def _other_attempt(world: World) -> None:
    timer = await world.timer("scheduled")
    await world.drop(timer)
    await world.put(replace(timer, attempt=2))


async def _watermark_back(world: World) -> None:
    await world.redis.hincrby(world.keys.meta, f"at:{world.settings.topics.post_detected}", -1)


async def _watermark_ahead(world: World) -> None:
    await world.redis.hincrby(world.keys.meta, f"at:{world.settings.topics.post_detected}", 5)


async def _no_gen(world: World) -> None:
    await world.redis.hdel(world.keys.meta, "gen")


async def _other_gen(world: World) -> None:
    await world.redis.hset(world.keys.meta, "gen", "theirs")


async def _seq_back(world: World) -> None:
    await world.redis.hincrby(world.keys.meta, "seq", -1)


async def _other_nonce(world: World) -> None:
    await world.redis.hset(world.keys.meta, "nonce", "theirs")


async def _delete_deadline(world: World) -> None:
    assert await world.redis.zrem(world.keys.awaited, pack(await world.timer("dispatched")))


async def _move_deadline(world: World) -> None:
    packed = pack(await world.timer("dispatched"))
    await world.redis.zincrby(world.keys.awaited, 86_400_000, packed)


async def _foreign_deadline(world: World) -> None:
    await world.redis.zadd(world.keys.awaited, {pack(FOREIGN): FOREIGN.due_ms})


async def _deadline_of_waiting(world: World) -> None:
    timer = await world.timer("scheduled")
    await world.redis.zadd(world.keys.awaited, {pack(timer): FOREIGN.due_ms})


async def _delete_waiting_row(world: World) -> None:
    row = await world.row("scheduled")
    await world.connection.execute("delete from pod_activities where id = $1", row["id"])


async def _delete_sent_row(world: World) -> None:
    row = await world.row("dispatched")
    await world.connection.execute("delete from pod_activities where id = $1", row["id"])


async def _end_waiting_row(world: World) -> None:
    await world.change("scheduled", "status = 'executed'")


async def _end_sent_row(world: World) -> None:
    await world.change("dispatched", "status = 'failed'")


async def _move_row(world: World) -> None:
    await world.change("scheduled", "scheduled_for = scheduled_for + interval '1 hour'")


async def _row_of_next_attempt(world: World) -> None:
    await world.change("scheduled", "status = 'retrying', attempt = 2")


async def _never_sent(world: World) -> None:
    await world.change(
        "scheduled",
        "status = 'dispatched', dispatched_at = now()",
        undo="status = 'scheduled', dispatched_at = null",
    )


async def _never_sent_nor_dated(world: World) -> None:
    await world.change("scheduled", "status = 'dispatched'", undo="status = 'scheduled'")


async def _set_back(world: World) -> None:
    await world.change("dispatched", "status = 'scheduled'", undo="status = 'dispatched'")


async def _set_back_and_lost(world: World) -> None:
    await _delete_deadline(world)
    await world.change("dispatched", "status = 'scheduled'", undo="status = 'dispatched'")


async def _no_time(world: World) -> None:
    row = await world.row("scheduled")
    undo = f"scheduled_for = '{row['scheduled_for'].isoformat()}'"
    await world.change("scheduled", "scheduled_for = null", undo=undo)


async def _projection_back(world: World) -> None:
    await world.offset(world.settings.topics.engagement_status, "-1")


async def _projection_ahead(world: World) -> None:
    await world.offset(world.settings.topics.engagement_status, "last_offset + 1000")
    world.undo.append(
        "update ingested_offsets set last_offset = last_offset - 1000 where last_offset > 1000"
    )


async def _record_back(world: World) -> None:
    await world.offset(world.settings.topics.post_detected, "last_offset - 1")
    world.undo.append(
        "update ingested_offsets set last_offset = last_offset + 1"  # noqa: S608
        f" where topic = '{world.settings.topics.post_detected}' and partition = {world.shard}"
    )


async def _record_ahead(world: World) -> None:
    await world.offset(world.settings.topics.post_detected, "last_offset + 1000")
    world.undo.append(
        "update ingested_offsets set last_offset = last_offset - 1000 where last_offset > 1000"
    )


HEALED: dict[Callable[[World], Awaitable[None]], dict[str, int]] = {
    _delete_timer: {"missing_timer": 1},
    _drop_slot: {"missing_timer": 1},
    _forget_slot: {"missing_timer": 1},
    _add_foreign: {"timer_without_row": 1},
    _move: {"timer_elsewhere": 1},
    _double: {"timer_twice": 1},
    _other_attempt: {"other_attempt": 1},
    _watermark_back: {"wheel_behind": 1},
    _watermark_ahead: {"wheel_ahead": 1},
    _no_gen: {"no_wheel": 1},
    _other_gen: {"cursor": 1},
    _seq_back: {"cursor": 1},
    _other_nonce: {"cursor": 1},
    _delete_deadline: {"missing_deadline": 1},
    _move_deadline: {"deadline_elsewhere": 1},
    _foreign_deadline: {"deadline_without_row": 1},
    _deadline_of_waiting: {"deadline_of_other_row": 1},
    _delete_waiting_row: {"timer_without_row": 1},
    _delete_sent_row: {"deadline_without_row": 1},
    _end_waiting_row: {"timer_of_ended_row": 1},
    _end_sent_row: {"deadline_of_other_row": 1},
    _move_row: {"timer_elsewhere": 1},
    _row_of_next_attempt: {"other_attempt": 1},
    _projection_back: {"projection_behind": 1},
}
NOT_HEALED: dict[Callable[[World], Awaitable[None]], dict[str, int]] = {
    _never_sent: {"never_sent": 1},
    _never_sent_nor_dated: {"row_without_time": 1},
    _set_back: {"sent_before": 1},
    _set_back_and_lost: {"sent_before": 1},
    _no_time: {"row_without_time": 1},
    _projection_ahead: {"projection_ahead": 1},
    _record_ahead: {"record_ahead": 1, "wheel_behind": 1},
}


@asynccontextmanager
async def at_rest(environment: dict[str, str], settings: Settings) -> AsyncIterator[World]:
    """Half of what was asked for has been sent, and all processes have ended."""
    async with running(environment, workers=1, dispatchers=1) as processes:
        members = [f"member-{number}" for number in range(MEMBERS)]
        async with producing(settings) as producer:
            for number in range(POSTS):
                value = event(number, members, detected_at=_now())
                await producer.send_and_wait(
                    settings.topics.post_detected, value, partition=number % settings.partitions
                )
        connection = await asyncpg.connect(settings.postgres_dsn)

        async def done() -> bool:
            found = await connection.fetch(
                "select status, count(*) as n from pod_activities group by status"
            )
            wanted = POSTS * MEMBERS
            return {row["status"]: row["n"] for row in found} == {
                "scheduled": wanted,
                "dispatched": wanted,
            }

        await until(done, "half of it sent", every_s=0.1)
        # Settled as well, and acked.
        await until(lambda: _agrees(settings), "stores that agree", every_s=0.1)
        assert [await process.stop() for process in processes] == [0, 0]
    async with Redis.from_url(settings.redis_url) as redis:
        yield World(settings, redis, connection)
    await connection.close()


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat()


async def _agrees(settings: Settings) -> bool:
    reports = await look(settings)
    return all(each.agrees and not each.undecided for each in reports.values())


@asynccontextmanager
async def firing(settings: Settings) -> AsyncIterator[None]:
    """A dispatcher at work."""
    stop = asyncio.Event()
    async with dispatcher(settings) as made:
        working = asyncio.create_task(made.run(stop))
        try:
            yield
        finally:
            stop.set()
            await working


@pytest.mark.nightly
@pytest.mark.parametrize("part", range(2))
async def test_each_damage_is_told_and_healed(
    environment: dict[str, str], settings: Settings, part: int
) -> None:
    environment = environment | HALF_SENT
    settings = settings_of(environment)
    async with at_rest(environment, settings) as world:
        shards = [world.shard]
        sent = sorted(_of(each) for each in await fired(settings))
        for damage, expected in list(HEALED.items())[part::2]:
            await damage(world)
            reports = await look(settings, shards=shards)
            assert counts(reports, world.shard) == expected, damage.__name__
            assert reports[world.shard].heals, damage.__name__
            assert not reports[world.shard].blocked, damage.__name__
            async with firing(settings):
                assert await rebuilt_shards(settings, shards, 30, print), damage.__name__
                reports = await look(settings, 10, shards=shards)
            assert counts(reports, world.shard) == {}, (damage.__name__, reports[world.shard])
        assert counts(await look(settings), world.shard) == {}
        assert sorted(_of(each) for each in await fired(settings)) == sent, "sent again, or early"


async def test_what_a_rebuild_would_harm_is_left_alone(
    environment: dict[str, str], settings: Settings
) -> None:
    environment = environment | HALF_SENT
    settings = settings_of(environment)
    async with at_rest(environment, settings) as world:
        shards = [world.shard]
        for damage, expected in NOT_HEALED.items():
            await damage(world)
            reports = await look(settings, shards=shards)
            assert counts(reports, world.shard) == expected, damage.__name__
            if damage is not _record_ahead:
                assert not reports[world.shard].heals or reports[world.shard].blocked
            for statement in world.undo:
                await world.connection.execute(statement)
            world.undo.clear()
            if damage is _set_back_and_lost:
                async with firing(settings):
                    assert await rebuilt_shards(settings, shards, 30, print)
            assert counts(await look(settings, shards=shards), world.shard) == {}, damage.__name__


async def test_records_that_were_acked_and_are_not_applied(
    environment: dict[str, str], settings: Settings
) -> None:
    environment = environment | HALF_SENT
    settings = settings_of(environment)
    async with at_rest(environment, settings) as world:
        await _record_back(world)
        found = counts(await look(settings), world.shard)
        assert found == {"acked_ahead": 1, "wheel_ahead": 1}


async def test_the_command(environment: dict[str, str], settings: Settings) -> None:
    environment = environment | HALF_SENT
    settings = settings_of(environment)
    async with at_rest(environment, settings) as world:
        command = ("reconcile", "--timeout", "1")
        outcome = await pod_automation(environment, *command)
        assert (outcome.code, outcome.err) == (ExitCode.OK, "")
        assert "none" in outcome.out
        await _delete_timer(world)
        outcome = await pod_automation(environment, *command, "--shard", "0")
        assert outcome.code == ExitCode.DIFFERENT
        assert "1 missing_timer: Redis has lost it" in outcome.out
        outcome = await pod_automation(environment, *command, "--json")
        assert outcome.code == ExitCode.DIFFERENT
        shards = json.loads(outcome.out)["shards"]
        assert [each["agrees"] for each in shards] == [False, True, True, True]
        (found,) = shards[0]["first"]
        assert found["postgresql"]["status"] == "scheduled"
        assert found["redis"] is None
        assert found["rebuild_heals"]
        # Nobody is there to rebuild it.
        outcome = await pod_automation(environment, *command, "--repair")
        assert outcome.code == ExitCode.DIFFERENT
        async with firing(settings):
            await until(lambda: _agrees(settings), "it rebuilt", every_s=0.1)
            await _add_foreign(world)
            outcome = await pod_automation(environment, "reconcile", "--repair", "--json")
        assert outcome.code == ExitCode.OK
        assert json.loads(outcome.out)["shards"][0]["repaired"]
        await _set_back(world)
        outcome = await pod_automation(environment, *command, "--repair")
        assert outcome.code == ExitCode.DIFFERENT
        assert "a rebuild would send it again" in outcome.out


async def test_a_worker_looks_by_itself(environment: dict[str, str], settings: Settings) -> None:
    port = free_port()
    environment = environment | {**HALF_SENT, "POD_AUTOMATION_RECONCILE_INTERVAL_MS": "200"}
    settings = settings_of(environment)
    # Of the worker alone: a dispatcher would serve its own there.
    watched = environment | {"POD_AUTOMATION_METRICS_PORT": str(port)}

    async def shown(line: str) -> bool:
        try:
            return line in await asyncio.to_thread(metrics, port)
        except OSError:
            return False

    async with at_rest(environment, settings) as world:
        await _delete_timer(world)
        async with (
            running(watched, workers=1, dispatchers=0),
            running(environment, workers=0, dispatchers=1),
        ):
            name = "pod_automation_reconcile_differences"
            await until(lambda: shown(f'{name}{{kind="waiting",shard="0"}} 1.0'), "it told")
            assert await shown(f'{name}{{kind="waiting",shard="1"}} 0.0')
            assert await shown(f'{name}{{kind="awaited",shard="0"}} 0.0')
            assert await rebuilt_shards(settings, [0], 30, print)
            await until(lambda: shown(f'{name}{{kind="waiting",shard="0"}} 0.0'), "it healed")


def metrics(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def counts(reports: Mapping[int, ShardReport], shard: int) -> dict[str, int]:
    """What was found in `shard`; nothing may be found elsewhere."""
    for number, each in reports.items():
        if number != shard:
            assert each.counts == {}, each.first
    return {kind.value: count for kind, count in reports[shard].counts.items()}


def _of(sent: Mapping[str, Any]) -> tuple[str, int]:
    return sent["activity_id"], sent["attempt"]
