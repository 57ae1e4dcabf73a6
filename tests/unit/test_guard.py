"""What is compared before the first record of a partition is applied."""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

import pytest

from scheduler.errors import PermanentError, StoreUnavailableError
from scheduler.ports import Record, SourceRecord
from streams.guard import FILLED_AT_ONCE, GuardedApplier
from streams.source_log import SourceLog
from tests.unit.applying import SHARD, TOPIC, RowsInMemory


class Source:
    """A topic that ends at `end` and has records at `offsets`."""

    def __init__(
        self, end: int, offsets: Collection[int] = (), acked_upto: int | None = None
    ) -> None:
        self.end = end
        self.offsets = offsets
        self.acked_upto = acked_upto
        self.away = 0
        self.asked = 0
        self.reads: list[tuple[int, int]] = []

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        self.asked += 1
        if self.asked <= self.away:
            raise StoreUnavailableError("Kafka", "away")
        return dict.fromkeys(partitions, self.end)

    async def next_of_group(self, partitions: Collection[int]) -> Mapping[int, int]:
        acked = 10**9 if self.acked_upto is None else self.acked_upto
        return dict.fromkeys(partitions, acked + 1)

    async def read(
        self, partition: int, start: int, end: int, limit: int
    ) -> Sequence[SourceRecord]:
        self.reads.append((start, end))
        return records(*[offset for offset in self.offsets if start <= offset < end][:limit])


class Applied:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.offsets: list[int] = []
        self.batches: list[list[int]] = []
        self.looks = 0

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        self.batches.append([record.offset for record in records])
        self.offsets += self.batches[-1]

    async def catch_up(self) -> None:
        self.looks += 1


def guarded(source: Source, applied_upto: int) -> tuple[GuardedApplier, Applied]:
    rows = RowsInMemory()
    rows.at = applied_upto
    inner = Applied()
    record, log = cast(Record, rows), cast(SourceLog, source)
    return GuardedApplier(inner, SHARD, TOPIC, record, log), inner


def records(*offsets: int) -> list[SourceRecord]:
    return [SourceRecord(TOPIC, SHARD, offset, None, b"v") for offset in offsets]


@pytest.mark.parametrize("end", [11, 12, 1000])
async def test_a_topic_that_reaches_the_watermark_passes(end: int) -> None:
    guard, inner = guarded(Source(end), 10)
    await guard.catch_up()
    await guard.apply(records(11))
    assert (inner.looks, inner.offsets) == (1, [11])


async def test_a_topic_that_ends_before_the_watermark_is_refused() -> None:
    guard, inner = guarded(Source(10), 10)
    with pytest.raises(PermanentError, match="recreated"):
        await guard.catch_up()
    with pytest.raises(PermanentError, match="recreated"):
        await guard.apply(records(0))
    assert not inner.offsets


async def test_it_is_compared_once_and_waited_for() -> None:
    source = Source(11)
    source.away = 2
    guard, inner = guarded(source, 10)
    await guard.apply(records(11))
    await guard.apply(records(12))
    await guard.catch_up()
    assert source.asked == 3
    assert inner.offsets == [11, 12]


@pytest.mark.parametrize("first", [5, 11, 13])  # a redelivery, the next, behind a gap
async def test_gaps_without_records_pass(first: int) -> None:
    guard, inner = guarded(Source(100), 10)
    await guard.apply(records(first))
    await guard.apply(records(50))
    assert inner.offsets == [first, 50]


async def test_what_the_stream_has_skipped_is_applied_first() -> None:
    guard, inner = guarded(Source(100, (11, 12, 14, 17)), 10)
    await guard.apply(records(13, 15))
    await guard.apply(records(16, 18))
    assert inner.offsets == [11, 12, 13, 14, 15, 16, 17, 18]


async def test_gaps_without_records_are_looked_up_once_and_leave_the_batch_whole() -> None:
    # A transaction a record: a marker behind each.
    source = Source(100, range(11, 100, 2))
    guard, inner = guarded(source, 10)
    await guard.apply(records(*range(11, 31, 2)))
    assert len(source.reads) == 1
    await guard.apply(records(*range(31, 51, 2)))
    assert len(source.reads) == 2
    await guard.apply(records(*range(31, 51, 2)))  # a redelivery
    await guard.apply(records(50, 51, 52))
    assert len(source.reads) == 2
    assert [len(batch) for batch in inner.batches] == [10, 10, 10, 3]


async def test_what_was_skipped_between_others_is_found_in_all_gaps() -> None:
    topic = [*range(11, 40), *range(41, 60, 3)]
    source = Source(100, topic)
    guard, inner = guarded(source, 10)
    await guard.apply(records(*(offset for offset in topic if offset % 4)))
    assert inner.offsets == topic
    assert inner.offsets == sorted(inner.offsets)


async def test_a_long_gap_between_others_keeps_the_order() -> None:
    gap = range(13, 13 + 2 * FILLED_AT_ONCE)
    source = Source(10_000, [*range(11, gap.stop + 2)])
    guard, inner = guarded(source, 10)
    await guard.apply(records(11, 12, gap.stop, gap.stop + 1))
    assert inner.offsets == [*range(11, gap.stop + 2)]


async def test_a_long_gap_is_read_in_pieces() -> None:
    gap = range(11, 11 + 3 * FILLED_AT_ONCE + 1)
    guard, inner = guarded(Source(10_000, gap), 10)
    await guard.apply(records(gap.stop))
    assert inner.offsets == [*gap, gap.stop]


async def test_what_a_former_owner_applied_meanwhile_is_not_skipped() -> None:
    source = Source(100, (11, 12))
    guard, inner = guarded(source, 10)
    await guard.catch_up()
    guard._record.at = 12  # type: ignore[attr-defined]
    await guard.apply(records(13))
    assert inner.offsets == [13]


async def test_what_was_applied_and_not_acked_is_applied_again() -> None:
    # Its worker died before it had told of 9 and 10; the stream skips them all the same.
    guard, inner = guarded(Source(20, range(20), acked_upto=8), 10)
    await guard.apply(records(11, 12))
    assert inner.offsets == [9, 10, 11, 12]


async def test_what_was_applied_and_not_acked_comes_by_itself() -> None:
    source = Source(20, range(20), acked_upto=8)
    guard, inner = guarded(source, 10)
    await guard.apply(records(9, 10, 11))
    assert inner.offsets == [9, 10, 11]
    assert source.reads == []
