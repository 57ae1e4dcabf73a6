"""How long a shard waits when its process stops or dies, and another one takes it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from bench.harness import Bench
from bench.results import Figure
from bench.site import Process, Site
from bench.steady import FEEDS, Done
from schemas.times import millis

SESSIONS_MS = (6000, 1500)
ASSIGNED = {
    "dispatcher": "shards assigned",
    "worker": "partitions assigned",
    "executor": "partitions assigned",
}
"""What each kind logs at every assignment; its first list are the shards."""

SETTLED_S = 1.5
AFTER_S = 1.0
"""When the fault comes, after the first piece of work."""

PROMISE_MS = 1000
"""A stop gives its shards away within this; a death within the session time-out and this."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The latest piece of work, in milliseconds: of the shards that changed hands, of those that
    stayed where they were, and before anything happened."""

    moved: int
    stayed: int
    before: int
    taken: int | None
    """From the signal until the other process had the last of the shards; None: it got none."""


Strike = Callable[[Process], Awaitable[None]]


async def run(bench: Bench) -> Sequence[Figure]:
    """Two processes of a kind under a steady load; SIGTERM or kill -9 to one of them."""
    figures: list[Figure] = []
    for command in FEEDS:
        for session_ms in SESSIONS_MS[: bench.of(2, 1)]:
            async with bench.site() as site, AsyncExitStack() as stack:
                await site.open_wheels({})
                both = await stack.enter_async_context(pair(site, command, session_ms))
                for name, strike, limit_ms in (
                    ("SIGTERM", stop, PROMISE_MS),
                    ("kill -9", kill, session_ms + PROMISE_MS),
                ):
                    what = f"{command}, session {session_ms / 1000:g} s, {name}"
                    seconds = 3 if strike is stop else 3 + session_ms // 1000
                    once = partial(one, site, both, command, strike, seconds)
                    found = await bench.each_repeat(what, once)
                    figures.append(figure(what, found, limit_ms))
    return figures


def figure(what: str, found: Sequence[Pause], limit_ms: int | None) -> Figure:
    """The latest work of the shards that changed hands."""
    return Figure(
        name=what,
        unit="ms",
        values=[each.moved for each in found],
        goal=limit_ms,
        better="less",
        notes={
            "shards that stayed, ms": [each.stayed for each in found],
            "before, ms": [each.before for each in found],
            "until the other process had the last of them, ms": [each.taken for each in found],
        },
    )


@asynccontextmanager
async def pair(
    site: Site, command: str, session_ms: int, instance_id: str = "", **settings: object
) -> AsyncIterator[list[Process]]:
    """Two processes of a kind, and their shards between them. A * in `instance_id` stands for the
    name of each."""
    async with AsyncExitStack() as stack:
        both = [
            await stack.enter_async_context(
                site.process(
                    command,
                    session_timeout_ms=session_ms,
                    instance_id=instance_id.replace("*", name),
                    **settings,
                )
            )
            for name in ("a", "b")
        ]
        await balanced(both, len(site.shards))
        yield both


async def balanced(processes: Sequence[Process], shards: int, settled_s: float = SETTLED_S) -> None:
    """Wait until each of them has some of the shards, and all of them are somebody's."""
    async with asyncio.timeout(60):
        while True:
            theirs = [await shards_of(each) if each.running else frozenset() for each in processes]
            if all(theirs) and sum(map(len, theirs)) == shards:
                break
            await asyncio.sleep(0.1)
    await asyncio.sleep(settled_s)


async def shards_of(process: Process) -> frozenset[int]:
    """What the last assignment in its log gave it."""
    text = process.log.read_text("utf-8") if process.log.exists() else ""
    lines = [line for line in text.splitlines() if ASSIGNED[process.command] in line]
    found = re.search(r"(?:shards|partitions)='?\[([\d, ]*)\]", lines[-1]) if lines else None
    return (
        frozenset(int(each) for each in found[1].split(",") if each.strip())
        if found
        else (frozenset())
    )


async def stop(process: Process) -> None:
    """SIGTERM."""
    await process.stop()


async def kill(process: Process) -> None:
    """kill -9."""
    await process.kill()


async def kill_and_restart(process: Process) -> None:
    """kill -9, and another one at once."""
    await process.kill()
    await again(process)


async def again(process: Process) -> None:
    """Start it, with a new log."""
    process.log.unlink()
    await process.start()


async def one(
    site: Site, both: Sequence[Process], command: str, strike: Strike, seconds: int
) -> Pause:
    """Strike the first of two processes in mid-work, and have it back afterwards."""
    victim = both[0]
    theirs = await shards_of(victim)
    done = await FEEDS[command](site, seconds, AFTER_S, partial(strike, victim))
    struck_ms = victim.struck_ms
    taken_ms = last_taken(both[1]) - struck_ms if not victim.running else None
    if not victim.running:
        await again(victim)
    await balanced(both, len(site.shards))
    return pause(done, theirs, struck_ms, taken_ms)


def last_taken(process: Process) -> int:
    """When it last got shards, in milliseconds UTC."""
    words = "shard taken" if process.command == "dispatcher" else ASSIGNED[process.command]
    lines = [line for line in process.log.read_text("utf-8").splitlines() if words in line]
    return millis(datetime.fromisoformat(lines[-1].split()[1]))


def pause(
    done: Sequence[Done], moved: frozenset[int], fault_ms: int, taken_ms: int | None
) -> Pause:
    """`fault_ms`: when the process was told, in milliseconds UTC."""
    before = [each.late_ms for each in done if each.due_ms + each.late_ms < fault_ms]
    after = [each for each in done if each.due_ms + each.late_ms >= fault_ms]
    return Pause(
        moved=max(each.late_ms for each in after if each.shard in moved),
        stayed=max((each.late_ms for each in after if each.shard not in moved), default=0),
        before=max(before, default=0),
        taken=taken_ms,
    )
