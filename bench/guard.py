"""`python -m bench.guard`: has a change made the engine slower? Under three minutes.

Each core figure is held against a loop of plain Python that runs just before and after it, and the
ratio against the one that is stored in bench/baseline.json. So a slow machine does not alarm, and a
slow change does. Processor time is what is watched closely, since other programs beside hardly
change it; rates are watched more loosely, for what waits instead of working, and only where the
machine has as many cores as that of the baseline, and others left it alone.
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
import psutil  # type: ignore[import-untyped]
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

OTHERS = 0.2
"""Cores that other programs may use beside: with more, a rate says nothing."""

TRIES = 2
"""A repeat that others disturbed is measured so many times in all."""

LOOPS = 60_000
SAVE = "store a new baseline with make bench-quick ARGS=--save"
Kind = Literal["cost", "rate", "size"]


class Measured(Struct, frozen=True, omit_defaults=True):
    """One core figure: a cost in loops a thousand timers, a rate in timers a thousand loops, or a
    size in bytes; the median of the repeats. `others` is what other programs used beside, in cores.
    """

    name: str
    kind: Kind
    value: float
    others: float = 0.0


class Baseline(Struct, frozen=True):
    """What a run is held against: of which commit, and measured on how many cores."""

    commit: str | None
    cores: int
    figures: Sequence[Measured]


class Verdict(Struct, frozen=True):
    """A figure beside its baseline; `worse` is 1 for the same, 2 for half as good."""

    now: Measured
    then: Measured
    worse: float
    judged: bool = True

    @property
    def alarming(self) -> bool:
        """Whether that is more than noise."""
        return self.judged and self.worse > TOLERANCE[self.now.kind]


def compared(now: Sequence[Measured], then: Baseline, cores: int) -> list[Verdict]:
    """What both have, in the order of `now`, which was measured on so many cores."""
    stored = {each.name: each for each in then.figures}
    made = []
    for each in now:
        if (before := stored.get(each.name)) is not None:
            rate = each.kind == "rate"
            worse = before.value / each.value if rate else each.value / before.value
            judged = not rate or (cores == then.cores and each.others <= OTHERS)
            made.append(Verdict(each, before, worse, judged))
    return made


def unjudged(verdicts: Sequence[Verdict], then: Baseline, cores: int) -> list[str]:
    """Why some rates are not judged, a line each."""
    if cores != then.cores:
        return [f"rates are not judged: the baseline is of {then.cores} cores, here are {cores}"]
    return [
        f"{each.now.name} is not judged: others used {each.now.others:.1f} of a core beside it"
        for each in verdicts
        if not each.judged
    ]


def unpaired(now: Sequence[Measured], then: Baseline) -> list[str]:
    """What only one of both has, a line each: nobody would hear of it if it became slower."""
    measured_now, stored = ({each.name: None for each in some} for some in (now, then.figures))
    return [
        *(
            f"{name} is not measured any more: {SAVE}"
            for name in stored
            if name not in measured_now
        ),
        *(f"{name} is not in the baseline: {SAVE}" for name in measured_now if name not in stored),
    ]


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
    found = [
        *await _process(bench, "ingest", "worker", partial(_ingested, bench)),
        *await _process(bench, "drain", "dispatcher", partial(_drained, bench)),
    ]
    async with wheel.filled(bench.servers[SERVERS[1]], PENDING) as wheels:
        for name, rate in (("schedule", wheels.schedule), ("claim", wheels.claim)):
            found.append(await _rate(bench, f"wheel {name}", partial(rate, FIRED)))
    timers = World().timers(PENDING, memory.SHARDS, *far_away())
    size = await memory.bytes_a_timer(bench, timers)
    return [*found, Measured(f"bytes a timer at {PENDING:,}", "size", size)]


class Repeat(Struct, frozen=True):
    """A rate, and costs by whose they are, held against the loop; and cores that others used."""

    rate: float
    costs: Mapping[str, float]
    others: float


async def _ingested(bench: Bench) -> tuple[float, Spent]:
    found = await ingest.once(bench, EVENTS)
    return found.rate, found.spent


async def _drained(bench: Bench) -> tuple[float, Spent]:
    rate, _, spent = await drain.once(bench, FIRED, 8)
    return rate, spent


async def _process(
    bench: Bench, name: str, ours: str, once: Callable[[], Awaitable[tuple[float, Spent]]]
) -> list[Measured]:
    """Its rate, what all of it costs, and what our own process does: what the servers took less
    would else hide that this takes more."""
    found = await _repeats(bench, name, once)
    costs = [sum(each.costs.values()) for each in found]
    return [
        Measured(f"{name}, processor", "cost", median(costs)),
        Measured(f"{name}, {ours}", "cost", median(each.costs[ours] for each in found)),
        _rate_of(name, found),
    ]


async def _rate(bench: Bench, name: str, once: Callable[[], Awaitable[float]]) -> Measured:
    meter = bench.meter()

    async def metered() -> tuple[float, Spent]:
        meter.start()
        rate = await once()
        return rate, meter.stop(FIRED)

    return _rate_of(name, await _repeats(bench, name, metered))


def _rate_of(name: str, found: Sequence[Repeat]) -> Measured:
    others = median(each.others for each in found)
    return Measured(name, "rate", median(each.rate for each in found), others)


async def _repeats(
    bench: Bench, name: str, once: Callable[[], Awaitable[tuple[float, Spent]]]
) -> list[Repeat]:
    async def beside_loops() -> Repeat:
        before = loop()
        rate, spent = await once()
        wall, busy = (median(pair) for pair in zip(before, loop(), strict=True))
        costs = {
            part: used * busy / 1000 for part, used in spent.us_a_timer.items() if part != "bench"
        }
        return Repeat(1000 * rate / wall, costs, spent.cores["others"])

    return await bench.each_repeat(name, partial(least_disturbed, bench.say, beside_loops))


async def least_disturbed(
    say: Callable[[str], None], once: Callable[[], Awaitable[Repeat]]
) -> Repeat:
    """The first that others left alone, or the one that they disturbed least."""
    found: list[Repeat] = []
    while len(found) < TRIES:
        found.append(await once())
        if found[-1].others <= OTHERS:
            break
        say(f"others used {found[-1].others:.1f} of a core beside it")
    return min(found, key=lambda each: each.others)


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
    cores = psutil.cpu_count()
    if save or not BASELINE.exists():
        write(BASELINE, to_builtins(Baseline(asyncio.run(commit()), cores, now)))
        console.print(f"stored in {BASELINE}")
        if disturbed := [each.name for each in now if each.others > OTHERS]:
            console.print(
                f"others used more than {OTHERS:g} of a core beside {', '.join(disturbed)}: these"
                " rates are lower than they are alone. Save again when the machine is quiet"
            )
        return 0
    stored = convert(orjson.loads(BASELINE.read_bytes()), Baseline)
    verdicts = compared(now, stored, cores)
    Console().print(_table(verdicts, stored))
    for line in unjudged(verdicts, stored, cores):
        console.print(line)
    alone = unpaired(now, stored)
    for line in alone:
        console.print(line)
    alarms = [each.now.name for each in verdicts if each.alarming]
    if alarms:
        console.print(
            f"slower or larger than the baseline: {', '.join(alarms)}. Mend it, or, where it is"
            f" worth it, {SAVE}"
        )
    return 1 if alarms or alone else 0


def _table(verdicts: Sequence[Verdict], stored: Baseline) -> Table:
    made = Table("figure", "now", f"at {stored.commit}", "worse", "alarm above", box=SIMPLE_HEAD)
    for each in verdicts:
        mark = "[red]✗[/]" if each.alarming else "[green]✓[/]" if each.judged else " "
        made.add_row(
            each.now.name,
            short(each.now.value),
            short(each.then.value),
            f"{mark} {each.worse:.2f} times",
            f"{TOLERANCE[each.now.kind]:g}" if each.judged else "not judged",
        )
    return made


if __name__ == "__main__":
    sys.exit(main())
