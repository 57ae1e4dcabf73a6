"""What a benchmark found, and how it is shown."""

import asyncio
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Literal

import orjson
import psutil  # type: ignore[import-untyped]
from msgspec import Struct, to_builtins
from msgspec.structs import replace
from rich.box import SIMPLE_HEAD
from rich.table import Table

PACKAGES = (
    *("aiokafka", "faust-streaming", "asyncpg", "redis", "hiredis", "msgspec", "orjson", "uvloop"),
)
MIB = 1 << 20


OURS = "pod-automation"

# What others are measured at too.
WHEEL_SCHEDULE = "schedule into the wheel"
SCHEDULE = "schedule"
FIRE = "fire"
IDLE = "idle"
RESIDENT = "resident memory"
IN_POSTGRES = "bytes a timer in PostgreSQL"

OLD_REDIS = "Redis 6.2"


def size_at(count: int, server: str = "Redis") -> str:
    """The quantity: the memory that a timer takes where so many are pending; `server` where that is
    another than the rest is measured on."""
    return f"bytes a timer in {server} at {count:,}"


def lateness_at(rate: int, share: str) -> str:
    """The quantity: a percentile of how much later than due whoever executes a timer has it, where
    so many a second fall due."""
    return f"lateness at {rate:,}/s, {share}"


class Figure(Struct, frozen=True, kw_only=True):
    """One measured quantity: a value for each repeat, and the goal it is held against.

    What others are measured at too has a `quantity`, the same for all, and says `who` it is.
    """

    name: str
    unit: str
    values: Sequence[float]
    quantity: str = ""
    who: str = OURS
    goal: float | None = None
    better: Literal["more", "less"] = "more"
    notes: Mapping[str, Any] = {}

    @property
    def median(self) -> float:
        """The middle one of the values."""
        return median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median is at the goal or beyond; None without a goal."""
        if self.goal is None:
            return None
        return self.median >= self.goal if self.better == "more" else self.median <= self.goal


def joined(figures: Sequence[Figure]) -> list[Figure]:
    """Each name once, with the values of all that have it, and what is noted of each value."""
    made: dict[str, Figure] = {}
    for each in figures:
        before = made.setdefault(each.name, each)
        if before is not each:
            notes = {
                key: [*old, *each.notes[key]] if isinstance(old, list) else old
                for key, old in before.notes.items()
            }
            made[each.name] = replace(before, values=[*before.values, *each.values], notes=notes)
    return list(made.values())


def table(figures: Sequence[Figure]) -> Table:
    """The figures for people."""
    made = Table("figure", "median", "range", "unit", "goal", box=SIMPLE_HEAD)
    for column in made.columns[1:3]:
        column.justify = "right"
    for each in figures:
        mark = {True: "[green]✓[/] ", False: "[red]✗[/] ", None: ""}[each.reached]
        sign = "≥" if each.better == "more" else "≤"
        goal = "" if each.goal is None else f"{mark}{sign} {each.goal:,g}"
        spread = f"{short(min(each.values))} to {short(max(each.values))}"
        made.add_row(each.name, short(each.median), spread, each.unit, goal)
    return made


def short(value: float) -> str:
    """Three digits that mean something, or whole numbers."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def report(
    figures: Sequence[Figure], servers: Mapping[str, str], measured: str | None
) -> dict[str, Any]:
    """Everything somebody needs who wants to compare, as JSON has it; `measured` is the commit."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        "commit": measured,
        "machine": _machine(),
        "versions": {"Python": platform.python_version()}
        | {name: version(name) for name in PACKAGES}
        | dict(servers),
        "figures": [
            to_builtins(each) | {"median": each.median, "reached": each.reached} for each in figures
        ],
    }


def write(path: Path, found: Mapping[str, Any]) -> None:
    """`found` as a file of JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / MIB / 1024, 1),
        "system": platform.platform(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


async def commit() -> str | None:
    """The commit that was measured, with a + where files differ from it."""
    try:
        git = await asyncio.create_subprocess_exec(
            *("git", "describe", "--always", "--dirty=+", "--exclude=*"),
            cwd=Path(__file__).parent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError:
        return None
    return (await git.communicate())[0].decode().strip() or None
