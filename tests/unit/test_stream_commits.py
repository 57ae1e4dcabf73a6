"""What Faust's consumer finds fit to be committed, where transactions leave gaps in the offsets."""

from collections.abc import Iterable
from typing import Any

from faust.types import TP

POSTS, RESULTS = TP("posts", 0), TP("results", 0)


async def deliver(consumer: Any, tp: TP, offsets: Iterable[int], at: int) -> None:
    """As its loop does, for records at `offsets` behind one at `at`; each is acked."""
    for offset in offsets:
        if offset - at > 1:
            await consumer._add_gap(tp, at + 1, offset)
        consumer._acked[tp].append(offset)
        at = offset


async def test_all_gaps_are_committed_over_at_once(consumer: Any) -> None:
    await deliver(consumer, RESULTS, range(3, 200, 2), at=1)
    assert consumer._new_offset(RESULTS) == 200
    assert not consumer._acked[RESULTS]


async def test_a_gap_behind_what_is_not_acked_is_not_committed(consumer: Any) -> None:
    await consumer._add_gap(RESULTS, 2, 5)  # 5 and 8 are in hand
    await consumer._add_gap(RESULTS, 6, 8)
    assert consumer._new_offset(RESULTS) is None
    consumer._acked[RESULTS].append(1)
    assert consumer._new_offset(RESULTS) == 2
    consumer._committed_offset[RESULTS] = 2
    assert consumer._new_offset(RESULTS) is None
    consumer._acked[RESULTS].append(5)
    assert consumer._new_offset(RESULTS) == 6


async def test_topics_are_committed_by_themselves(consumer: Any) -> None:
    await deliver(consumer, POSTS, range(10), at=-1)
    await deliver(consumer, RESULTS, [1, 4, 9], at=0)
    assert consumer._new_offset(POSTS) == 10
    assert consumer._new_offset(RESULTS) == 10
