"""Which faults come when: a pure function of the seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.torture.faults import KILLS, OF_SEVERAL_BROKERS, OTHERS, ZOMBIES

KILLS_A_ROUND = 10
ZOMBIES_A_ROUND = 2
OTHERS_A_ROUND = 7
PLAIN = 5
"""How often a kill at no point of its own comes for one at each point."""


@dataclass(frozen=True)
class Planned:
    """A fault, so many seconds after the round's begin, with a seed for its own choices."""

    at_s: float
    fault: str
    seed: int


def schedule(rounds: int, seed: int, seconds: float, brokers: int) -> list[list[Planned]]:
    """The faults of each round: so many kills, zombies and others, of each the kinds in turn.

    A kind comes again only when each of its like has come, so that 22 rounds, half of them with
    three brokers, have 220 kills, 44 zombies, and all else five times at least.
    """
    rng = random.Random(f"{seed}/{brokers}")
    # Twice: they come in half of the rounds alone.
    others = [*OTHERS, *([*OF_SEVERAL_BROKERS] * 2 if brokers > 1 else ())]
    kills = _dealt(rng, [*KILLS, *["kill"] * (PLAIN - 1)])
    zombies, rest = _dealt(rng, [*ZOMBIES]), _dealt(rng, others)
    plans = []
    for _ in range(rounds):
        faults = [next(kills) for _ in range(KILLS_A_ROUND)]
        faults += [next(zombies) for _ in range(ZOMBIES_A_ROUND)]
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
