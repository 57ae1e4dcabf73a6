"""`python -m bench.publish [--check]`: the last whole run, into docs/benchmarks.md.

What stands between two marks, `<!-- bench: NAME -->` and `<!-- bench: end -->`, is made from
bench/results.json; the pictures go to docs/benchmarks/.
"""

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import orjson
from msgspec import convert

from bench.comparison import BULLMQ, Row, early, fewer, goals, rows, shares
from bench.results import (
    FIRE,
    IDLE,
    IN_POSTGRES,
    OURS,
    SCHEDULE,
    WHEEL_SCHEDULE,
    Figure,
    lateness_at,
    short,
    size_at,
)

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
PICTURES = ROOT / "docs" / "benchmarks"

_BRIEF = (
    WHEEL_SCHEDULE,
    SCHEDULE,
    FIRE,
    size_at(1_000_000),
    IN_POSTGRES,
    lateness_at(200, "p50"),
    lateness_at(200, "p99"),
    IDLE,
)

_EARLY, _FEWER = "\N{DAGGER}", "\N{DOUBLE DAGGER}"

TIMES = "\N{MULTIPLICATION SIGN}"

MARKED = re.compile(r"(<!-- bench: (?!end)([\w-]+) -->\n).*?(<!-- bench: end -->)", re.DOTALL)


def main() -> int:
    """The exit code: 1 where `--check` finds a page that is not of the last run."""
    parser = argparse.ArgumentParser(prog="python -m bench.publish", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, say what is stale")
    check = parser.parse_args().check
    if not RESULTS.exists():
        print(f"{RESULTS} is not there: run `make bench` first", file=sys.stderr)
        return 1
    found = orjson.loads(RESULTS.read_bytes())
    stale = [page for page in PAGES if page.read_text("utf-8") != rendered(page, found)]
    if check:
        for page in stale:
            print(f"{page} is not of the last run: python -m bench.publish", file=sys.stderr)
        return 1 if stale else 0
    publish(found)
    return 0


def publish(found: Mapping[str, Any]) -> None:
    """Write what `found`, a report, says into the pages, and draw it."""
    from bench.plots import draw  # dear to load, and not needed to check

    for page in PAGES:
        page.write_text(rendered(page, found), "utf-8")
    figures = figures_of(found)
    draw(PICTURES, figures, rows(figures), shares(figures))


def rendered(page: Path, found: Mapping[str, Any]) -> str:
    """`page` with its marked parts made anew."""

    def part(match: re.Match[str]) -> str:
        return f"{match[1]}{PARTS[match[2]](found)}\n{match[3]}"

    return MARKED.sub(part, page.read_text("utf-8"))


def figures_of(found: Mapping[str, Any]) -> list[Figure]:
    """The figures of a report."""
    return convert(found["figures"], list[Figure])


def machine(found: Mapping[str, Any]) -> str:
    """Where, when and with what it was measured."""
    where, versions = found["machine"], dict(found["versions"])
    names = ", ".join(f"{name} {number}" for name, number in versions.items())
    date = found["date"].partition("T")[0]
    return (
        f"{where['processor']}, {where['cores']} cores for the engine and all servers together,"
        f" {where['memory_gib']} GiB, {where['system']}. {names}."
        f" {date}, commit {found['commit']}, `{found['command']}`; {_medians(found)}."
    )


def _medians(found: Mapping[str, Any]) -> str:
    """Of how many values: what stands beside others was measured before and behind them."""
    counts = {len(each.values) for each in figures_of(found)} - {1}
    return f"medians of {' or '.join(map(str, sorted(counts)))}"


def peers(found: Mapping[str, Any]) -> str:
    """Ours and everybody's, a row a quantity."""
    compared = [row for row in rows(figures_of(found)) if row.peers]
    titles = list(dict.fromkeys(title for row in compared for title in row.peers))
    lines = []
    for row in compared:
        best = row.best
        ahead = "" if best is None else f"{_times(row.ahead_of(best))} ({best})"
        others = [_cell(row, title) for title in titles]
        lines.append([_named(row), f"**{short(row.ours.median)}**", *others, ahead])
    return _table(["", OURS, *titles, "ahead of the nearest"], "l" + "r" * (len(titles) + 2), lines)


def brief(found: Mapping[str, Any]) -> str:
    """The same for a reader in a hurry: ours, what it replaces, and whoever comes nearest."""
    lines = []
    for row in rows(figures_of(found)):
        if row.quantity not in _BRIEF or not row.peers:
            continue
        best = row.best
        nearest = "" if best is None else f"{_cell(row, best)} ({best})"
        bullmq = _cell(row, BULLMQ)
        lines.append([_named(row), f"**{short(row.ours.median)}**", bullmq, nearest])
    made = _table(["", OURS, BULLMQ, "nearest of five"], "lrrr", lines)
    told = f"{_FEWER}: fewer timers waited beside than with us. " if _FEWER in made else ""
    where, date = found["machine"], found["date"].partition("T")[0]
    return (
        f"{made}\n\n{told}`make bench` on {date}, {where['cores']} cores for everything, commit"
        f" {found['commit']}; {_medians(found)}. All of it, what was wanted and what was missed:"
        " [docs/benchmarks.md](docs/benchmarks.md)."
    )


def wanted(found: Mapping[str, Any]) -> str:
    """The goals, and how far each was reached."""
    return _table(
        ["", "against", "wanted", "found", ""],
        "llrrl",
        [
            [
                each.quantity,
                each.peer,
                f"{each.wanted:g}{TIMES}",
                _times(each.found),
                _verdict(each.reached),
            ]
            for each in goals(rows(figures_of(found)))
        ],
    )


def limits(found: Mapping[str, Any]) -> str:
    """What we reach of what the servers can."""
    return _table(
        ["", "ours", "the servers alone", "", "share"],
        "lrrlr",
        [
            [
                each.quantity,
                *(short(each.ours), short(each.limit)),
                f"{each.limit_is}, {each.unit}",
                f"{each.share:.0%}",
            ]
            for each in shares(figures_of(found))
        ],
    )


def ours(found: Mapping[str, Any]) -> str:
    """All figures of the engine, with their spread."""
    return _spread([each for each in figures_of(found) if each.who == OURS])


def theirs(found: Mapping[str, Any]) -> str:
    """All figures of the others, in both setups, with their spread."""
    return _spread([each for each in figures_of(found) if each.who != OURS])


def processor(found: Mapping[str, Any]) -> str:
    """Whose processor time a timer takes, where it was metered."""
    metered = {
        each.name: each.notes["processor"]
        for each in figures_of(found)
        if "processor" in each.notes
    }
    parts = dict.fromkeys(part for spent in metered.values() for part in spent[0]["us_a_timer"])
    parts.pop("bench", None)
    lines = []
    for name, spent in metered.items():
        medians = [median(each["us_a_timer"].get(part, 0.0) for each in spent) for part in parts]
        lines.append([name, *(f"{each:.1f}" if each else "" for each in medians)])
    return _table(["µs a timer", *parts], "l" + "r" * len(parts), lines)


PARTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    each.__name__: each for each in (machine, brief, peers, wanted, limits, ours, theirs, processor)
}


