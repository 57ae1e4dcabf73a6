"""Pictures of a run, for docs/: each says one thing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from bench.comparison import Row, Share, early
from bench.results import OURS, Figure, short

BLUE, GREY, RED = "#2563eb", "#9ca3af", "#dc2626"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pod-automation",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
}


def draw(
    folder: Path, figures: Sequence[Figure], found: Sequence[Row], limits: Sequence[Share]
) -> list[Path]:
    """All pictures that the figures are enough for; returns their files."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    with plt.rc_context(STYLE):
        for name, picture in (
            ("rates", lambda: _bars(found, "timers/s", "timers a second: more is better")),
            ("bytes", lambda: _bars(found, "bytes/timer", "bytes a pending timer: less is better")),
            ("lateness", lambda: _bars(found, "ms", "lateness, milliseconds: less is better")),
            ("growth", lambda: _growth(figures)),
            ("limits", lambda: _limits(limits)),
        ):
            if picture():  # type: ignore[no-untyped-call]
                path = folder / f"{name}.svg"
                plt.savefig(path, metadata={"Date": None}, bbox_inches="tight")
                drawn.append(path)
            plt.close("all")
    return drawn


def _bars(found: Sequence[Row], unit: str, title: str) -> bool:
    """One small picture a row: ours and each peer's, on one logarithmic scale."""
    chosen = [row for row in found if row.ours.unit == unit and row.peers]
    if not chosen:
        return False
    columns = 2 if len(chosen) == 4 else min(3, len(chosen))
    lines = -(-len(chosen) // columns)
    picture, axes = plt.subplots(
        lines, columns, figsize=(3.6 * columns, 2.3 * lines), squeeze=False, sharex=True
    )
    picture.suptitle(title, x=0.01, ha="left", fontweight="bold")
    for one in axes.flat[len(chosen) :]:
        one.set_visible(False)
    least = 1.0 if unit == "ms" else 0.1
    shown: list[float] = []
    for one, row in zip(axes.flat, chosen, strict=False):
        everybody = {OURS: row.ours, **row.peers}
        shown += [max(least, each.median) for each in everybody.values()]
        _everybody(one, everybody, least)
        one.set_title(row.quantity)
    # From a fraction of the least on: a bar on a logarithmic scale begins where one says.
    axes[0][0].set_xlim(min(shown) / 4, max(shown) * 8)
    picture.tight_layout()
    return True


def _everybody(axes: Axes, everybody: Mapping[str, Figure], least: float) -> None:
    names = list(everybody)[::-1]
    values = [max(everybody[name].median, least) for name in names]
    spread = [
        [value - max(min(everybody[name].values), least) for name, value in _with(names, values)],
        [max(everybody[name].values) - value for name, value in _with(names, values)],
    ]
    colours = [BLUE if name == OURS else RED if early(everybody[name]) else GREY for name in names]
    positive = [[max(0.0, each) for each in side] for side in spread]
    axes.barh(names, values, color=colours, xerr=positive, error_kw={"linewidth": 0.8})
    axes.set_xscale("log")
    for at, (name, value) in enumerate(_with(names, values)):
        note = " (some early)" if early(everybody[name]) else ""
        shown = max(value, max(everybody[name].values))
        axes.text(shown * 1.15, at, short(everybody[name].median) + note, va="center", fontsize=8)
    axes.tick_params(axis="y", length=0)


def _with(names: Sequence[str], values: Sequence[float]) -> list[tuple[str, float]]:
    return list(zip(names, values, strict=True))


def _growth(figures: Sequence[Figure]) -> bool:
    lines: dict[str, list[Figure]] = {}
    for each in figures:
        for what in ("schedule", "claim"):
            if each.name.startswith(f"wheel {what},") and each.unit == "timers/s":
                lines.setdefault(what, []).append(each)
    if not lines:
        return False
    _, axes = plt.subplots(figsize=(6, 3))
    for (what, found), colour in zip(lines.items(), (BLUE, GREY), strict=False):
        pending = [int(each.notes["pending"]) for each in found]
        medians = [each.median for each in found]
        down = [each.median - min(each.values) for each in found]
        up = [max(each.values) - each.median for each in found]
        axes.errorbar(pending, medians, yerr=[down, up], marker="o", color=colour, label=what)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("timers pending")
    axes.set_title("the wheel alone, timers a second, as it fills")
    axes.legend(frameon=False)
    return True


def _limits(limits: Sequence[Share]) -> bool:
    if not limits:
        return False
    _, axes = plt.subplots(figsize=(6.5, 0.55 * len(limits) + 0.9))
    names = [f"{each.quantity}\nof {each.limit_is}" for each in reversed(limits)]
    values = [100 * each.share for each in reversed(limits)]
    axes.barh(names, values, color=BLUE, height=0.55)
    for at, value in enumerate(values):
        axes.text(value + 1, at, f"{value:.0f} %", va="center", fontsize=8)
    axes.set_xlim(0, 100)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.set_title("share of what the servers take at best, %")
    return True
