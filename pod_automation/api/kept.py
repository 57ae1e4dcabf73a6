"""An answer that is asked for once, however many want it."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Generic, TypeVar

_T = TypeVar("_T")

KEPT_S = 1.5
"""How old an answer may be that is given to somebody else too."""


class Kept(Generic[_T]):
    """An answer that is asked for at most every `KEPT_S`, however many want it."""

    def __init__(self, ask: Callable[[], Awaitable[_T]]) -> None:
        self._ask = ask
        self._asking = asyncio.Lock()
        self._last: tuple[float, _T] | None = None

    async def value(self) -> _T:
        """The answer, as old as `KEPT_S` at most."""
        async with self._asking:
            if self._last is None or monotonic() - self._last[0] >= KEPT_S:
                answer = await self._ask()
                self._last = monotonic(), answer
            return self._last[1]
