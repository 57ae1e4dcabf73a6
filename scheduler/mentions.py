"""Which attempts a stretch of a shard's log speaks of."""

from collections.abc import Collection

from msgspec import DecodeError, Struct
from msgspec.json import Decoder

from scheduler.ports import LogView


class _Said(Struct):
    activity_id: str
    attempt: int
    status: str = ""


class Mentions(Struct, frozen=True):
    """`attempts` as (activity, attempt); `last` is the offset of the last record that counted, -1
    without one, and `count` how many did."""

    attempts: frozenset[tuple[str, int]]
    last: int
    count: int


_decoder = Decoder(_Said)


async def dispatched(
    log: LogView, topic: str, shard: int, start: int, end: int, among: Collection[str]
) -> Mentions:
    """What [start, end) of `engagement-status` has as dispatched, committed; `attempts` are those
    of the activities `among`."""
    return await _mentions(
        log, topic, shard, start, end, among, committed=True, status="dispatched"
    )


async def reported(
    log: LogView, topic: str, shard: int, start: int, end: int, among: Collection[str]
) -> Mentions:
    """What [start, end) of `engagement-executed` has results of, as workers read it."""
    return await _mentions(log, topic, shard, start, end, among, committed=False, status="")


async def _mentions(
    log: LogView,
    topic: str,
    shard: int,
    start: int,
    end: int,
    among: Collection[str],
    *,
    committed: bool,
    status: str,
) -> Mentions:
    found: set[tuple[str, int]] = set()
    last, count = -1, 0
    if start < end:
        async for page in log.read(topic, shard, start, end, committed=committed):
            for offset, value in page:
                try:
                    said = _decoder.decode(value or b"")
                except DecodeError:
                    continue  # nothing that anybody would apply
                if status and said.status != status:
                    continue
                last, count = offset, count + 1
                if said.activity_id in among:
                    found.add((said.activity_id, said.attempt))
    return Mentions(frozenset(found), last, count)
