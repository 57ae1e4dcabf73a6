"""What the dashboard's first page shows, asked for once however many look."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any

from pod_automation.api.kept import Kept
from pod_automation.api.live import Live
from pod_automation.cli.loop import answer
from pod_automation.overview import look, ready, summary
from scheduler.adapters.redis_view import RedisWheelView
from scheduler.errors import EngineError
from scheduler.settings import Settings
from scheduler.stats import ActivityCounts

COUNTED_SHARE = 20
"""The activities are counted anew after so many times what the last look took: to count a hundred
million must not be all that PostgreSQL does, and a small site sees each at once."""

SOON_MS = 600_000
MOST_TIMERS = 20_000
"""Timers of one shard that are looked at for what is due soon."""

MOST_PODS = 20


class Sight:
    """The overview, and whether all is ready."""

    def __init__(self, settings: Settings, live: Live) -> None:
        self._settings = settings
        self._live = live
        self._activities: ActivityCounts | None = None
        self._activities_until = 0.0
        self._seen = Kept(self._look)
        self._ready = Kept(partial(ready, settings))

    async def overview(self) -> dict[str, Any]:
        """Stores, processes, shards, queue, activities, and what is due soon by pod; each store by
        itself, so that one that is away hides no other."""
        return {**await self._seen.value(), "live": self._live.summary()}

    async def stores(self) -> Mapping[str, bool]:
        """Of each store whether it answers and is set up."""
        return await self._ready.value()

    async def _look(self) -> dict[str, Any]:
        began_s = monotonic()
        counted = self._activities if began_s < self._activities_until else None
        seen, soon = await asyncio.gather(look(self._settings, counted), self._due_soon())
        if counted is None:
            record = seen.postgresql.value
            self._activities = None if record is None else record.activities
            now_s = monotonic()
            self._activities_until = now_s + COUNTED_SHARE * (now_s - began_s)
        return {**summary(self._settings, seen), "due_soon": soon}

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
