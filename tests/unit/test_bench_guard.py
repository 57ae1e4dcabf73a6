"""What the guard of the benchmarks alarms for, and what it does not judge."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec import convert

from bench import guard
from bench.guard import (
    BASELINE,
    Baseline,
    Measured,
    Repeat,
    compared,
    least_disturbed,
    unjudged,
    unpaired,
)
from bench.harness import Bench
from bench.meter import Spent

CORES = 2


def stored(*figures: Measured) -> Baseline:
    return Baseline("abc", CORES, figures)


@pytest.mark.parametrize(
    ("kind", "now", "alarming"),
    [
        ("cost", 1.2, False),
        ("cost", 1.3, True),
        ("rate", 0.7, False),
        ("rate", 0.6, True),
        ("size", 1.04, False),
        ("size", 1.06, True),
        ("cost", 0.5, False),
        ("rate", 3.0, False),
    ],
)
def test_it_alarms_for_what_is_worse(kind: Any, now: float, alarming: bool) -> None:
    (verdict,) = compared([Measured("x", kind, now)], stored(Measured("x", kind, 1)), CORES)
    assert verdict.alarming is alarming


HALF_AS_GOOD = [
    (Measured("rate", "rate", 0.5), Measured("rate", "rate", 1)),
    (Measured("cost", "cost", 2), Measured("cost", "cost", 1)),
    (Measured("size", "size", 2), Measured("size", "size", 1)),
]


@pytest.mark.parametrize(
    ("cores", "alarms"), [(2, ["rate", "cost", "size"]), (4, ["cost", "size"])]
)
def test_rates_of_a_machine_with_other_cores_are_not_judged(
    cores: int, alarms: Sequence[str]
) -> None:
    then = stored(*(before for _, before in HALF_AS_GOOD))
    verdicts = compared([now for now, _ in HALF_AS_GOOD], then, cores)
    assert [each.now.name for each in verdicts if each.alarming] == alarms
    told = unjudged(verdicts, then, cores)
    assert told == (
        [] if cores == CORES else ["rates are not judged: the baseline is of 2 cores, here are 4"]
    )


def test_a_rate_that_others_disturbed_is_not_judged() -> None:
    then = stored(*(Measured(name, "rate", 1) for name in ("alone", "beside")))
    now = [Measured("alone", "rate", 0.5, 0.2), Measured("beside", "rate", 0.5, 0.3)]
    verdicts = compared(now, then, CORES)
    assert [each.alarming for each in verdicts] == [True, False]
    assert unjudged(verdicts, then, CORES) == [
        "beside is not judged: others used 0.3 of a core beside it"
    ]


@pytest.mark.parametrize(
    ("others", "taken", "measured"),
    [([0.1, 0.0], 0.1, 1), ([0.9, 0.1], 0.1, 2), ([0.5, 0.9], 0.5, 2)],
)
async def test_a_repeat_that_others_disturbed_is_measured_again(
    others: Sequence[float], taken: float, measured: int
) -> None:
    left = iter(others)

    async def once() -> Repeat:
        return Repeat(1, {}, next(left))

    found = await least_disturbed(lambda _: None, once)
    assert (found.others, len(others) - len([*left])) == (taken, measured)


async def test_our_own_process_is_judged_beside_the_sum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = (
        Spent({"others": 0.1}, {"worker": worker, "Kafka": 90.0, "bench": 1000.0})
        for worker in (10.0, 30.0, 20.0)
    )

    async def once() -> tuple[float, Spent]:
        return 5.0, next(spent)

    monkeypatch.setattr(guard, "loop", lambda: (1000.0, 1000.0))
    bench = Bench({}, {}, tmp_path, quick=True, repeats=3, say=lambda _: None)
    assert await guard._process(bench, "ingest", "worker", once) == [
        Measured("ingest, processor", "cost", 110),
        Measured("ingest, worker", "cost", 20),
        Measured("ingest", "rate", 5, 0.1),
    ]


def test_what_only_one_of_both_has_is_told() -> None:
    now = [Measured("new", "cost", 1), Measured("both", "cost", 1)]
    then = stored(Measured("both", "cost", 1), Measured("old", "cost", 1))
    assert unpaired(now, then) == [
        "old is not measured any more: store a new baseline with make bench-quick ARGS=--save",
        "new is not in the baseline: store a new baseline with make bench-quick ARGS=--save",
    ]


@pytest.mark.parametrize(
    ("names", "code"), [(["x"], 0), ([], 1), (["x", "new"], 1)], ids=["same", "gone", "new"]
)
def test_a_figure_without_its_pair_fails(
    names: Sequence[str],
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def measured(_: object) -> list[Measured]:
        return [Measured(name, "cost", 1) for name in names]

    monkeypatch.setattr(guard, "_run", measured)
    monkeypatch.setattr(guard, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr("sys.argv", ["guard"])
    guard.BASELINE.write_bytes(
        orjson.dumps(
            {"commit": "abc", "cores": 2, "figures": [{"name": "x", "kind": "cost", "value": 1}]}
        )
    )
    assert guard.main() == code


def test_the_stored_baseline_is_read() -> None:
    found = convert(orjson.loads(BASELINE.read_bytes()), Baseline)
    assert {"ingest, worker", "drain, dispatcher"} <= {each.name for each in found.figures}
