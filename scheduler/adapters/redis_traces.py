"""The trace contexts of posts, beside the wheel in Redis, for as long as timers may wait."""

from collections.abc import Mapping, Sequence
from typing import Any

from scheduler.adapters.redis_client import client
from scheduler.adapters.redis_errors import RAISED, translated
from scheduler.adapters.redis_keys import trace_key

KEPT_MS = 14 * 24 * 3600 * 1000
"""How long a context is kept. What waits longer starts a trace of its own."""

TIMEOUT_S = 1.0
"""No timer waits for its trace longer than this."""


class RedisTraces:
    """Contexts by post. One that is lost, as with the rest of Redis, costs a trace its continuation
    and nothing else."""

    def __init__(self, url: str, *, prefix: str = "") -> None:
        """Connects on the first call."""
        self._redis = client(url, TIMEOUT_S)
        self._prefix = prefix

    async def remember(self, shard: int, contexts: Mapping[str, str]) -> Mapping[str, str]:
        """Keep the context of each post, where it has none yet; returns those that they had
        before. Raises `StoreUnavailableError`."""
        if not contexts:
            return {}
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for post_id, context in contexts.items():
                    key = trace_key(self._prefix, shard, post_id)
                    pipe.set(key, context, nx=True, px=KEPT_MS)
                    pipe.get(key)
                answers = await pipe.execute()
        except RAISED as error:
            raise translated(error) from error
        kept = zip(contexts.items(), answers[1::2], strict=True)
        return {
            post_id: found.decode()
            for (post_id, context), found in kept
            if found is not None and found.decode() != context
        }

    async def recall(self, shard: int, post_ids: Sequence[str]) -> Mapping[str, str]:
        """The contexts of those posts that have one. Raises `StoreUnavailableError`."""
        if not post_ids:
            return {}
        try:
            keys = [trace_key(self._prefix, shard, post_id) for post_id in post_ids]
            found: list[Any] = await self._redis.mget(keys)
        except RAISED as error:
            raise translated(error) from error
        pairs = zip(post_ids, found, strict=True)
        return {post_id: context.decode() for post_id, context in pairs if context is not None}

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
