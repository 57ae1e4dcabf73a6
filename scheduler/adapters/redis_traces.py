"""The trace contexts of posts, beside the wheel in Redis, for as long as timers may wait."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import structlog

from scheduler.adapters.redis_client import client
from scheduler.adapters.redis_keys import trace_key

log = structlog.get_logger(__name__)

KEPT_MS = 14 * 24 * 3600 * 1000
"""How long a context is kept. What waits longer starts a trace of its own."""

CALL_S = 0.25
"""No batch waits for its traces longer than this."""

REST_S = 5.0
"""After a call that failed nobody asks for so long: a Redis in trouble is not to make each batch
late."""


class RedisTraces:
    """Contexts by post. One that is lost, as with the rest of Redis, costs a trace its continuation
    and nothing else."""

    def __init__(self, url: str, *, prefix: str = "") -> None:
        """Connects on the first call."""
        self._redis = client(url, CALL_S)
        self._prefix = prefix
        self._rests_until_s = 0.0

    async def remember(self, shard: int, contexts: Mapping[str, str]) -> Mapping[str, str]:
        """Keep the context of each post, where it has none yet; returns those that they had
        before. Raises nothing: what cannot be kept is lost."""
        if not contexts:
            return {}

        async def ask() -> Mapping[str, str]:
            async with self._redis.pipeline(transaction=False) as pipe:
                for post_id, context in contexts.items():
                    key = trace_key(self._prefix, shard, post_id)
                    pipe.set(key, context, nx=True, px=KEPT_MS)
                    pipe.get(key)
                answers = await pipe.execute()
            return _read(contexts, answers[1::2])

        kept = await self._asked(ask)
        return {post: found for post, found in kept.items() if found != contexts[post]}

    async def recall(self, shard: int, post_ids: Sequence[str]) -> Mapping[str, str]:
        """The contexts of those posts that have one. Raises nothing: what cannot be read is as if
        it had been lost."""
        if not post_ids:
            return {}

        async def ask() -> Mapping[str, str]:
            keys = [trace_key(self._prefix, shard, post_id) for post_id in post_ids]
            return _read(post_ids, await self._redis.mget(keys))

        return await self._asked(ask)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _asked(self, ask: Callable[[], Awaitable[Mapping[str, str]]]) -> Mapping[str, str]:
        clock = asyncio.get_running_loop().time
        if clock() < self._rests_until_s:
            return {}
        try:
            async with asyncio.timeout(CALL_S):
                return await ask()
        except Exception as error:
            # Whatever it is: no trace is worth the work that it tells of.
            self._rests_until_s = clock() + REST_S
            log.debug("traces are not at hand", reason=str(error) or type(error).__name__)
            return {}


def _read(post_ids: Iterable[str], found: Iterable[Any]) -> Mapping[str, str]:
    pairs = zip(post_ids, found, strict=True)
    return {post_id: context.decode() for post_id, context in pairs if context is not None}
