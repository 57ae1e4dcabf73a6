"""The wheel in Redis as an onlooker sees it: bounded reads, none of which changes anything."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from scheduler.adapters.redis_errors import RAISED, translated
from scheduler.adapters.redis_keys import WATERMARK_FIELD, ShardKeys
from scheduler.adapters.redis_wheel import SLOT_MS, RedisWheel
from scheduler.lua import script
from scheduler.ports import Placed, Sight, Sighting, WheelCount, WheelMeta
from scheduler.timer import Timer, pack, unpack

PAGE = 1_000
"""Timers read at once of one sorted set."""

PAGE_SLOTS = 50
"""Slots read in one round trip, of each a page: some 3,000 timers where slots are of usual size."""

COUNTED_SLOTS = 500
"""Slots counted in one round trip."""


def waiting_sets(keys: ShardKeys) -> Sequence[str]:
    """Sorted sets, by due time, of timers that wait elsewhere than in a slot."""
    return (keys.held, keys.aside)


class RedisWheelView(RedisWheel):
    """The `WheelView` port."""

    def __init__(self, url: str, *, prefix: str = "") -> None:
        """See `RedisWheel`."""
        super().__init__(url, prefix=prefix)
        self._scripts["find"] = self._redis.register_script(script("find"))

    async def meta(self, shard: int) -> WheelMeta:
        """See `WheelView.meta`."""
        try:
            fields: dict[Any, Any] = await self._redis.hgetall(self._of(shard).meta)
        except RAISED as error:
            raise translated(error) from error
        return _meta({name.decode(): value.decode() for name, value in fields.items()})

    async def find(self, shard: int, timers: Sequence[Timer]) -> Sighting:
        """See `WheelView.find`."""
        keys = self._of(shard)
        asked: list[Any] = []
        for timer in timers:
            asked += (*divmod(timer.due_ms, SLOT_MS), pack(timer))
        now, flat, seen = await self._run(
            "find",
            [keys.meta, keys.slots, keys.in_flight, keys.awaited, keys.paused, *waiting_sets(keys)],
            [keys.slot_prefix, SLOT_MS, *asked],
        )
        return Sighting(
            _meta({flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}),
            int(now),
            [
                Sight(
                    waits=bool(seen[i]),
                    in_flight=bool(seen[i + 1]),
                    deadline_ms=None if seen[i + 2] == b"" else int(float(seen[i + 2])),
                )
                for i in range(0, len(seen), 3)
            ],
        )

    async def timers(self, shard: int) -> AsyncIterator[Sequence[Placed]]:
        """See `WheelView.timers`. In order of time, place by place."""
        keys = self._of(shard)
        async for slots in self._slots(keys, PAGE_SLOTS):
            pages = await self._pages([(keys.slot_prefix + str(slot), 0, 0) for slot in slots])
            for slot, page in zip(slots, pages, strict=True):
                key, start = keys.slot_prefix + str(slot), slot * SLOT_MS
                yield [Placed(unpack(packed, start + at), fired=False) for packed, at in page]
                async for more in self._rest(key, page):
                    yield [Placed(unpack(packed, start + at), fired=False) for packed, at in more]
        for key in [*waiting_sets(keys), *await self._parked(keys)]:
            async for page in self._rest(key, None):
                yield [Placed(unpack(packed, at), fired=False) for packed, at in page]
        async for page in self._rest(keys.awaited, None):
            yield [Placed(unpack(packed, at), fired=True) for packed, at in page]

    async def count(self, shard: int) -> WheelCount:
        """See `WheelView.count`."""
        keys = self._of(shard)
        size = await self.size(shard)
        waiting = 0
        try:
            async for slots in self._slots(keys, COUNTED_SLOTS):
                pipeline = self._redis.pipeline(transaction=False)
                for slot in slots:
                    pipeline.zcard(keys.slot_prefix + str(slot))
                waiting += sum(await pipeline.execute())
            for key in [*waiting_sets(keys), *await self._parked(keys)]:
                waiting += await self._redis.zcard(key)
        except RAISED as error:
            raise translated(error) from error
        return WheelCount(waiting, size.in_flight, size.awaited)

    async def _slots(self, keys: ShardKeys, count: int) -> AsyncIterator[list[int]]:
        """The occupied slots in order, `count` at a time."""
        after = "0"
        while True:
            try:
                found: list[Any] = await self._redis.zrangebyscore(
                    keys.slots, after, "+inf", 0, count
                )
            except RAISED as error:
                raise translated(error) from error
            if found:
                yield [int(slot) for slot in found]
            if len(found) < count:
                return
            after = f"({int(found[-1])}"

    async def _parked(self, keys: ShardKeys) -> list[str]:
        """The sorted sets, by due time, of timers of who is paused or was."""
        try:
            parked: list[Any] = await self._redis.hvals(keys.paused)
            resumed: list[Any] = await self._redis.zrangebyscore(keys.slots, -1, -1)
        except RAISED as error:
            raise translated(error) from error
        return [keys.slot_prefix + slot.decode() for slot in [*parked, *resumed]]

    async def _rest(
        self, key: str, page: list[tuple[bytes, int]] | None
    ) -> AsyncIterator[list[tuple[bytes, int]]]:
        """What a sorted set holds behind its first `page` (None: all of it), by score."""
        at, skip = 0, 0
        while page is None or len(page) == PAGE:
            if page:
                # By score, since ranks shift while timers are claimed; and past those of the last
                # score that were read already.
                last = page[-1][1]
                same = sum(1 for _, score in page if score == last)
                skip = skip + same if last == at else same
                at = last
            (page,) = await self._pages([(key, at, skip)])
            if page:
                yield page

    async def _pages(self, wanted: list[tuple[str, int, int]]) -> list[list[tuple[bytes, int]]]:
        """A page of each of several sorted sets: from which score on, and how many to skip."""
        pipeline = self._redis.pipeline(transaction=False)
        for key, at, skip in wanted:
            pipeline.zrangebyscore(key, at, "+inf", skip, PAGE, withscores=True)
        try:
            found = await pipeline.execute()
        except RAISED as error:
            raise translated(error) from error
        return [[(packed, int(score)) for packed, score in page] for page in found]


def _meta(fields: dict[str, str]) -> WheelMeta:
    return WheelMeta(
        gen=fields.get("gen"),
        seq=int(fields.get("seq", -1)),
        nonce=fields.get("nonce", ""),
        owned="epoch" in fields,
        watermarks={
            name.removeprefix(WATERMARK_FIELD): int(at)
            for name, at in fields.items()
            if name.startswith(WATERMARK_FIELD)
        },
    )
