"""`python -m bench`: what the engine does a second, here."""

import argparse
import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from bench import (
    again,
    burst,
    cancel,
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
    soak,
    warmth,
    wheel,
)
from bench import publish as publishing
from bench.harness import Benchmark, prepared
from bench.peers import measure as peers
from bench.publish import RESULTS, publish
from bench.results import OURS, Figure, commit, joined, report, table, write
from pod_automation.cli.loop import run
from pod_automation.cli.terminal import failed
from pod_automation.stack import StackError
from scheduler.errors import EngineError


def _named(*modules: ModuleType) -> dict[str, Benchmark]:
    return {module.__name__.removeprefix("bench."): module.run for module in modules}


WHOLE: Mapping[str, Benchmark] = {
    **_named(limits, wheel, ingest, drain, memory, idle, lateness),
    # Others are measured between two rounds of ours.
    "peers": peers.run,
    **_named(again, burst, rebuild, soak),
}
"""What a run without names measures, in this order."""

# The last three mostly wait for sessions to run out.
ON_DEMAND = _named(cancel, reconcile, handover, restarts, rolling)
BENCHMARKS = {**WHOLE, **ON_DEMAND}

WITHOUT_KAFKA = ("wheel", "memory", "peers")
"""What is the same whether Kafka is warm or cold."""

PART = Path(__file__).with_name("part.json")

console = Console(stderr=True, highlight=False)


def main() -> int:
    """The exit code: 130 after Ctrl-C, when nothing is left running either."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which of {', '.join(BENCHMARKS)}; by default all up to {list(WHOLE)[-1]}",
    )
    parser.add_argument("--quick", action="store_true", help="less of each")
    parser.add_argument(
        "--json",
        type=Path,
        metavar="FILE",
        help=f"default bench/{RESULTS.name}, with tables and pictures in docs/; of some benchmarks,"
        f" or of quick ones, bench/{PART.name} alone",
    )
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - BENCHMARKS.keys():
        parser.error(f"no benchmark {', '.join(sorted(unknown))}")
    names = chosen.names or list(WHOLE)
    whole = names == list(WHOLE) and not chosen.quick
    file = chosen.json or (RESULTS if whole else PART)
    try:
        found = run(_measure(names, chosen.quick, file))
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except (StackError, EngineError) as error:
        return failed(error)
    if file == RESULTS:
        publish(found)
        console.print("tables and pictures are in README.md, docs/benchmarks.md, docs/benchmarks/")
    return 0


async def _measure(names: Sequence[str], quick: bool, file: Path) -> Mapping[str, Any]:
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
    found: Mapping[str, Any] = {}
    async with prepared(quick, say) as bench:
        versions = await bench.versions()
        # Only ours has just started.
        if bench.pids and not quick and not set(names) <= set(WITHOUT_KAFKA):
            await warmth.warm(bench)
        for name in names:
            figures = joined([*figures, *await BENCHMARKS[name](bench)])
            # After each: what was measured in an hour is not lost by what comes last.
            found = report(figures, versions, measured)
            write(file, found)
    shown = Console()
    shown.print(table([each for each in figures if each.who == OURS]))
    if len({each.who for each in figures}) > 1:
        shown.print(table([each for each in figures if each.who != OURS]))
    for text in (publishing.peers(found), publishing.wanted(found), publishing.limits(found)):
        if text.count("\n") > 1:
            shown.print(Markdown(text))
    say(f"written to {file}")
    return found


if __name__ == "__main__":
    sys.exit(main())
