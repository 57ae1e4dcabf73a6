"""What the dashboard's first page shows, asked for once however many look."""

import asyncio
from collections import Counter
from time import monotonic
from typing import Any

from pod_automation.api.live import Live
from pod_automation.cli.loop import answer
from pod_automation.overview import look, summary
from scheduler.adapters.redis_view import RedisWheelView
from scheduler.errors import EngineError
from scheduler.settings import Settings

KEPT_S = 1.5
"""How old an answer may be that is given to somebody else too."""

SOON_MS = 600_000
MOST_TIMERS = 20_000
"""Timers of one shard that are looked at for what is due soon."""

MOST_PODS = 20


class Sight:
    """The overview, at most every `KEPT_S`."""

    def __init__(self, settings: Settings, live: Live) -> None:
        self._settings = settings
        self._live = live
        self._asking = asyncio.Lock()
        self._seen: dict[str, Any] = {}
        self._seen_at = -KEPT_S

    async def overview(self) -> dict[str, Any]:
        """Stores, processes, shards, queue, activities, and what is due soon by pod; each store by
        itself, so that one that is away hides no other."""
        async with self._asking:
            if monotonic() - self._seen_at >= KEPT_S:
                seen, soon = await asyncio.gather(look(self._settings), self._due_soon())
                self._seen = {**summary(self._settings, seen), "due_soon": soon}
                self._seen_at = monotonic()
        return {**self._seen, "live": self._live.summary()}

    async def stores(self) -> dict[str, Any]:
        """Of each store whether it answers, and what it says where it does not."""
        stores: dict[str, Any] = (await self.overview())["stores"]
        return stores

    async def _due_soon(self) -> dict[str, Any] | None:
        """The pods with the most timers that are due within `SOON_MS`; None where Redis is away.
        `complete` is false where more are due than are looked at."""
        view = RedisWheelView(self._settings.redis_url, prefix=self._settings.topic_prefix)
        try:
            return await answer("Redis", self._counted(view))
        except EngineError:
            return None
        finally:
            await view.close()

    async def _counted(self, view: RedisWheelView) -> dict[str, Any]:
        until_ms = await view.now_ms() + SOON_MS
        pods: Counter[str] = Counter()
        complete = True
        for shard in range(self._settings.partitions):
            seen = 0
            async for page in view.timers(shard):
                due = [each for each in page if not each.fired and each.timer.due_ms <= until_ms]
                pods.update(each.timer.pod_id for each in due)
                seen += len(due)
                if len(due) < len(page):
                    break
                if seen >= MOST_TIMERS:
                    complete = False
                    break
        return {
            "within_s": SOON_MS // 1000,
            "complete": complete,
            "pods": [
                {"pod_id": pod, "timers": count} for pod, count in pods.most_common(MOST_PODS)
            ],
        }
