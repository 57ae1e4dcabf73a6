"""`python -m bench`: what the engine does a second, here."""

import argparse
import asyncio
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bench import (
    drain,
    handover,
    idle,
    ingest,
    lateness,
    limits,
    memory,
    rebuild,
    reconcile,
    restarts,
    rolling,
    wheel,
)
from bench.harness import Benchmark, prepared
from bench.peers import measure as peers
from bench.results import Figure, commit, report, table, write
from pod_automation.cli.loop import run

SPEED = (ingest, drain, memory, idle, lateness, rebuild)
PUNCTUALITY = (handover, restarts, rolling)
"""Mostly waiting for sessions to run out: only on demand."""

BENCHMARKS: dict[str, Benchmark] = {
    module.__name__.removeprefix("bench."): module.run
    for module in (*SPEED, wheel, limits, reconcile, *PUNCTUALITY)
} | {"peers": peers.run}
RESULTS = Path(__file__).with_name("results.json")

console = Console(stderr=True, highlight=False)


def main() -> int:
    """The exit code: 130 after Ctrl-C, when nothing is left running either."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"which of {', '.join(BENCHMARKS)}; by default the first six"
    )
    parser.add_argument("--quick", action="store_true", help="less of each, under three minutes")
    parser.add_argument(
        "--json", type=Path, default=RESULTS, metavar="FILE", help="default %(default)s"
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - BENCHMARKS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    # New topics without a leader yet, told of partition by partition.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        run(_measure(chosen.names or list(BENCHMARKS)[: len(SPEED)], chosen.quick, chosen.json))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    return 0


async def _measure(names: Sequence[str], quick: bool, file: Path) -> None:
    task = asyncio.current_task()
    assert task is not None
    # What `kill` sends ends it as Ctrl-C does: the processes we started end first.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    began = time.monotonic()

    def say(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:5.0f} s[/]  {line}")

    # At the start: whoever works on beside it commits meanwhile.
    measured = await commit()
    figures: list[Figure] = []
    async with prepared(quick, say) as bench:
        for name in names:
            figures += await BENCHMARKS[name](bench)
        found = report(figures, await bench.versions(), measured)
    write(file, found)
    Console().print(table(figures))
    say(f"written to {file}")


if __name__ == "__main__":
    sys.exit(main())
