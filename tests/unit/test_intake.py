"""The intake: a pump for each assigned partition, and no record of another generation."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from scheduler.ports import SourceRecord
from streams.intake import Intake
from streams.pump import Pump, PumpLimits

LIMITS = PumpLimits(batch_events=10, linger_s=0.0)


class Appliers:
    """Opens pumps, and shows what they have applied."""

    def __init__(self) -> None:
        self.applied: list[tuple[int, int]] = []
        self.acked: list[int] = []
        self.news = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: BaseException | None = None
        self.deaths: list[BaseException] = []
        self.intake: Intake[int] = Intake(self._open, self._died)

    async def until_acked(self, count: int) -> None:
        while len(self.acked) < count:
            self.news.clear()
            await self.news.wait()

    def _open(self, partition: int) -> Pump[int]:
        outer = self

        class Applier:
            async def apply(self, records: Sequence[SourceRecord]) -> None:
                outer.applied += [(partition, record.offset) for record in records]
                outer.news.set()
                await outer.gate.wait()
                if outer.error:
                    raise outer.error

            async def catch_up(self) -> None: ...

        return Pump(Applier(), self._ack, LIMITS)

    async def _ack(self, token: int) -> None:
        self.acked.append(token)
        self.news.set()

    def _died(self, error: BaseException) -> None:
        self.deaths.append(error)
        self.news.set()


@pytest.fixture
async def appliers() -> AsyncIterator[Appliers]:
    made = Appliers()
    yield made
    await made.intake.end()


def record(partition: int, offset: int) -> SourceRecord:
    return SourceRecord("t", partition, offset, None, b"v")


async def test_each_partition_has_its_pump(appliers: Appliers) -> None:
    await appliers.intake.begin([0, 1], 7)
    assert await appliers.intake.put(0, 7, record(0, 5), 5)
    assert await appliers.intake.put(1, 7, record(1, 9), 9)
    await appliers.until_acked(2)
    assert sorted(appliers.applied) == [(0, 5), (1, 9)]


async def test_records_of_another_generation_or_partition_are_dropped(appliers: Appliers) -> None:
    await appliers.intake.begin([0], 7)
    assert not await appliers.intake.put(0, 6, record(0, 5), 5)
    assert not await appliers.intake.put(0, 8, record(0, 5), 5)
    assert not await appliers.intake.put(1, 7, record(1, 5), 5)
    await appliers.intake.end(7)
    assert not await appliers.intake.put(0, 7, record(0, 5), 5)
    await appliers.intake.begin([0], 8)
    assert not await appliers.intake.put(0, 7, record(0, 5), 5)
    assert await appliers.intake.put(0, 8, record(0, 4), 4)
    await appliers.until_acked(1)
    assert appliers.acked == [4]


async def test_before_any_assignment_nothing_is_taken(appliers: Appliers) -> None:
    assert not await appliers.intake.put(0, 0, record(0, 0), 0)


async def test_a_revoked_batch_in_hand_is_not_acked(appliers: Appliers) -> None:
    await appliers.intake.begin([0], 1)
    appliers.gate.clear()
    await appliers.intake.put(0, 1, record(0, 5), 5)
    await appliers.news.wait()
    await appliers.intake.end(1)
    appliers.gate.set()
    await asyncio.sleep(0)
    assert appliers.acked == []
    assert not appliers.intake.pumps
    assert not appliers.deaths


async def test_finishing_acks_the_batch_in_hand_and_drops_the_rest(appliers: Appliers) -> None:
    await appliers.intake.begin([0], 1)
    appliers.gate.clear()
    await appliers.intake.put(0, 1, record(0, 5), 5)
    await appliers.news.wait()
    await appliers.intake.put(0, 1, record(0, 6), 6)
    finishing = asyncio.create_task(appliers.intake.finish())
    await asyncio.sleep(0)
    assert not await appliers.intake.put(0, 1, record(0, 7), 7)
    appliers.gate.set()
    await finishing
    assert appliers.acked == [5]
    assert not await appliers.intake.put(0, 1, record(0, 8), 8)


async def test_a_cancellation_that_nobody_asked_for_is_told(appliers: Appliers) -> None:
    appliers.error = asyncio.CancelledError("of a library's own")
    await appliers.intake.begin([0], 1)
    await appliers.intake.put(0, 1, record(0, 5), 5)
    while not appliers.deaths:
        appliers.news.clear()
        await appliers.news.wait()
    assert "cancelled from within" in str(appliers.deaths[0])
    assert appliers.acked == []


async def test_what_ends_a_pump_is_told(appliers: Appliers) -> None:
    appliers.error = RuntimeError("a bug")
    await appliers.intake.begin([0], 1)
    await appliers.intake.put(0, 1, record(0, 5), 5)
    while not appliers.deaths:
        appliers.news.clear()
        await appliers.news.wait()
    assert str(appliers.deaths[0]) == "a bug"
    assert appliers.acked == []
