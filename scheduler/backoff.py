"""Growing waits between tries, for loops that go on until they are stopped."""

import asyncio
import random

FIRST_S = 0.1
"""With less, aiokafka connects 1,800 times a second to a broker that is down."""

LAST_S = 2.0
"""A store that is back is noticed within this time."""


class Backoff:
    """Waits from `FIRST_S` to `LAST_S`, doubling, with jitter."""

    def __init__(self) -> None:
        self._seconds = FIRST_S

    def reset(self) -> None:
        """It works again."""
        self._seconds = FIRST_S

    def next(self) -> float:
        """How long to wait now, in seconds."""
        seconds = self._seconds
        self._seconds = min(seconds * 2, LAST_S)
        # Jitter keeps many shards from knocking at the same moment; nothing secret about it.
        return seconds * random.uniform(0.5, 1.0)  # noqa: S311

    async def wait(self) -> None:
        """Wait that long."""
        await asyncio.sleep(self.next())
