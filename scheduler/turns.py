"""Turns: what many shards have to do at once, done by one after the other, with rests."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scheduler.patience import Patience

REST, LONGEST_REST_S = 1.5, 0.5
"""How long is rested behind each turn, as a share of what it took, and at most (s)."""


class Turns:
    """Has one at a time of those who share it go on, and all rest behind each turn.

    So whatever one command asks of all shards takes a part of the processors, and timers that fall
    due meanwhile find the others free. Who waits gets its turn in the order of asking.
    """

    def __init__(self) -> None:
        """Nobody is at it."""
        self._busy = asyncio.Lock()

    @asynccontextmanager
    async def turn(self, patience: Patience) -> AsyncIterator[None]:
        """One turn: short, and none within another, which would wait for itself. Who fails has no
        rest, and does not keep the others waiting for its store. `patience` rests."""
        async with self._busy:
            began_s = time.monotonic()
            yield
            await patience.rest(min(LONGEST_REST_S, REST * (time.monotonic() - began_s)))
