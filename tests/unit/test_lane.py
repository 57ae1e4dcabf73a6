"""Several topics side by side: what is kept by partition is kept for each topic by itself."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import cast

import pytest

from scheduler.ports import Record, SourceRecord
from streams.lane import Lane
from streams.pump import PumpLimits
from streams.source_log import SourceLog

POSTS, RESULTS, COMMANDS = "posts", "results", "commands"
TOPICS = (POSTS, RESULTS, COMMANDS)
BATCH = 5
HIGH = 20
BOTH = {topic: [0, 1] for topic in TOPICS}
LIMITS = PumpLimits(batch_events=BATCH, linger_s=0.0, high_events=HIGH, hard_extra_events=40)

Token = tuple[str, int, int]  # topic, partition, offset


class Nothing:
    """A record that has applied nothing yet."""

    async def watermark(self, topic: str, shard: int) -> int:
        return -1


class Source:
    """A topic in which only `offsets` hold a record."""

    def __init__(self) -> None:
        self.end = 0
        self.offsets: Collection[int] = ()
        self.looks = 0
        self.group_at = 0

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, self.end)

    async def next_of_group(self, partitions: Collection[int]) -> Mapping[int, int]:
        return dict.fromkeys(partitions, self.group_at)

    async def has_record(self, partition: int, start: int, end: int) -> bool:
        self.looks += 1
        return any(start <= offset < end for offset in self.offsets)

    async def read(
        self, partition: int, start: int, end: int, limit: int
    ) -> Sequence[SourceRecord]:
        return []


class Site:
    """A lane for each topic, with appliers that wait where `gates` are closed."""

    def __init__(self) -> None:
        self.gates: dict[tuple[str, int], asyncio.Event] = {}
        self.applied: list[Token] = []
        self.acked: list[Token] = []
        self.opened: list[tuple[str, int]] = []
        self.pressed: list[tuple[str, int, bool]] = []
        self.deaths: list[BaseException] = []
        self.news = asyncio.Event()
        self.sources = {topic: Source() for topic in TOPICS}
        self.lanes = {topic: self._lane(topic) for topic in TOPICS}

    async def begin(self, partitions: Mapping[str, Sequence[int]], generation: int) -> None:
        for topic, lane in self.lanes.items():
            await lane.begin(partitions.get(topic, ()), generation)

    async def end(self, generation: int | None = None) -> None:
        for lane in self.lanes.values():
            await lane.end(generation)

    async def put(self, topic: str, partition: int, offset: int, generation: int = 1) -> bool:
        record = SourceRecord(topic, partition, offset, None, b"v")
        return await self.lanes[topic].put(record, generation, (topic, partition, offset))

    def close_gate(self, topic: str, partition: int) -> asyncio.Event:
        self.gates[topic, partition] = gate = asyncio.Event()
        return gate

    async def until_acked(self, topic: str, partition: int, count: int) -> None:
        while len(self.acks(topic, partition)) < count:
            self.news.clear()
            await self.news.wait()

    async def until_applying(self, topic: str, partition: int) -> None:
        while not any(each[:2] == (topic, partition) for each in self.applied):
            self.news.clear()
            await self.news.wait()

    def acks(self, topic: str, partition: int) -> list[int]:
        return [each[2] for each in self.acked if each[:2] == (topic, partition)]

    def _lane(self, topic: str) -> Lane[Token]:
        outer = self

        class Applier:
            def __init__(self, partition: int) -> None:
                self._partition = partition
                outer.opened.append((topic, partition))

            async def apply(self, records: Sequence[SourceRecord]) -> None:
                for record in records:
                    assert (record.topic, record.partition) == (topic, self._partition)
                    outer.applied.append((topic, self._partition, record.offset))
                outer.news.set()
                if gate := outer.gates.get((topic, self._partition)):
                    await gate.wait()

            async def catch_up(self) -> None: ...

        return Lane(
            topic,
            Applier,
            record=cast(Record, Nothing()),
            source=cast(SourceLog, self.sources[topic]),
            ack=self._ack,
            limits=LIMITS,
            press=lambda *args: self.pressed.append(args),
            on_death=self.deaths.append,
        )

    async def _ack(self, token: Token) -> None:
        self.acked.append(token)
        self.news.set()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    yield made
    await made.end()
    assert not made.deaths


async def test_a_topic_that_waits_does_not_hold_up_another(site: Site) -> None:
    await site.begin(BOTH, 1)
    gate = site.close_gate(RESULTS, 0)
    await site.put(RESULTS, 0, 0)
    await site.until_applying(RESULTS, 0)
    # As one stream delivers them: one after the other, whoever waits holds up all.
    for offset in range(1, HIGH + 2):
        for topic in TOPICS:
            assert await site.put(topic, 0, offset)
            assert await site.put(topic, 1, offset)
    for topic, partition in ((POSTS, 0), (POSTS, 1), (RESULTS, 1), (COMMANDS, 0), (COMMANDS, 1)):
        await site.until_acked(topic, partition, HIGH + 1)
    assert site.acks(RESULTS, 0) == []
    # Of all that were slow, it alone is left pressed.
    last = {(topic, partition): on for topic, partition, on in site.pressed}
    assert [place for place, on in last.items() if on] == [(RESULTS, 0)]
    gate.set()
    await site.until_acked(RESULTS, 0, HIGH + 2)
    assert site.pressed[-1] == (RESULTS, 0, False)


async def test_acks_are_in_order_by_topic_and_partition(site: Site) -> None:
    await site.begin(BOTH, 1)
    for offset in range(3 * BATCH):
        for topic in TOPICS:
            await site.put(topic, 0, offset)
            await site.put(topic, 1, 2 * offset)
    for topic in TOPICS:
        await site.until_acked(topic, 0, 3 * BATCH)
        await site.until_acked(topic, 1, 3 * BATCH)
        assert site.acks(topic, 0) == list(range(3 * BATCH))
        assert site.acks(topic, 1) == list(range(0, 6 * BATCH, 2))


async def test_a_rebalance_gives_each_topic_what_is_its_own(site: Site) -> None:
    await site.begin({POSTS: [0], RESULTS: [0, 1]}, 1)
    gate = site.close_gate(RESULTS, 0)
    await site.put(RESULTS, 0, 0)
    await site.until_applying(RESULTS, 0)
    assert not await site.put(COMMANDS, 0, 0)
    assert not await site.put(POSTS, 1, 0)
    await site.end(1)
    gate.set()
    del site.gates[RESULTS, 0]
    assert not await site.put(POSTS, 0, 0)
    await site.begin({POSTS: [1], RESULTS: [0], COMMANDS: [0]}, 2)
    assert not await site.put(RESULTS, 0, 1, generation=1)
    assert not await site.put(POSTS, 0, 0, generation=2)
    assert not await site.put(RESULTS, 1, 0, generation=2)
    for topic, partition in ((POSTS, 1), (RESULTS, 0), (COMMANDS, 0)):
        assert await site.put(topic, partition, 0, generation=2)
        await site.until_acked(topic, partition, 1)
    # What was in hand has been applied twice and acked once.
    assert site.applied.count((RESULTS, 0, 0)) == 2
    assert len(site.acked) == 3
    assert sorted(site.opened) == sorted(
        [(POSTS, 0), (RESULTS, 0), (RESULTS, 1), (POSTS, 1), (RESULTS, 0), (COMMANDS, 0)]
    )


async def test_markers_at_the_end_are_looked_at_once(site: Site) -> None:
    await site.begin({RESULTS: [0]}, 1)
    lane, source = site.lanes[RESULTS], site.sources[RESULTS]
    source.end, source.offsets = 8, [0, 6]
    await site.put(RESULTS, 0, 6)
    await site.until_acked(RESULTS, 0, 1)
    seen = (await lane.progress())[0]
    assert (seen.next_offset, seen.end) == (7, 8)
    assert not await lane.has_waiting(0, seen)
    assert (await lane.progress())[0].next_offset == 8  # no lag any more
    # Another marker, and a record that is never delivered.
    source.end, source.offsets = 10, [0, 6, 9]
    seen = (await lane.progress())[0]
    assert (seen.next_offset, seen.end) == (8, 10)
    assert await lane.has_waiting(0, seen)
    assert source.looks == 2


async def test_before_its_first_record_a_partition_is_where_the_group_is(site: Site) -> None:
    await site.begin({RESULTS: [0, 3]}, 1)
    site.sources[RESULTS].end, site.sources[RESULTS].group_at = 4, 3
    found = await site.lanes[RESULTS].progress()
    assert {partition: seen.next_offset for partition, seen in found.items()} == {0: 3, 3: 3}
    assert await site.lanes[POSTS].progress() == {}
