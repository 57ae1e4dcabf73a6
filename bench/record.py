"""How fast the record is: `python -m bench.record [rows]`, in a throw-away database.

Needs POD_AUTOMATION_POSTGRES_DSN to name a server on which databases may be made.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable
from random import Random
from statistics import median
from time import perf_counter
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
from rich.console import Console
from rich.table import Table

from scheduler.activity import PlannedActivity, Status, StatusChange
from scheduler.adapters.postgres_record import PostgresRecord
from scheduler.migrations import migrate
from scheduler.settings import ENV_PREFIX
from schemas.events import EngagementType
from schemas.ids import activity_id

POSTS, MEMBERS = 100, 20
TYPES: tuple[EngagementType, ...] = ("like", "comment")
BATCH = POSTS * MEMBERS * len(TYPES)
FIRED = 2000
DUE_MS = 1_900_000_000_000


def batch(first_offset: int) -> list[PlannedActivity]:
    """One event a post, ids of real size, members of one pod."""
    pod, members = str(uuid4()), [str(uuid4()) for _ in range(MEMBERS)]
    return [
        PlannedActivity(activity_id(pod, post, member, kind), pod, post, member, kind, DUE_MS, at)
        for at, post in enumerate((str(uuid4()) for _ in range(POSTS)), first_offset)
        for member in members
        for kind in TYPES
    ]


async def timed(call: Awaitable[object]) -> float:
    began = perf_counter()
    result = await call
    assert result is not None
    assert result is not False
    return perf_counter() - began


async def measure(record: PostgresRecord, admin: asyncpg.Connection, rows: int) -> Table:
    took: dict[str, list[float]] = {}
    at, moved = -1, -1
    waiting: list[PlannedActivity] = []
    random = Random(1)
    for _ in range(rows // BATCH):
        activities = batch(at + 1)
        posts = list({each.post_id for each in activities})
        took.setdefault("plans of new posts", []).append(await timed(record.plans(posts)))
        applied = record.apply_plan("in", 0, at, at + POSTS, activities)
        took.setdefault("apply_plan", []).append(await timed(applied))
        at += POSTS
        took.setdefault("plans of known posts", []).append(await timed(record.plans(posts)))
        back = record.unfired_between(0, at - POSTS, at)
        took.setdefault("unfired_between", []).append(await timed(back))
        # What falls due at one time was planned at many.
        waiting += activities
        random.shuffle(waiting)
        changes = [
            StatusChange(each.activity_id, Status.DISPATCHED, 1, DUE_MS)
            for each in (waiting.pop() for _ in range(FIRED))
        ]
        projected = record.project("out", 0, moved, moved + FIRED, changes)
        took.setdefault("project", []).append(await timed(projected))
        moved += FIRED

    table = Table("call", "rows", "median ms", "fastest ms", "rows/s")
    for name, seconds in took.items():
        size = FIRED if name == "project" else BATCH
        table.add_row(*row(name, size, median(seconds), min(seconds)))
    began, loaded = perf_counter(), 0
    async with record.snapshot(0) as snapshot:
        async for timers in snapshot.unfired(5000):
            loaded += len(timers)
    table.add_row(*row("snapshot, whole shard", loaded, perf_counter() - began))
    whole = await timed(record.overview())
    table.add_row(*row("overview", (at + 1) * BATCH // POSTS, whole))
    await admin.execute("select pg_stat_force_next_flush()")
    hot = await admin.fetchrow(
        "select n_tup_upd, n_tup_hot_upd, pg_total_relation_size(relid) / n_live_tup as bytes"
        " from pg_stat_user_tables where relname = 'pod_activities'"
    )
    assert hot is not None
    table.caption = (
        f"{hot['n_tup_hot_upd'] / hot['n_tup_upd']:.0%} of the status updates heap-only;"
        f" {hot['bytes']} bytes a row with all indexes"
    )
    return table


def row(name: str, rows: int, typical: float, fastest: float | None = None) -> list[str]:
    best = "" if fastest is None else f"{fastest * 1000:.1f}"
    return [name, f"{rows:,}", f"{typical * 1000:.1f}", best, f"{rows / typical:,.0f}"]


async def main(rows: int) -> None:
    server = os.environ[ENV_PREFIX + "POSTGRES_DSN"]
    name = f"bench{uuid4().hex}"
    admin = await asyncpg.connect(server)
    await admin.execute(f"create database {name}")
    dsn = urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    try:
        await migrate(dsn)
        record = await PostgresRecord.connect(dsn)
        inside = await asyncpg.connect(dsn)
        Console().print(await measure(record, inside, rows))
        await inside.close()
        await record.close()
    finally:
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000))
