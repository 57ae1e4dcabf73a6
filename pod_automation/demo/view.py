"""What the demo shows while it runs, and at its end."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pod_automation.demo.count import Report

REFRESH_PER_S = 4
PLAIN_EVERY_S = 3.0
"""Where there is no terminal: a line now and then."""

BAR_COLUMNS = 24


@dataclass(slots=True)
class PodLine:
    """One pod's numbers."""

    name: str
    planned: int = 0
    due: int = 0
    dispatched: int = 0
    executed: int = 0
    recorded: int = 0


@dataclass(slots=True)
class State:
    """All that is shown; the demo writes it, the view reads it."""

    pods: Sequence[PodLine]
    deliveries: int
    published: int = 0
    published_twice: int = 0
    broken: int = 0
    in_wheel: int = 0
    in_flight: int = 0
    late_p50_ms: int = 0
    late_p99_ms: int = 0
    note: str = ""
    began_s: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def total(self, name: str) -> int:
        """The sum of one number over all pods."""
        return sum(getattr(pod, name) for pod in self.pods)


class View:
    """A live table on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._said_s = 0.0

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False)

    def begin(self, state: State) -> None:
        """Show `state` from now on."""
        if self._console.is_terminal:
            self._live = Live(
                get_renderable=lambda: live_table(state),
                console=self._console,
                refresh_per_second=REFRESH_PER_S,
            )
            self._live.start()

    def turn(self, state: State, *, last: bool = False) -> None:
        """`state` has changed."""
        now_s = time.monotonic()
        if self._live is None and (last or now_s - self._said_s >= PLAIN_EVERY_S):
            self._said_s = now_s
            self.say(plain_line(state))

    def end(self) -> None:
        """Stop showing; the last picture stays."""
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def close(self, report: Report) -> None:
        """The closing table."""
        self._console.print(closing_table(report))


def live_table(state: State) -> RenderableType:
    """The picture of this moment."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("pod")
    for heading in ("planned", "due", "dispatched", "executed"):
        table.add_column(heading, justify="right")
    table.add_column("")
    widest = max((pod.planned for pod in state.pods), default=0) or 1
    for pod in state.pods:
        numbers = (pod.planned, pod.due, pod.dispatched, pod.executed)
        table.add_row(pod.name, *(f"{each:,}" for each in numbers), _bar(pod, widest))
    totals = (state.total(each) for each in ("planned", "due", "dispatched", "executed"))
    table.add_row("all", *(f"{each:,}" for each in totals), style="bold")
    lines: list[RenderableType] = [
        Text(""),
        table,
        Text(
            f"{_elapsed(state)}   events {state.published}/{state.deliveries}"
            f" ({state.published_twice} twice, {state.broken} broken)"
            f"   wheel {state.in_wheel:,} timers"
            f"   late p50 {state.late_p50_ms} ms, p99 {state.late_p99_ms} ms",
            style="dim",
        ),
    ]
    if state.note:
        lines.append(Text(state.note, style="yellow"))
    return Group(*lines)


def plain_line(state: State) -> str:
    """The same in one line."""
    return (
        f"{_elapsed(state)}  events {state.published}/{state.deliveries}"
        f"  planned {state.total('planned')}  due {state.total('due')}"
        f"  dispatched {state.total('dispatched')}  executed {state.total('executed')}"
        f"  wheel {state.in_wheel}"
        f"  late p50 {state.late_p50_ms} ms p99 {state.late_p99_ms} ms"
    )


def closing_table(report: Report) -> RenderableType:
    """What was promised, and what was counted."""
    table = Table(box=None, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", style="dim")

    def row(name: str, value: str, meaning: str, ok: bool = True) -> None:
        table.add_row(Text(name), Text(value, style="" if ok else "bold red"), Text(meaning))

    def number(name: str, value: int, meaning: str, ok: Callable[[int], bool]) -> None:
        row(name, f"{value:,}", meaning, ok(value))

    asked = report.asked_for
    twice = f"events, {report.published_twice} of them sent twice on purpose"
    number("published", report.published, twice, bool)
    number("planned", report.planned, f"of {asked:,} that the events ask for", asked.__eq__)
    number("dispatched", report.dispatched, "execute-engagement events", asked.__eq__)
    number("recorded", report.recorded, "of these in PostgreSQL as well", asked.__eq__)
    number("executed", report.executed, "results confirmed by the executor", asked.__eq__)
    none = (0).__eq__
    number("lost", report.lost, "asked for, and not planned or not dispatched", none)
    number("duplicates", report.duplicates, "dispatched more than once", none)
    number("early", report.early, "dispatched before they were due", none)
    number("unasked", report.not_asked_for, "planned or dispatched, and not asked for", none)
    number("over the cap", report.over_the_cap, "posts with too many likes in a window", none)
    number(
        "dead letters",
        report.dead_letters,
        f"of {report.broken} broken records",
        report.broken.__eq__,
    )
    row("lateness p50", f"{report.late_p50_ms} ms", "dispatched_at - scheduled_for")
    row("lateness p99", f"{report.late_p99_ms} ms", f"the latest {report.late_max_ms} ms")
    if report.killed:
        number("killed", report.killed, "processes, with kill -9, in mid-run", bool)
    verdict = (
        Text("each action planned once, fired once, never early", style="bold green")
        if report.ok
        else Text("the engine has not kept its promise", style="bold red")
    )
    title = Text("Counted by an independent consumer, from the first record on:", style="bold")
    return Group(Text(""), title, table, Text(""), verdict)


def _bar(pod: PodLine, widest: int) -> Text:
    full = round(BAR_COLUMNS * pod.planned / widest)
    executed = min(full, round(BAR_COLUMNS * pod.executed / widest))
    dispatched = min(full, round(BAR_COLUMNS * pod.dispatched / widest)) - executed
    bar = Text("█" * executed, style="green")
    bar.append("▓" * max(0, dispatched), style="yellow")
    bar.append("░" * (full - executed - max(0, dispatched)), style="dim")
    return bar


def _elapsed(state: State) -> str:
    seconds = int(time.monotonic() - state.began_s)
    return f"{seconds // 60}:{seconds % 60:02d}"
