"""What has been done, remembered over attempts: so that no engagement is done twice knowingly."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from scheduler.adapters.redis_client import client
from scheduler.adapters.redis_errors import RAISED, translated

WEEK_S = 7 * 24 * 3600.0

TIMEOUT_S = 5.0
"""A Redis that does not answer within this time counts as away."""


class DoneStore(Protocol):
    """Remembers idempotency keys. What either call raises counts as "away for now", and it is
    called again, with back-off; but for bugs (a `TypeError`, `AttributeError`, `NameError`), which
    fail the attempt, and the engine's errors that are not transient (a `PermanentError`), which end
    the executor."""

    async def is_done(self, key: str) -> bool:
        """Whether `mark_done` was called with `key`, by any process that shares the store."""
        ...

    async def mark_done(self, key: str) -> None:
        """Remember `key`; may be called again."""
        ...


class MemoryDone:
    """A `DoneStore` of this process alone: holds the last `size` keys, until the process ends."""

    def __init__(self, size: int = 100_000) -> None:
        self._size = size
        self._keys: OrderedDict[str, None] = OrderedDict()

    async def is_done(self, key: str) -> bool:
        """See `DoneStore.is_done`."""
        if key in self._keys:
            self._keys.move_to_end(key)
            return True
        return False

    async def mark_done(self, key: str) -> None:
        """See `DoneStore.mark_done`."""
        self._keys[key] = None
        self._keys.move_to_end(key)
        while len(self._keys) > self._size:
            self._keys.popitem(last=False)


class RedisDone:
    """A `DoneStore` for all executors: one Redis key each, `<prefix>executor:done:<key>`.

    `ttl_s` must be longer than all attempts of an engagement together may take. Where the memory is
    precious count with 150 bytes for each engagement of that time.
    """

    def __init__(self, url: str, ttl_s: float = WEEK_S, *, prefix: str = "") -> None:
        """Connects on first use. Raises `SettingsError`."""
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._prefix = f"{prefix}executor:done:"
        self._redis = client(url, TIMEOUT_S)

    async def is_done(self, key: str) -> bool:
        """See `DoneStore.is_done`. Raises `EngineError` where Redis refuses."""
        with _translated():
            return bool(await self._redis.exists(self._prefix + key))

    async def mark_done(self, key: str) -> None:
        """See `DoneStore.mark_done`. Raises `EngineError` where Redis refuses."""
        with _translated():
            await self._redis.set(self._prefix + key, b"1", px=self._ttl_ms)

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except RAISED as error:
        meant = translated(error)
        if meant is error:
            raise
        raise meant from error
