"""What the demo shows while it runs, and at its end."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from pod_automation.demo.report import Report

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
    failed: int = 0
    retried: int = 0


COLUMNS = ("planned", "due", "dispatched", "executed", "failed", "retried")


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
    awaited: int = 0
    late_p50_ms: int = 0
    late_p99_ms: int = 0
    note: str = ""
    began_s: float = field(default_factory=time.monotonic)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def left(self) -> int:
        """What is left in the wheel."""
        return self.in_wheel + self.in_flight + self.awaited

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
        # One line also where nobody has said how wide it may be, as in a log.
        self._console.print(text, markup=False, soft_wrap=True)

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
    for heading in COLUMNS:
        table.add_column(heading, justify="right")
    table.add_column("")
    widest = max((pod.planned for pod in state.pods), default=0) or 1
    for pod in state.pods:
        numbers = (getattr(pod, name) for name in COLUMNS)
        table.add_row(pod.name, *(f"{each:,}" for each in numbers), _bar(pod, widest))
    totals = (state.total(name) for name in COLUMNS)
    table.add_row("all", *(f"{each:,}" for each in totals), style="bold")
    lines: list[RenderableType] = [
        Text(""),
        table,
        Text(
            f"{_elapsed(state)}   events {state.published}/{state.deliveries}"
            f" ({state.published_twice} twice, {state.broken} broken)"
            f"   wheel {state.in_wheel:,} timers, {state.awaited:,} awaited"
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
        f"{''.join(f'  {name} {state.total(name)}' for name in COLUMNS)}"
        f"  wheel {state.in_wheel}  awaited {state.awaited}"
        f"  late p50 {state.late_p50_ms} ms p99 {state.late_p99_ms} ms"
    )


def closing_table(report: Report) -> RenderableType:
    """What was promised, and what was counted."""
    verdict = (
        Text(
            "each attempt fired once, never early; each activity came to one end",
            style="bold green",
        )
        if report.ok
        else Text("the engine has not kept its promise", style="bold red")
    )
    title = Text("Counted by an independent consumer, from the first record on:", style="bold")
    ends = Text("What became of them, by each source for itself:", style="bold")
    return Group(
        *(Text(""), title, _counts(report)),
        *(Text(""), ends, _sources(report)),
        *(Text(""), verdict),
    )


def _counts(report: Report) -> Table:
    table = Table(box=None, show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("", style="dim")

    def row(name: str, value: str, meaning: str, ok: bool = True) -> None:
        table.add_row(Text(name), Text(value, style="" if ok else "bold red"), Text(meaning))

    def number(name: str, value: int, meaning: str, ok: Callable[[int], bool]) -> None:
        row(name, f"{value:,}", meaning, ok(value))

    asked, faults = report.asked_for, report.faults
    twice = f"events, {report.published_twice} of them sent twice on purpose"
    number("published", report.published, twice, bool)
    number("planned", report.planned, f"of {asked:,} that the events ask for", asked.__eq__)
    number("dispatched", report.dispatched, "of these, by their execute-engagement", asked.__eq__)
    number("recorded", report.recorded, "of these in PostgreSQL as well", asked.__eq__)
    letters = report.broken + report.postgresql.failed
    number(
        "dead letters",
        report.dead_letters,
        f"of {report.broken} broken records and {report.postgresql.failed:,} that failed",
        letters.__eq__,
    )
    none = (0).__eq__
    for name, value, meaning in (
        ("lost", faults.lost, "asked for, and not planned or not dispatched"),
        ("duplicates", faults.duplicates, "attempts dispatched more than once"),
        ("left out", faults.left_out, "attempts not dispatched before a later one"),
        ("early", faults.early, "dispatched before they were due"),
        ("unasked", faults.not_asked_for, "planned or dispatched, and not asked for"),
        ("over the cap", faults.over_the_cap, "posts with too many likes in a window"),
        ("unfinished", faults.unfinished, "without a final status"),
        ("two ends", faults.two_ends, "with more than one, or not the one of PostgreSQL"),
        ("wrong ends", faults.wrong_ends, "not what the handler's answers lead to"),
        ("wrong attempts", faults.wrong_attempts, "rows at another attempt than their events"),
        ("wrong counts", faults.wrong_members, "members with more or less than was executed"),
        ("no letter", faults.letters_missing, "broken or failed, without a dead letter"),
        ("letters unasked", faults.letters_unasked, "dead letters of what has not failed"),
        ("in the wheel", faults.left_in_wheel, "timers and awaited results that are left"),
    ):
        number(name, value, meaning, none)
    row("lateness p50", f"{report.late_p50_ms} ms", "dispatched_at - scheduled_for")
    row("lateness p99", f"{report.late_p99_ms} ms", f"the latest {report.late_max_ms} ms")
    if report.killed:
        number("killed", report.killed, "processes, with kill -9, in mid-run", bool)
    return table


def _sources(report: Report) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=True)
    table.add_column("")
    for heading in ("Kafka", "PostgreSQL", "members", "expected"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for name in ("executed", "failed", "retried", "timed_out"):
        wanted = f"{getattr(report.expected, name):,}"
        if report.killed:
            # Attempts were lost with the processes.
            wanted = f"{'at most' if name == 'executed' else 'at least'} {wanted}"
        agree, expected = report.sources_agree(name), report.as_expected(name)
        table.add_row(
            name.replace("_", " "),
            f"{getattr(report.kafka, name):,}",
            f"{getattr(report.postgresql, name):,}",
            f"{report.members:,}" if name == "executed" else "",
            Text(wanted, style="" if expected else "bold red"),
            Text("agree", style="green") if agree else Text("differ", style="bold red"),
        )
    return table


def _bar(pod: PodLine, widest: int) -> Text:
    """Executed, failed, dispatched and planned, each behind the former."""
    bar, full = Text(), round(BAR_COLUMNS * pod.planned / widest)
    ended = pod.executed + pod.failed
    for upto, block, style in (
        (pod.executed, "█", "green"),
        (ended, "█", "red"),
        # The rows may be ahead of the consumer that looks on.
        (max(ended, pod.dispatched), "▓", "yellow"),
        (pod.planned, "░", "dim"),
    ):
        columns = min(full, round(BAR_COLUMNS * upto / widest)) - len(bar)
        bar.append(block * max(0, columns), style=style)
    return bar


def _elapsed(state: State) -> str:
    seconds = int(time.monotonic() - state.began_s)
    return f"{seconds // 60}:{seconds % 60:02d}"
