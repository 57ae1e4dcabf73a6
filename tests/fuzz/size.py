"""How much is fuzzed, and from which seed: the environment says, so that a night can do more."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

RECORDS = int(os.environ.get("FUZZ_RECORDS", "5000"))
SEED = os.environ.get("FUZZ_SEED", "1")


def randomness(purpose: str, number: int) -> Random:
    """For one record alone, so that it can be made again without those before it."""
    return Random(f"{SEED}/{purpose}/{number}")


@contextmanager
def told(purpose: str, number: int, value: bytes | None) -> Iterator[None]:
    """Whatever is raised inside names the seed and the record."""
    try:
        yield
    except BaseException as error:
        shown = "null" if value is None else value.hex()
        if len(shown) > 20_000:
            shown = f"{shown[:20_000]}... ({len(value or b'')} bytes)"
        error.add_note(f"FUZZ_SEED={SEED} {purpose} {number}\nrecord: {shown}")
        raise
