"""Reads `dead-letter` from the beginning, or a time, to the end that it had when the reading began.

Without a group: nothing is committed, and nobody else is disturbed. What is in memory at once is a
page for each of a few partitions, and the letters that are larger than a page.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from pod_automation.cli.loop import ANSWER_S, answer
from pod_automation.dead_letters.choice import Choice
from pod_automation.dead_letters.letter import Letter, letter_of
from scheduler.adapters.kafka_consumer import stop
from scheduler.adapters.kafka_errors import translated
from scheduler.adapters.kafka_records import read_foreign_headers
from scheduler.adapters.kafka_topics import check_topics
from scheduler.errors import StoreUnavailableError
from scheduler.kafka_servers import client_options
from scheduler.settings import Settings
from scheduler.tasks import end_if_cancelled

PAGE_BYTES = 1 << 20
"""Fetched of one partition at once; a letter that is larger comes alone."""

PAGE_LETTERS = 500
AT_ONCE = 8
"""Partitions that are read side by side."""

POLL_MS = 200
FETCH_WAIT_MS = 50
"""How long the broker holds a fetch of partitions that are read to their end; it would hold up the
others."""

_T = TypeVar("_T")


class DeadLetters:
    """The topic. Every call may raise `StoreUnavailableError`; one that says nothing within
    `ANSWER_S` counts as away."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.topic = settings.topics.dead_letter
        self._consumer: Any = None

    async def __aenter__(self) -> Self:
        """Connect. Raises `PermanentError` where `init` is missing."""
        # First, as to ask for a topic by name would create it on some brokers.
        await answer("Kafka", check_topics(self._settings))
        read_foreign_headers()
        self._consumer = AIOKafkaConsumer(
            **client_options(self._settings.kafka),
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=PAGE_BYTES,
            fetch_max_bytes=AT_ONCE * PAGE_BYTES,
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        try:
            await _asked(self._consumer.start())
        except BaseException:
            await stop(self._consumer)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await stop(self._consumer)

    async def chosen(self, choice: Choice) -> AsyncIterator[Sequence[Letter]]:
        """All letters that `choice` means, in pages; of one partition in their order. Copies of a
        letter come as they stand there."""
        partitions = choice.partitions(self._settings.partitions)
        starts, ends = await self._bounds(partitions, choice.since_ms)
        async for page in self._pages(starts, ends):
            if found := [each for each in page if choice.matches(each)]:
                yield found

    async def at(self, places: Mapping[int, tuple[int, int]]) -> AsyncIterator[Sequence[Letter]]:
        """All letters between the first and the last offset given for each partition, in pages."""
        starts, ends = await self._bounds(list(places), None)
        async for page in self._pages(
            {each: max(starts[each], first) for each, (first, _) in places.items()},
            {each: min(ends[each], last + 1) for each, (_, last) in places.items()},
        ):
            yield page

    async def _bounds(
        self, partitions: Collection[int], since_ms: int | None
    ) -> tuple[dict[int, int], dict[int, int]]:
        """The first offset of each partition (from `since_ms` on), and the one behind its last."""
        tps = [TopicPartition(self.topic, each) for each in partitions]
        if not tps:
            return {}, {}
        ends = await _asked(self._consumer.end_offsets(tps))
        starts = await _asked(self._consumer.beginning_offsets(tps))
        if since_ms is not None:
            found = await _asked(self._consumer.offsets_for_times(dict.fromkeys(tps, since_ms)))
            starts = {tp: at.offset if (at := found.get(tp)) else ends[tp] for tp in tps}
        return (
            {tp.partition: start for tp, start in starts.items()},
            {tp.partition: end for tp, end in ends.items()},
        )

    async def _pages(
        self, starts: Mapping[int, int], ends: Mapping[int, int]
    ) -> AsyncIterator[Sequence[Letter]]:
        left = sorted(each for each, start in starts.items() if start < ends[each])
        for first in range(0, len(left), AT_ONCE):
            some = {TopicPartition(self.topic, each) for each in left[first : first + AT_ONCE]}
            self._consumer.assign(list(some))
            for tp in some:
                self._consumer.seek(tp, starts[tp.partition])
            async for page in self._to_the_end(some, ends):
                yield page

    async def _to_the_end(
        self, reading: set[TopicPartition], ends: Mapping[int, int]
    ) -> AsyncIterator[Sequence[Letter]]:
        loop = asyncio.get_running_loop()
        moved_s = loop.time()
        positions: dict[TopicPartition, int] = {}
        while reading:
            end_if_cancelled()
            found = await _asked(
                self._consumer.getmany(*reading, timeout_ms=POLL_MS, max_records=PAGE_LETTERS)
            )
            for tp, records in found.items():
                if page := [_letter(each) for each in records if each.offset < ends[tp.partition]]:
                    yield page
            # Positions, as the last records may be markers of transactions, or aborted.
            at = {tp: int(await _asked(self._consumer.position(tp))) for tp in reading}
            if found or at != positions:
                moved_s = loop.time()
            elif loop.time() - moved_s > ANSWER_S:
                raise StoreUnavailableError("Kafka", f"no letter within {ANSWER_S:.0f} s")
            positions = at
            for tp in [tp for tp in reading if at[tp] >= ends[tp.partition]]:
                # Not fetched any more, which would take its time from the others.
                self._consumer.pause(tp)
                reading.discard(tp)
                positions.pop(tp)


def _letter(record: Any) -> Letter:
    return letter_of(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.key,
        record.value,
        tuple(record.headers),
    )


async def _asked(asked: Coroutine[Any, Any, _T]) -> _T:
    with translated():
        return await answer("Kafka", asked)
