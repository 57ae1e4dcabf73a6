"""How long shards wait for a process that was killed and is started again at once."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from bench.handover import (
    PROMISE_MS,
    SESSIONS_MS,
    figure,
    kill_and_restart,
    one,
    pair,
)
from bench.harness import Bench
from bench.results import Figure
from bench.steady import FEEDS

IDS = {"dynamic": "", "static": "*"}
"""Instance ids; * stands for the name of the process."""

STATIC_S = 5
"""A static member is back by then, whatever the session."""


async def run(bench: Bench) -> Sequence[Figure]:
    """kill -9 and a restart at once, with and without an instance id."""
    figures: list[Figure] = []
    for command in list(FEEDS)[: bench.of(3, 2)]:
        for session_ms in SESSIONS_MS[: bench.of(2, 1)]:
            for kind, instance_id in IDS.items():
                what = f"{command}, session {session_ms / 1000:g} s, killed and restarted, {kind}"
                seconds = STATIC_S if instance_id else 3 + session_ms // 1000
                async with bench.site() as site, AsyncExitStack() as stack:
                    await site.open_wheels({})
                    both = await stack.enter_async_context(
                        pair(site, command, session_ms, instance_id)
                    )
                    once = partial(one, site, both, command, kill_and_restart, seconds)
                    found = await bench.each_repeat(what, once)
                figures.append(figure(what, found, session_ms + PROMISE_MS))
    return figures
