"""What a run of the benchmarks says of the engine beside its peers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import to_builtins

from bench import publish
from bench.__main__ import WHOLE
from bench.comparison import goals, rows, shares
from bench.lateness import figures_of
from bench.results import (
    FIRE,
    IN_POSTGRES,
    OLD_REDIS,
    OURS,
    SCHEDULE,
    Figure,
    joined,
    lateness_at,
    size_at,
)

LATE = lateness_at(200, "p50")


def figure(quantity: str, who: str, *values: float, better: Any = "more", **notes: Any) -> Figure:
    unit = "ms" if quantity == LATE else "timers/s"
    return Figure(
        name=f"{who}: {quantity}",
        quantity=quantity,
        who=who,
        unit=unit,
        values=values,
        better=better,
        notes=notes,
    )


@pytest.fixture
def figures() -> Sequence[Figure]:
    return [
        figure(SCHEDULE, OURS, 30, 40, 50),
        figure(SCHEDULE, "BullMQ, default", 9),
        figure(SCHEDULE, "BullMQ, best", 10),
        figure(SCHEDULE, "River, best", 50),
        figure(FIRE, OURS, 80, **{"timers a transaction": 4}),
        figure(FIRE, "BullMQ, best", 5),
        figure(LATE, OURS, 0, better="less"),
        figure(LATE, "BullMQ, best", 40, better="less", **{"earliest, ms": [0]}),
        figure(LATE, "Asynq, best", -475, better="less", **{"earliest, ms": [-986]}),
    ]


def test_a_peer_stands_there_at_its_better_setup(figures: Sequence[Figure]) -> None:
    schedule = rows(figures)[0]
    assert schedule.ahead_of("BullMQ") == 4
    assert schedule.best == "River"
    assert schedule.ahead_of("Celery") is None


def test_who_fires_early_is_no_match(figures: Sequence[Figure]) -> None:
    late = rows(figures)[2]
    assert late.best == "BullMQ"
    # 0 ms is not told apart from 1.
    assert late.ahead_of("BullMQ") == 40


def test_goals_are_reached_or_missed(figures: Sequence[Figure]) -> None:
    found = {(each.quantity, each.peer, each.wanted): each.reached for each in goals(rows(figures))}
    assert found == {
        (SCHEDULE, "BullMQ", 3): True,
        (FIRE, "BullMQ", 8): True,
        (LATE, "BullMQ", 5): True,
        (SCHEDULE, "River", 1): False,
        (FIRE, "BullMQ", 1): True,
        (LATE, "BullMQ", 1): True,
    }


def test_a_size_is_held_against_that_on_the_same_server() -> None:
    here, there = size_at(1_000_000), size_at(1_000_000, OLD_REDIS)
    sizes = {here: (50, 600), there: (60, 900)}
    found = goals(
        rows(
            [
                figure(quantity, who, size, better="less")
                for quantity, pair in sizes.items()
                for who, size in zip((OURS, "BullMQ, best"), pair, strict=True)
            ]
        )
    )
    assert [(each.quantity, each.found, each.reached) for each in found if each.wanted > 1] == [
        (here, 12, False),
        (there, 15, True),
    ]


def test_we_are_as_late_as_a_consumer_has_it() -> None:
    found = figures_of(200, [([1, 2, 3], [10, 20, 30]), ([0, 0, 0], [5, 5, 5])], {"seconds": 20})
    (late,) = [each for each in found if each.quantity == LATE]
    assert (late.values, late.notes["earliest, ms"]) == ([20, 5], [10, 5])
    (dispatched,) = [each for each in found if each.name == "dispatched at 200/s, p50"]
    assert (dispatched.values, dispatched.quantity) == ([2, 0], "")


def test_what_we_were_not_measured_at_is_no_row(figures: Sequence[Figure]) -> None:
    theirs = [
        figure(IN_POSTGRES, "River, best", 490, better="less"),
        figure(IN_POSTGRES, "River, best", 423, better="less"),
    ]
    assert [*rows([*figures, *theirs])] == rows(figures)
    assert IN_POSTGRES not in publish.peers(
        {"figures": [to_builtins(each) for each in (*figures, *theirs)]}
    )
    (row,) = rows([*theirs, figure(IN_POSTGRES, OURS, 590, better="less")])
    assert row.ahead_of("River") == 423 / 590


def test_a_limit_counts_as_we_do(figures: Sequence[Figure]) -> None:
    limits = [
        Figure(name="limit: records in batches", unit="records/s", values=[320]),
        Figure(name="limit: transactions, one after the other", unit="1/s", values=[40]),
    ]
    records, transactions = shares([*figures, *limits])
    assert (records.limit, records.share) == (160, 0.5)
    assert (transactions.ours, transactions.share) == (20, 0.5)


def test_what_was_measured_twice_has_the_values_of_both() -> None:
    first = figure(FIRE, OURS, 1, 2, 9, processor=[1, 2, 9], timers=5)
    again = figure(FIRE, OURS, 4, 5, 6, processor=[4, 5, 6], timers=5)
    other = figure(LATE, OURS, 3)
    both, alone = joined([first, other, again])
    assert (both.values, both.median) == ([1, 2, 9, 4, 5, 6], 4.5)
    assert both.notes == {"processor": [1, 2, 9, 4, 5, 6], "timers": 5}
    assert alone == other
    assert first.values == (1, 2, 9)


def test_the_engine_is_measured_on_both_sides_of_its_peers() -> None:
    order = list(WHOLE)
    for part in ("limits", "wheel", "ingest", "drain", "lateness"):
        assert order.index(part) < order.index("peers")
    assert order.index("again") == order.index("peers") + 1


def test_pages_take_what_a_run_found(figures: Sequence[Figure], tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- bench: peers -->\nold\n<!-- bench: end -->\nbehind\n")
    found = {"figures": [to_builtins(each) for each in figures]}
    text = publish.rendered(page, found)
    assert text.startswith("before\n<!-- bench: peers -->\n| ")
    assert text.endswith("\n<!-- bench: end -->\nbehind\n")
    assert "| schedule, timers/s | **40** | 10 | 50 |" in text
    assert "\N{DAGGER}" in text
    page.write_text(text)
    assert publish.rendered(page, found) == text


def test_who_had_less_to_bear_is_marked() -> None:
    found = [
        figure(LATE, OURS, 5, better="less", pending=1_000_000),
        figure(LATE, "River, best", 4, better="less", pending=1_000_000),
        figure(LATE, "arq, best", 8, better="less", pending=15_000),
        figure(LATE, "Asynq, best", -4, better="less", pending=10, **{"earliest, ms": [-9]}),
    ]
    text = publish.peers({"figures": [to_builtins(each) for each in found]})
    assert "| **5** | 4 | 8\N{DOUBLE DAGGER} | -4\N{DAGGER}\N{DOUBLE DAGGER} |" in text


def test_every_mark_in_the_docs_has_its_part() -> None:
    names = [
        name for page in publish.PAGES for _, name, _ in publish.MARKED.findall(page.read_text())
    ]
    assert names
    assert set(names) <= publish.PARTS.keys()
