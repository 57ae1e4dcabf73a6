"""Torture: real servers, real processes, everything killed; then everything counted.

make torture ARGS="--rounds 22 --seed 7"
"""

import argparse
import asyncio
import json
import logging
import sys
import time
import traceback
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.torture.bugs import BUGS
from tests.torture.round import Outcome, torture
from tests.torture.schedule import schedule
from tests.torture.servers import running

DEFAULT_ROUNDS = 8
SECONDS = 15.0


def main() -> int:
    """Returns 0 when nothing was lost, twice, early, or otherwise wrong."""
    wanted = _arguments()
    folder = Path(wanted.dir) / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    outcomes: list[Outcome] = []
    # The torture's own clients lose their broker all the time.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        asyncio.run(_run(wanted, folder, outcomes))
    except KeyboardInterrupt:
        _say("interrupted")
    except Exception:
        # Of the torture itself; what was found until then is told all the same.
        _say(traceback.format_exc())
    return _summary(wanted, folder, outcomes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make torture ARGS=...", description=__doc__)
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="which faults, when (%(default)s)")
    parser.add_argument("--only", type=int, help="play this round of the schedule alone")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of faults (%(default)s)")
    parser.add_argument(
        "--brokers",
        type=int,
        choices=(1, 3),
        help="one Kafka or three; else half of the rounds each",
    )
    parser.add_argument("--break", dest="bug", choices=sorted(BUGS), help="a bug to be noticed")
    parser.add_argument("--stop", action="store_true", help="end with the first bad round")
    parser.add_argument("--dir", default=".torture", help="where the logs go (%(default)s)")
    return parser.parse_args()


async def _run(wanted: argparse.Namespace, folder: Path, outcomes: list[Outcome]) -> None:
    first = (wanted.rounds + 1) // 2
    parts = [(1, first), (3, wanted.rounds - first)]
    if wanted.brokers:
        parts = [(wanted.brokers, wanted.rounds)]
    for brokers, rounds in parts:
        if not rounds:
            continue
        plans = schedule(rounds, wanted.seed, wanted.seconds, brokers)
        # Not in the checkout: PostgreSQL runs as another user, who must be able to enter.
        with TemporaryDirectory(prefix="torture-") as home:
            Path(home).chmod(0o755)
            _say(f"starting {brokers} broker{'s' if brokers > 1 else ''}, Redis and PostgreSQL")
            async with running(Path(home), brokers) as servers:
                for number, plan in enumerate(plans):
                    if wanted.only is not None and number != wanted.only:
                        continue
                    name = f"b{brokers}r{number}"
                    outcome = await torture(
                        servers,
                        plan,
                        name=name,
                        seed=wanted.seed * 1000 + number,
                        seconds=wanted.seconds,
                        folder=folder / name,
                        bug=wanted.bug,
                    )
                    outcomes.append(outcome)
                    _tell(outcome)
                    if outcome.violations and wanted.stop:
                        return


def _tell(outcome: Outcome) -> None:
    figures = outcome.figures
    faults = sum(outcome.done.values())
    _say(
        f"{outcome.name}: {figures['activities']} activities, {figures['fired']} sent,"
        f" {faults} faults, settled in {figures['settle_s']} s:"
        f" {len(outcome.violations) or 'no'} violation{'s' if len(outcome.violations) != 1 else ''}"
    )
    for line in outcome.told:
        _say("  " + line)


def _summary(wanted: argparse.Namespace, folder: Path, outcomes: list[Outcome]) -> int:
    done: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    for outcome in outcomes:
        done += outcome.done
        missed += outcome.missed
        kinds.update(each.kind for each in outcome.violations)
        ends.update(outcome.figures["ends"])
    result: dict[str, Any] = {
        "seed": wanted.seed,
        "rounds": len(outcomes),
        "bug": wanted.bug,
        "activities": sum(each.figures["activities"] for each in outcomes),
        "fired": sum(each.figures["fired"] for each in outcomes),
        "ends": dict(ends),
        "processes_killed": sum(each.figures["exits"].get("-9", 0) for each in outcomes),
        "faults": dict(sorted(done.items())),
        "without_occasion": dict(sorted(missed.items())),
        "violations": dict(kinds),
        "slowest_settle_s": max((each.figures["settle_s"] for each in outcomes), default=None),
        "bad_rounds": [each.name for each in outcomes if each.violations],
    }
    (folder / "summary.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))
    _say(f"logs: {folder}")
    complete = wanted.only is not None or len(outcomes) == wanted.rounds
    return 0 if complete and outcomes and not kinds else 1


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
