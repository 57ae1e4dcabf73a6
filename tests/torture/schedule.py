"""Which faults come when: a pure function of the seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.torture.faults import KILLS, OF_SEVERAL_BROKERS, OTHERS, ZOMBIES

KILLS_A_ROUND = 7
OTHERS_A_ROUND = 4


@dataclass(frozen=True)
class Planned:
    """A fault, so many seconds after the round's begin, with a seed for its own choices."""

    at_s: float
    fault: str
    seed: int


def schedule(rounds: int, seed: int, seconds: float, brokers: int) -> list[list[Planned]]:
    """The faults of each round: kills and a zombie in each, all other kinds in turn.

    Every kind of kill and of zombie comes about equally often; of the others each has come before
    one comes again, so that 28 rounds have each of them five times at least.
    """
    rng = random.Random(f"{seed}/{brokers}")
    others = [*OTHERS, *(OF_SEVERAL_BROKERS if brokers > 1 else ())]
    kills, zombies, rest = _dealt(rng, [*KILLS]), _dealt(rng, [*ZOMBIES]), _dealt(rng, others)
    plans = []
    for _ in range(rounds):
        faults = [next(kills) for _ in range(KILLS_A_ROUND)]
        faults.append(next(zombies))
        faults += [next(rest) for _ in range(OTHERS_A_ROUND)]
        rng.shuffle(faults)
        # Spread over the round, each a little off its place, and all after some traffic.
        step = seconds / len(faults)
        plans.append(
            [
                Planned(
                    round(0.5 + step * (at + rng.uniform(-0.4, 0.4)), 2), fault, rng.getrandbits(32)
                )
                for at, fault in enumerate(faults, 1)
            ]
        )
    return plans


def _dealt(rng: random.Random, kinds: list[str]) -> Iterator[str]:
    """Endlessly, and every kind once before any comes again."""
    while True:
        deck = kinds.copy()
        rng.shuffle(deck)
        yield from deck
