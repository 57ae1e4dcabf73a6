"""How late timers are dispatched while all processes are restarted, one after the other."""

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from bench.handover import (
    PROMISE_MS,
    SESSIONS_MS,
    Strike,
    again,
    balanced,
    kill_and_restart,
    pair,
    stop,
)
from bench.harness import Bench
from bench.lateness import quantile
from bench.results import Figure
from bench.site import Process, Site
from bench.steady import FEEDS, PLAN_MS, RATE, plans

SHARES = {"p50": 0.5, "p99": 0.99, "max": 1.0}

AT_LEAST_S = 10

SETTLED_S = 0.3

PACING = {"comment_min_delay_ms": PLAN_MS, "comment_max_delay_ms": PLAN_MS}


async def run(bench: Bench) -> Sequence[Figure]:
    """Two of each kind, restarted one after the other, while timers fall due all the time."""
    figures: list[Figure] = []
    for name, strike, instance_id in (
        ("none", None, ""),
        ("SIGTERM", stop, ""),
        ("kill -9, static", kill_and_restart, "*"),
    ):
        what = f"rolling restart: {name}"
        async with bench.site() as site, AsyncExitStack() as stack:
            await site.open_wheels({})
            processes: list[Process] = []
            for command in FEEDS:
                processes += await stack.enter_async_context(
                    pair(site, command, SESSIONS_MS[0], instance_id, **PACING)
                )
            once = partial(_roll, site, processes, strike)
            found = [await once()] if strike is None else await bench.each_repeat(what, once)
        for share_name, share in SHARES.items():
            figures.append(
                Figure(
                    name=f"{what}, dispatched at {RATE}/s, {share_name}",
                    unit="ms",
                    values=[quantile(late, share) for late, _ in found],
                    goal=PROMISE_MS if share_name == "max" and strike is stop else None,
                    better="less",
                    notes={"seconds of restarting": [took for _, took in found]},
                )
            )
    return figures


async def _roll(
    site: Site, processes: Sequence[Process], strike: Strike | None
) -> tuple[list[int], float]:
    took = 0.0

    async def restart() -> None:
        nonlocal took
        began = time.monotonic()
        for number, process in enumerate(processes):
            if strike is None:
                break
            await strike(process)
            if not process.running:
                await again(process)
            of_a_kind = processes[number // 2 * 2 : number // 2 * 2 + 2]
            await balanced(of_a_kind, len(site.shards), SETTLED_S)
        took = round(time.monotonic() - began, 1)

    done = await plans(site, AT_LEAST_S, 1.0, restart)
    return sorted(each.late_ms for each in done), took
