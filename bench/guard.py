"""`python -m bench.guard`: has a change made the engine slower? Under three minutes.

Each core figure is held against a loop of plain Python that runs just before and after it, and the
ratio against the one that is stored in bench/baseline.json. So a slow machine does not alarm, and a
slow change does. Processor time is what is watched closely, since other programs beside hardly
change it; rates are watched more loosely, for what waits instead of working.
"""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from hashlib import sha1
from pathlib import Path
from statistics import median
from typing import Literal

import orjson
from msgspec import Struct, convert, to_builtins
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bench import drain, ingest, memory, wheel
from bench.harness import SERVERS, Bench, prepared
from bench.load import World, far_away
from bench.meter import Spent
from bench.results import commit, short, write
from pod_automation.cli.loop import run
from pod_automation.cli.terminal import failed
from pod_automation.stack import StackError
from scheduler.errors import EngineError

BASELINE = Path(__file__).with_name("baseline.json")

EVENTS, FIRED, PENDING = 1500, 60_000, 100_000

TOLERANCE: Mapping[str, float] = {"cost": 1.25, "rate": 1.6, "size": 1.05}
"""So many times worse than the baseline is still taken for noise, by kind."""

LOOPS = 60_000
Kind = Literal["cost", "rate", "size"]


class Measured(Struct, frozen=True):
    """One core figure: a cost in loops a thousand timers, a rate in timers a thousand loops, or a
    size in bytes; the median of the repeats."""

    name: str
    kind: Kind
    value: float


class Verdict(Struct, frozen=True):
    """A figure beside its baseline; `worse` is 1 for the same, 2 for half as good."""

    now: Measured
    then: Measured
    worse: float

    @property
    def alarming(self) -> bool:
        """Whether that is more than noise."""
        return self.worse > TOLERANCE[self.now.kind]


def compared(now: Sequence[Measured], then: Sequence[Measured]) -> list[Verdict]:
    """What both have, in the order of `now`."""
    stored = {each.name: each for each in then}
    made = []
    for each in now:
        if (before := stored.get(each.name)) is not None:
            worse = before.value / each.value if each.kind == "rate" else each.value / before.value
            made.append(Verdict(each, before, worse))
    return made


def loop() -> tuple[float, float]:
    """Loops a second by the clock, and by processor time, of work like ours in plain Python."""
    began, used = time.perf_counter(), time.process_time()
    kept = {}
    for number in range(LOOPS):
        name = f"pod-{number % 1000}\x1fpost-{number}\x1flike"
        digest = sha1(name.encode(), usedforsecurity=False).hexdigest()
        kept[digest[:8]] = json.dumps([digest, number])
    return LOOPS / (time.perf_counter() - began), LOOPS / (time.process_time() - used)


async def measured(bench: Bench) -> list[Measured]:
    """All core figures."""
    found: list[Measured] = []
    for name, once in (
        ("ingest", partial(_ingested, bench)),
        ("drain", partial(_drained, bench)),
    ):
        rates, costs = await _process(bench, name, once)
        found += [Measured(f"{name}, processor", "cost", costs), Measured(name, "rate", rates)]
    async with wheel.filled(bench.servers[SERVERS[1]], PENDING) as wheels:
        for name, rate in (("schedule", wheels.schedule), ("claim", wheels.claim)):
            found.append(await _rate(bench, f"wheel {name}", partial(rate, FIRED)))
    timers = World().timers(PENDING, memory.SHARDS, *far_away())
    size = await memory.bytes_a_timer(bench, timers)
    return [*found, Measured(f"bytes a timer at {PENDING:,}", "size", size)]


async def _ingested(bench: Bench) -> tuple[float, Spent]:
    found = await ingest.once(bench, EVENTS)
    return found.rate, found.spent


async def _drained(bench: Bench) -> tuple[float, Spent]:
    rate, _, spent = await drain.once(bench, FIRED, 8)
    return rate, spent


async def _process(
    bench: Bench, name: str, once: Callable[[], Awaitable[tuple[float, Spent]]]
) -> tuple[float, float]:
    rates: list[float] = []
    costs: list[float] = []

    async def repeat() -> None:
        before = loop()
        rate, spent = await once()
        wall, busy = (median(pair) for pair in zip(before, loop(), strict=True))
        us = sum(used for part, used in spent.us_a_timer.items() if part != "bench")
        rates.append(1000 * rate / wall)
        costs.append(us * busy / 1000)

    await bench.each_repeat(name, repeat)
    return median(rates), median(costs)


async def _rate(bench: Bench, name: str, once: Callable[[], Awaitable[float]]) -> Measured:
    async def repeat() -> float:
        before, _ = loop()
        rate = await once()
        after, _ = loop()
        return 1000 * rate / median((before, after))

    return Measured(name, "rate", median(await bench.each_repeat(name, repeat)))


async def _run(say: Callable[[str], None]) -> list[Measured]:
    async with prepared(True, say) as bench:
        if not bench.pids:
            raise SystemExit("the guard wants servers of its own: name none in POD_AUTOMATION_*")
        return await measured(bench)


def main() -> int:
    """The exit code: 1 where something has become slower or larger."""
    parser = argparse.ArgumentParser(prog="python -m bench.guard", description=__doc__)
    parser.add_argument("--save", action="store_true", help="make this run the baseline")
    save = parser.parse_args().save
    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    try:
        now = run(
            _run(lambda line: console.print(f"[dim]{time.monotonic() - began:5.0f} s[/]  {line}"))
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except (StackError, EngineError) as error:
        return failed(error)
    if save or not BASELINE.exists():
        kept = {"commit": asyncio.run(commit()), "figures": to_builtins(now)}
        write(BASELINE, kept)
        console.print(f"stored in {BASELINE}")
        return 0
    stored = orjson.loads(BASELINE.read_bytes())
    verdicts = compared(now, convert(stored["figures"], list[Measured]))
    table = Table(
        "figure", "now", f"at {stored['commit']}", "worse", "alarm above", box=SIMPLE_HEAD
    )
    for each in verdicts:
        mark = "[red]✗[/]" if each.alarming else "[green]✓[/]"
        table.add_row(
            each.now.name,
            short(each.now.value),
            short(each.then.value),
            f"{mark} {each.worse:.2f} times",
            f"{TOLERANCE[each.now.kind]:g}",
        )
    Console().print(table)
    alarms = [each.now.name for each in verdicts if each.alarming]
    if alarms:
        console.print(
            f"slower or larger than the baseline: {', '.join(alarms)}. Mend it, or, where it is"
            " worth it, store a new baseline: make bench-quick ARGS=--save"
        )
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