def _spread(figures: Sequence[Figure]) -> str:
    lines = []
    for each in figures:
        spread = f"{short(min(each.values))} to {short(max(each.values))}"
        sign = "≥" if each.better == "more" else "≤"
        goal = "" if each.goal is None else f"{sign} {each.goal:,g}: {_verdict(each.reached)}"
        lines.append([each.name, short(each.median), spread, each.unit, goal])
    return _table(["", "median", "range", "unit", "goal"], "lrrll", lines)


def _verdict(reached: bool | None) -> str:
    return "reached" if reached else "**missed**"


def _named(row: Row) -> str:
    """Its quantity, with the unit where that does not say it."""
    unit = row.ours.unit
    return row.quantity if unit.partition("/")[0] in row.quantity else f"{row.quantity}, {unit}"


def _cell(row: Row, title: str) -> str:
    """What a peer has there, marked where some fired early, and where it had less to bear."""
    figure = row.peers.get(title)
    if figure is None:
        return ""
    marks = (_EARLY if early(figure) else "") + (_FEWER if fewer(figure, row.ours) else "")
    return short(figure.median) + marks


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:,.0f}{TIMES}" if ratio >= 10 else f"{ratio:.2g}{TIMES}"


def _table(head: Sequence[str], aligned: str, lines: Sequence[Sequence[str]]) -> str:
    """Markdown; `aligned` has an l or an r a column."""
    ruler = ["---" if each == "l" else "--:" for each in aligned]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ruler, *lines))


if __name__ == "__main__":
    sys.exit(main())
