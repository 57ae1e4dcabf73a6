"""Whether worker and dispatcher keep their size: memory over a long run of steady work."""

import asyncio
import time
from collections.abc import Sequence
from statistics import median

import psutil  # type: ignore[import-untyped]

from bench.harness import Bench
from bench.load import MEMBERS, World
from bench.results import MIB, Figure
from bench.rolling import PACING
from bench.site import Process, Site
from bench.steady import produce
from schemas.codec import encode
from schemas.events import PostDetected
from schemas.times import moment

SECONDS, FEW_SECONDS = 600, 40
EVENTS_PER_S = 100
EACH_S = 2.0
"""Between two looks."""

WARM = 0.2
"""Share of the run in which a process may still find its size."""


async def run(bench: Bench) -> Sequence[Figure]:
    """A hundred events a second of twenty comments each, due three seconds later: planned, fired
    and recorded at 2,000 timers a second."""
    seconds = bench.of(SECONDS, FEW_SECONDS)
    async with bench.site() as site:
        await site.open_wheels({})
        async with (
            site.process("worker", **PACING) as worker,
            site.process("dispatcher") as dispatcher,
        ):
            await worker.said("partitions assigned")
            await dispatcher.said("shard taken", len(site.shards))
            bench.say(f"steady work for {seconds} s")
            watched = {"worker": worker, "dispatcher": dispatcher}
            sizes, planned = await _watch(site, watched, seconds)

            async def fired() -> int:
                return await site.rows(
                    "select count(*) from pod_activities where status = 'dispatched'"
                )

            await dispatcher.until(fired, planned, "timers fired", 0.5)
    figures = []
    for name, found in sizes.items():
        warm = found[int(len(found) * WARM) :]
        third = max(1, len(warm) // 3)
        first, last = median(warm[:third]), median(warm[-third:])
        # From the middle of the first third to that of the last one: two thirds of what is left.
        between = planned * (1 - WARM) * 2 / 3 / 1e6
        figures.append(
            Figure(
                name=f"{name}, growth",
                unit="MiB a million timers",
                values=[(last - first) / between],
                better="less",
                notes={
                    "seconds": seconds,
                    "timers": planned,
                    "MiB at first": round(first, 1),
                    "MiB at last": round(last, 1),
                    "MiB, each 2 s": [round(each, 1) for each in found],
                },
            )
        )
    return figures


async def _watch(
    site: Site, watched: dict[str, Process], seconds: int
) -> tuple[dict[str, list[float]], int]:
    """Resident MiB of each process, every two seconds, and how many timers went through."""
    sizes: dict[str, list[float]] = {name: [] for name in watched}
    world = World(seed=time.time_ns())

    def event(number: int, at_ms: int) -> bytes:
        pod, post, members = world.post()
        return encode(
            PostDetected(
                event_id=f"{post}:{number}",
                pod_id=pod,
                post_id=post,
                member_ids=members,
                detected_at=moment(at_ms),
                engagement_types=("comment",),
            )
        )

    async def look() -> None:
        while True:
            await asyncio.sleep(EACH_S)
            for name, process in watched.items():
                sizes[name].append(psutil.Process(process.pid).memory_info().rss / MIB)

    async def nothing() -> None: ...

    looking = asyncio.create_task(look())
    try:
        topic = site.settings.topics.post_detected
        events = await produce(site, topic, seconds, 0, nothing, event, rate=EVENTS_PER_S)
    finally:
        looking.cancel()
    return sizes, events * MEMBERS
