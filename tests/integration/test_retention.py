"""Retention on real PostgreSQL: what is removed, what is remembered, and who may be beside."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from random import Random
from typing import Any, TypeAlias
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import orjson
import pytest

from pod_automation.cli.exit_codes import ExitCode
from scheduler.activity import FINAL, PostPlan, Status
from scheduler.adapters.postgres_lease import PostgresLease, lock_number
from scheduler.adapters.postgres_pool import COMMAND_TIMEOUT_S
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.adapters.postgres_retention import PostgresRetention
from scheduler.errors import StoreUnavailableError
from scheduler.planner import plan
from scheduler.policy import PacingPolicy
from scheduler.retention import Limits, Retention, Settled
from scheduler.settings import Settings
from scheduler.tasks import ended
from schemas.events import PostDetected
from schemas.ids import activity_id
from schemas.times import moment, rfc3339
from tests.contract.recording import DUE_MS, SHARD, TOPIC, members
from tests.fixtures.postgres import until
from tests.integration.test_cli import pod_automation, result_of, running

pytestmark = pytest.mark.timeout(240)

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

DAY_S = 86_400
LIMITS = Limits(executed_count=5, executed_days=7, failed_count=3, failed_days=30)
WAITING = [status for status in Status if status not in FINAL]


async def all_settled() -> Settled:
    return Settled({}, {})


@pytest.fixture
async def archive(record_dsn: str) -> AsyncIterator[PostgresRetention]:
    archive = await PostgresRetention.connect(record_dsn)
    yield archive
    await archive.close()


@pytest.fixture
async def record(record_dsn: str) -> AsyncIterator[PostgresRecord]:
    record = await PostgresRecord.connect(record_dsn)
    yield record
    await record.close()


@pytest.fixture
async def admin(record_dsn: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(record_dsn)
    yield connection
    await connection.close()


async def insert(
    admin: Connection,
    *,
    pod: str = "pod",
    status: str = "executed",
    age_s: float = 60,
    post: str = "post",
    kind: str = "like",
    offset: int | None = 1,
    **more: Any,
) -> str:
    """A row that has had its status for `age_s`; returns its id. Without `offset` it is upstream's
    own."""
    member = more.pop("member_id", f"member-{uuid4()}")
    fields: dict[str, Any] = {
        "id": str(uuid4()) if offset is None else activity_id(pod, post, member, kind),
        "pod_id": pod,
        "post_id": post,
        "member_id": member,
        "engagement_type": kind,
        "status": status,
        "source_partition": SHARD,
        "source_offset": offset,
        **more,
    }
    places = ", ".join(f"${at}" for at in range(2, len(fields) + 2))
    return str(
        await admin.fetchval(
            f"insert into pod_activities ({', '.join(fields)}, updated_at, executed_at)"  # noqa: S608
            f" values ({places}, now() - $1 * interval '1 second', case when $7 = 'executed'"
            " then now() - $1 * interval '1 second' end) returning id::text",
            float(age_s),
            *fields.values(),
        )
    )


async def ids(admin: Connection) -> set[str]:
    return {row["id"] for row in await admin.fetch("select id::text from pod_activities")}


def retention(archive: PostgresRetention, limits: Limits = LIMITS, **more: Any) -> Retention:
    return Retention(archive, limits, all_settled, **more)


@pytest.mark.parametrize(("batch", "most_held"), [(1000, 20_000), (2, 3)])
async def test_each_pod_keeps_its_newest(
    archive: PostgresRetention, admin: Connection, batch: int, most_held: int
) -> None:
    random = Random(7)
    kept: set[str] = set()
    counts: Counter[str] = Counter()
    for pod in ("", "a", "a\x01", "aé", "b"):
        ended: dict[bool, list[tuple[float, str, str]]] = {True: [], False: []}
        for _ in range(40):
            status = random.choice(FINAL).value
            # Few different ages: the newest are told apart by their ids.
            age_s = random.randrange(60, 70)
            row = await insert(admin, pod=pod, status=status, age_s=age_s)
            # The clock goes on between two inserts, so ages alone do not order them.
            at = await admin.fetchval("select updated_at from pod_activities where id = $1", row)
            ended[status == "executed"].append((at, row, status))
        for executed, count in ((True, 5), (False, 3)):
            for _, row, status in sorted(ended[executed])[-count:]:
                kept.add(row)
                counts[status] += 1
    before = await ids(admin)
    pruner = retention(archive, batch=batch, most_held=most_held)
    told = await pruner.prune(dry_run=True)
    assert await ids(admin) == before
    done = await pruner.prune()
    assert await ids(admin) == kept
    assert done == told
    assert (done.pods, done.total_removed, dict(done.kept)) == (5, 200 - len(kept), dict(counts))
    again = await pruner.prune()
    assert (again.total_removed, dict(again.kept)) == (0, dict(counts))


async def test_ties_are_broken_by_id(archive: PostgresRetention, admin: Connection) -> None:
    async with admin.transaction():  # in which the clock stands still
        rows = [await insert(admin) for _ in range(20)]
    await retention(archive).prune()
    assert await ids(admin) == set(sorted(rows)[-5:])


async def test_ages(archive: PostgresRetention, admin: Connection) -> None:
    kept = {
        await insert(admin, status=status, age_s=days * DAY_S - 60, pod=status)
        for status, days in (("executed", 7), ("failed", 30), ("cancelled", 30), ("expired", 30))
    }
    for status, days in (("executed", 7), ("failed", 30), ("cancelled", 30), ("expired", 30)):
        await insert(admin, status=status, age_s=days * DAY_S + 1, pod=status)
    done = await retention(archive).prune()
    assert await ids(admin) == kept
    assert dict(done.removed) == dict.fromkeys(FINAL, 1)


async def test_the_end_of_an_executed_one_is_when_it_was_done(
    archive: PostgresRetention, admin: Connection
) -> None:
    """But an executor whose clock is ahead does not keep its rows for ever."""
    late = await insert(admin)
    ahead = await insert(admin, age_s=8 * DAY_S)
    unknown = await insert(admin)
    await admin.execute(
        "update pod_activities set executed_at = now() - interval '8 days' where id = $1", late
    )
    await admin.execute("update pod_activities set executed_at = '2199-01-01' where id = $1", ahead)
    await admin.execute("update pod_activities set executed_at = null where id = $1", unknown)
    await retention(archive).prune()
    assert await ids(admin) == {unknown}


async def test_what_can_fire_is_never_touched(
    archive: PostgresRetention, admin: Connection
) -> None:
    nothing = Limits(0, 0.001, 0, 0.001)
    waiting = {
        await insert(admin, status=status, age_s=1000 * DAY_S, offset=offset)
        for status in WAITING
        for offset in (1, None)
        for _ in range(3)
    }
    for status in FINAL:
        await insert(admin, status=status)
    await admin.execute("select increment_member_engagement('m', 7)")
    done = await retention(archive, nothing, batch=2).prune()
    assert await ids(admin) == waiting
    assert (done.total_removed, dict(done.kept)) == (4, {})
    assert await admin.fetchval("select engagement_count from member_engagement") == 7


async def test_one_pod_alone(archive: PostgresRetention, admin: Connection) -> None:
    for pod in ("a", "b"):
        for _ in range(9):
            await insert(admin, pod=pod)
    done = await retention(archive).prune("a")
    assert (done.pods, done.total_removed) == (1, 4)
    assert len(await ids(admin)) == 14


async def test_any_number_of_days_will_do(archive: PostgresRetention, admin: Connection) -> None:
    row = await insert(admin, age_s=3650 * DAY_S)
    for days in (1e9, float("inf")):
        pass_ = retention(archive, Limits(5, days, 5, days))
        await pass_.run_once()
    assert await ids(admin) == {row}


async def test_what_the_wheel_has_not_got_stays(
    archive: PostgresRetention, admin: Connection
) -> None:
    """Its timer may be there still, and only the row tells that it must go."""
    for offset in (4, 5):
        await insert(admin, status="cancelled", command_offset=offset)
        await insert(admin, result_offset=offset)
    unsettled = {
        await insert(admin, status="cancelled", command_offset=6),
        await insert(admin, result_offset=6),
        await insert(admin, result_offset=1, source_partition=SHARD + 1),
    }

    async def marks() -> Settled:
        return Settled({SHARD: 5}, {SHARD: 5})

    await Retention(archive, Limits(0, 7, 0, 7), marks).prune()
    assert await ids(admin) == unsettled


def detected(members: int, at_ms: int, pod: str = "pod") -> PostDetected:
    return PostDetected(
        event_id="e",
        pod_id=pod,
        post_id="post",
        member_ids=tuple(f"member-{n}" for n in range(members)),
        detected_at=moment(at_ms),
    )


async def test_what_was_pruned_is_not_planned_anew_and_counts_for_the_cap(
    archive: PostgresRetention, record: PostgresRecord, admin: Connection
) -> None:
    policy = PacingPolicy()
    at_ms = time.time_ns() // 1_000_000
    first = plan(detected(4, at_ms), policy, PostPlan(), 0)
    assert await record.apply_plan(TOPIC, SHARD, -1, 0, first) == frozenset()
    retried = next(each for each in first if each.engagement_type == "like")
    await admin.execute(
        "update pod_activities set failures = $2, attempt = 2 where id = $1",
        retried.activity_id,
        orjson.dumps([{"attempt": 1, "due": rfc3339(at_ms - policy.like_cap_window_ms)}]).decode(),
    )
    before = await record.plans(["post"])
    assert len(before["post"].like_times_ms) == 5
    for number, each in enumerate(first):  # one after the other, on top of what is noted
        await admin.execute(
            "update pod_activities set status = $2, executed_at = now() where id = $1",
            each.activity_id,
            "executed" if number % 2 else "failed",
        )
        assert (await retention(archive, Limits(0, 7, 0, 7)).prune()).total_removed == 1
        assert await record.plans(["post", "other"]) == before
    assert await ids(admin) == set()
    # Once more, and with six more members: only theirs are planned, as if the rows were there.
    event = detected(10, at_ms)
    assert plan(detected(4, at_ms), policy, before["post"], 1) == []
    there = (await record.plans(["post"]))["post"]
    second = plan(event, policy, there, 1)
    assert {each.member_id for each in second} == {f"member-{n}" for n in range(4, 10)}
    assert len(second) == 12
    assert await record.apply_plan(TOPIC, SHARD, 0, 1, second) == frozenset()
    likes = (await record.plans(["post"]))["post"].like_times_ms
    assert likes == tuple(sorted(likes))
    assert len(likes) == 11
    for at in range(11 - policy.like_cap):
        assert likes[at + policy.like_cap] - likes[at] >= policy.like_cap_window_ms


async def test_rows_of_an_upstream_system_are_known_under_both_ids(
    archive: PostgresRetention, record: PostgresRecord, admin: Connection
) -> None:
    own = await insert(admin, offset=None, member_id="a", status="cancelled")
    like = await insert(
        admin, offset=None, member_id="b", scheduled_for=moment(DUE_MS), status="failed"
    )
    await insert(admin, offset=None, member_id="c", scheduled_for=moment(DUE_MS), status="expired")
    before = await record.plans(["post"])
    assert before["post"].like_times_ms == (DUE_MS,)
    assert {own, like, activity_id("pod", "post", "a", "like")} < before["post"].activity_ids
    await retention(archive, Limits(0, 7, 0, 7)).prune()
    assert await ids(admin) == set()
    assert await record.plans(["post"]) == before


async def test_pending_rows_do_not_count_for_the_cap(
    record: PostgresRecord, admin: Connection
) -> None:
    await insert(admin, offset=None, status="pending", scheduled_for=moment(DUE_MS))
    assert (await record.plans(["post"]))["post"].like_times_ms == ()


async def test_planned_rows_of_an_upstream_system_are_known_under_both_ids(
    record: PostgresRecord, admin: Connection
) -> None:
    own = await insert(admin, offset=None, status="scheduled", member_id="a")
    found = (await record.plans(["post"]))["post"].activity_ids
    assert found == {own, activity_id("pod", "post", "a", "like")}


async def test_what_has_changed_or_is_locked_stays(
    archive: PostgresRetention, record_dsn: str, admin: Connection
) -> None:
    rows = [await insert(admin, status="failed") for _ in range(4)]
    pages = archive.ended("pod", LIMITS)
    found = [each async for page in pages for each in page]
    assert {each.activity_id for each in found} == set(rows)
    retried, again, locked, left = rows
    await admin.execute("update pod_activities set status = 'retrying' where id = $1", retried)
    await admin.execute("update pod_activities set updated_at = now() where id = $1", again)
    other = await asyncpg.connect(record_dsn)
    try:
        async with other.transaction():
            await other.execute("select from pod_activities where id = $1 for update", locked)
            assert await archive.remove(found) == {Status.FAILED: 1}
    finally:
        await other.close()
    assert await ids(admin) == {retried, again, locked}
    noted = await admin.fetchval("select activity_ids::text[] from pruned_posts")
    assert noted == [left]


async def test_notes_are_forgotten_after_the_longest_age(
    archive: PostgresRetention, admin: Connection
) -> None:
    old = {"", "a", "a\x01", "c"}
    for post in (*old, "b", "d"):
        await admin.execute(
            "insert into pruned_posts (post_id, activity_ids, pruned_at)"
            " values ($1, '{}', now() - $2 * interval '1 day')",
            post,
            30.01 if post in old else 29.99,
        )
    at = None
    pages = 0
    while (at := await archive.forget(at, 2, 30)) is not None:
        pages += 1
    assert pages == 3
    left = {row["post_id"] for row in await admin.fetch("select post_id from pruned_posts")}
    assert left == {"b", "d"}
    assert await retention(archive).forget_some()


async def test_commands_are_kept_by_their_age_and_changes_with_their_activities(
    archive: PostgresRetention, admin: Connection
) -> None:
    kept, gone = await insert(admin), await insert(admin, age_s=8 * 86_400)
    for offset, days in enumerate((364.9, 365.1, 400.0)):
        await admin.execute(
            "insert into commands"
            " (partition, command_offset, event_id, command, scope, issued_at, applied_at)"
            " values (0, $1, 'e:0', 'cancel', 'all', now(), now() - $2 * interval '1 day')",
            offset,
            days,
        )
    await admin.executemany(
        "insert into activity_changes (partition, command_offset, activity_id, was, became)"
        " values (0, 0, $1, 'scheduled', 'cancelled')",
        [(kept,), (gone,)],
    )
    await retention(archive).run_once()
    assert await ids(admin) == {kept}
    changes = await admin.fetch("select activity_id::text as id from activity_changes")
    assert [row["id"] for row in changes] == [kept]
    left = await admin.fetch("select command_offset from commands order by 1")
    assert [row["command_offset"] for row in left] == [0]


async def bulk(admin: Connection, rows: int, *, pods: int = 1, status: str = "executed") -> None:
    """Executed likes of posts with ten members each; their posts and pods are spread."""
    await admin.execute(
        """
        insert into pod_activities (
            id, pod_id, post_id, member_id, engagement_type, status, scheduled_for, executed_at,
            source_partition, source_offset
        )
        select
            gen_random_uuid(), 'pod-' || n % $2, 'old-' || n / 10, 'm-' || n % 10, 'like', $3,
            now(), now() - n * interval '1 millisecond', 0, n
        from generate_series(1, $1) as n
        """,
        rows,
        pods,
        status,
    )
    await admin.execute("analyze pod_activities")


async def noted(admin: Connection) -> tuple[int, int, int]:
    """Ids noted, how many of them differ, and like times noted."""
    row = await admin.fetchrow(
        "select count(*), count(distinct id), (select coalesce(sum(cardinality(like_times_ms)), 0)"
        " from pruned_posts)::bigint from pruned_posts, unnest(activity_ids) as id"
    )
    assert row is not None
    return tuple(row)


async def test_two_at_once(record_dsn: str, admin: Connection) -> None:
    await bulk(admin, 6000, pods=2)
    archives = [await PostgresRetention.connect(record_dsn) for _ in range(3)]
    for each in archives:
        await retention(each).prune(dry_run=True)  # connected, all of them
    passes = await asyncio.gather(
        *(retention(each, batch=50, most_held=700).prune() for each in archives)
    )
    for each in archives:
        await each.close()
    # A pass leaves alone what another one is removing.
    assert sum(each.total_removed for each in passes) == 5990
    assert all(each.total_removed for each in passes)
    assert len(await ids(admin)) == 10
    assert await noted(admin) == (5990, 5990, 5990)


async def test_killed_in_the_middle(
    archive: PostgresRetention, record_dsn: str, admin: Connection
) -> None:
    await bulk(admin, 3000)
    session = (
        "from pg_stat_activity where datname = current_database()"
        " and application_name = 'pod-automation-retention'"
    )
    other = await asyncpg.connect(record_dsn)
    try:
        async with other.transaction():
            # In the middle of a statement: it has removed rows, and waits to note one of them.
            await other.execute("insert into pruned_posts values ('old-150', '{}')")
            pruning = asyncio.create_task(retention(archive, batch=20).prune())
            await until(admin, f"select count(*) > 0 {session} and wait_event_type = 'Lock'")
            await admin.execute(f"select pg_terminate_backend(pid, 5000) {session}")
            with pytest.raises(StoreUnavailableError):
                await pruning
    finally:
        await other.close()
    await admin.execute("delete from pruned_posts where post_id = 'old-150'")
    left = len(await ids(admin))
    assert 5 < left < 3000
    gone = 3000 - left
    assert await noted(admin) == (gone, gone, gone)
    # Cancelled, as by the end of its process.
    pruning = asyncio.create_task(retention(archive, batch=20).prune())
    await until(admin, f"select count(*) < {left} from pod_activities")  # noqa: S608
    pruning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pruning
    assert (await retention(archive, batch=20).prune()).total_removed
    assert len(await ids(admin)) == 5
    assert await noted(admin) == (2995, 2995, 2995)


@pytest.mark.nightly
@pytest.mark.slow
async def test_ingest_goes_on_while_a_hundred_thousand_rows_are_pruned(
    archive: PostgresRetention, record: PostgresRecord, admin: Connection
) -> None:
    """A thousand events a second, as two workers with batches of fifty events apply them."""
    await bulk(admin, 110_000, pods=10)
    slowest_s = 0.0
    events = 0
    loop = asyncio.get_running_loop()
    pruning = asyncio.create_task(
        Retention(archive, Limits(1000, 7, 500, 30), all_settled).prune(), name="prune"
    )

    async def ingest(shard: int) -> None:
        nonlocal slowest_s, events
        at, due_s = -1, loop.time()
        while not pruning.done():
            posts = [f"new-{shard}-{at}-{n}" for n in range(50)]
            began_s = loop.time()
            await record.plans(posts)
            activities = [each for post in posts for each in members(at + 50, 4, post=post)]
            done = await record.apply_plan(TOPIC, shard, at, at + 50, activities)
            slowest_s = max(slowest_s, loop.time() - began_s)
            assert done == frozenset()
            at, events, due_s = at + 50, events + 50, due_s + 0.1
            await asyncio.sleep(max(0.0, due_s - loop.time()))

    began_s = loop.time()
    await asyncio.gather(ingest(0), ingest(1))
    took_s = loop.time() - began_s
    done = await pruning
    print(
        f"{done.total_removed:,} rows in {took_s:.1f} s; {events:,} events,"
        f" {events / took_s:.0f}/s; slowest batch {slowest_s * 1000:.0f} ms"
    )
    assert (done.total_removed, done.kept) == (100_000, {Status.EXECUTED: 10_000})
    assert slowest_s < COMMAND_TIMEOUT_S
    counts = await record.overview()
    assert (counts.executed, counts.scheduled) == (10_000, events * 4)
    assert await noted(admin) == (100_000, 100_000, 100_000)


async def test_one_leads_and_another_takes_over(record_dsn: str, admin: Connection) -> None:
    # It is told of the end of its connection: nothing is asked for in a minute.
    first, second = (PostgresLease(record_dsn, "chores", beat_s=60) for _ in range(2))
    assert await first.acquire()
    assert not await second.acquire()
    other = PostgresLease(record_dsn, "prefix.chores")
    assert await other.acquire()
    lost = asyncio.create_task(first.lost())
    (pid,) = [
        row["pid"]
        for row in await admin.fetch(
            "select pid from pg_locks where locktype = 'advisory' and granted"
            " and (classid::bigint << 32) | objid::bigint = $1",
            lock_number("chores"),
        )
    ]
    await admin.execute("select pg_terminate_backend($1, 5000)", pid)
    await lost
    assert await second.acquire()
    assert not await first.acquire()
    await second.release()
    assert await first.acquire()
    for each in (first, second, other):
        await each.release()


async def test_a_server_that_falls_silent_ends_the_lead(record_dsn: str) -> None:
    """As behind a network that drops everything: the connection does not end by itself."""
    parts = urlsplit(record_dsn)
    talking = asyncio.Event()
    talking.set()
    relays: list[asyncio.Task[None]] = []
    writers: list[asyncio.StreamWriter] = []

    async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(4096):
            await talking.wait()
            to.write(data)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection(parts.hostname, parts.port)
        for source, to in ((reader, outer), (inner, writer)):
            relays.append(asyncio.create_task(pass_on(source, to)))
            writers.append(to)

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    away = urlunsplit(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{port}"))
    lease = PostgresLease(away, "chores", beat_s=0.01, timeout_s=2)
    assert await lease.acquire()
    lost = asyncio.create_task(lease.lost())
    await asyncio.wait([lost], timeout=0.1)
    assert not lost.done()
    talking.clear()
    await lost
    with pytest.raises(StoreUnavailableError):
        await lease.acquire()
    server.close()
    await ended(*relays)
    for writer in writers:
        writer.close()
        await asyncio.wait([asyncio.create_task(writer.wait_closed())])
    await lease.release()


async def test_a_lease_of_a_server_that_is_not_there(unused_tcp_port: int) -> None:
    lease = PostgresLease(f"postgresql://u@127.0.0.1:{unused_tcp_port}/d", "chores")
    with pytest.raises(StoreUnavailableError):
        await lease.acquire()
    await lease.lost()
    await lease.release()


async def seed(settings: Settings, rows: int) -> Connection:
    admin: Connection = await asyncpg.connect(settings.postgres_dsn)
    await bulk(admin, rows, pods=2)
    return admin


FEW: Mapping[str, str] = {"POD_AUTOMATION_COMPLETED_JOB_KEEP_COUNT": "5"}


async def test_prune_by_hand(environment: dict[str, str], settings: Settings) -> None:
    environment = {**environment, **FEW}
    admin = await seed(settings, 40)
    try:
        nothing = {"kept": 0, "removed": 0}
        told = {
            "dry_run": True,
            "pod_id": None,
            "pods": 2,
            "executed": {"kept": 10, "removed": 30},
            **dict.fromkeys(("failed", "cancelled", "expired"), nothing),
        }
        assert await result_of(environment, "prune", "--dry-run") == told
        assert len(await ids(admin)) == 40
        outcome = await pod_automation(environment, "prune", "--pod", "pod-1")
        assert outcome.code == ExitCode.OK
        assert " ".join(outcome.out.split()) == (
            "Pod pod-1 kept removed executed 5 15 failed 0 0 cancelled 0 0 expired 0 0"
        )
        assert len(await ids(admin)) == 25
        done = await result_of(environment, "prune")
        assert done["executed"] == {"kept": 10, "removed": 15}
        assert "would remove" in (await pod_automation(environment, "prune", "--dry-run")).out
    finally:
        await admin.close()


async def test_one_of_the_workers_prunes(environment: dict[str, str], settings: Settings) -> None:
    """And when it ends, another one does."""
    environment = {**environment, **FEW, "POD_AUTOMATION_RETENTION_INTERVAL_MS": "100"}
    five_each = "select count(*) = 10 from pod_activities"
    admin = await seed(settings, 40)
    try:
        async with running(environment, "worker") as first:
            await until(admin, five_each)
            async with running(environment, "worker") as second:
                await until(
                    admin,
                    "select count(*) = 2 from pg_stat_activity where datname = current_database()"
                    " and application_name = 'pod-automation-leader'",
                )
                first.terminate()
                _, log = await first.communicate()
                assert first.returncode == ExitCode.OK, log.decode()
                for _ in range(20):
                    await insert(admin, pod="pod-0", age_s=0)
                await until(admin, five_each)
                second.terminate()
                _, log = await second.communicate()
                assert second.returncode == ExitCode.OK, log.decode()
        await until(admin, "select count(*) = 0 from pg_locks where locktype = 'advisory'")
    finally:
        await admin.close()


def test_lock_numbers_fit() -> None:
    numbers = {lock_number(f"{n}.chores") for n in range(100)}
    assert len(numbers) == 100
    assert all(-(1 << 63) <= each < 1 << 63 for each in numbers)
