"""The pump: batches within their bounds, acks in order, and nothing acked that was not applied."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import pytest

from scheduler.errors import StoreUnavailableError
from scheduler.ports import SourceRecord
from streams.pump import Pump, PumpLimits

BATCH = 5
HIGH = 20
HARD = 60
LIMITS = PumpLimits(
    batch_events=BATCH,
    linger_s=0.0,
    batch_bytes=5000,
    high_events=HIGH,
    high_bytes=20_000,
    hard_extra_events=HARD - HIGH,
)


class GatedApplier:
    """Applies nothing until `gate` is open; says when it has been called."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.called = asyncio.Semaphore(0)
        self.looked = asyncio.Semaphore(0)
        self.batches: list[list[int]] = []
        self.look_error: Exception | None = None
        self.error: Exception | None = None

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        self.called.release()
        await self.gate.wait()
        if self.error:
            raise self.error
        self.batches.append([record.offset for record in records])

    async def catch_up(self) -> None:
        self.looked.release()
        if self.look_error:
            raise self.look_error


class Bench:
    """A pump with everything about it."""

    def __init__(self, limits: PumpLimits = LIMITS) -> None:
        self.applier = GatedApplier()
        self.acked: list[int] = []
        self.ack_done = asyncio.Semaphore(0)
        self.pressed: list[bool] = []
        self.pump: Pump[int] = Pump(self.applier, self._ack, limits, self.pressed.append)

    async def _ack(self, token: int) -> None:
        self.acked.append(token)
        self.ack_done.release()

    async def put(self, *offsets: int, value: bytes = b"v") -> None:
        for offset in offsets:
            assert await self.pump.put(SourceRecord("t", 0, offset, b"k", value), offset)

    async def acks(self, count: int) -> None:
        for _ in range(count):
            await self.ack_done.acquire()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(self.pump.run())
        await self.applier.looked.acquire()
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, RuntimeError):
                await task


async def test_records_are_applied_then_acked_in_order() -> None:
    bench = Bench()
    async with bench.running():
        await bench.put(*range(12))
        await bench.acks(12)
    assert bench.acked == list(range(12))
    assert bench.applier.batches == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11]]
    assert bench.pump.taken == 11
    assert not bench.pump.busy


async def test_nothing_is_acked_before_it_is_applied() -> None:
    bench = Bench()
    bench.applier.gate.clear()
    async with bench.running():
        await bench.put(0, 1)
        await bench.applier.called.acquire()
        assert bench.acked == []
        assert bench.pump.busy
        bench.applier.gate.set()
        await bench.acks(2)


async def test_a_batch_is_bounded_by_bytes_too_but_never_empty() -> None:
    bench = Bench()
    bench.applier.gate.clear()
    async with bench.running():
        await bench.put(0, value=b"x" * 9000)
        await bench.put(1, 2, 3, value=b"x" * 2000)
        bench.applier.gate.set()
        await bench.acks(4)
    assert bench.applier.batches == [[0], [1, 2], [3]]


async def test_a_full_batch_does_not_linger() -> None:
    bench = Bench(PumpLimits(batch_events=BATCH, linger_s=3600.0))
    async with bench.running():
        await bench.put(*range(BATCH))
        await bench.acks(BATCH)


async def test_a_batch_waits_for_others_as_long_as_it_may() -> None:
    bench = Bench(PumpLimits(batch_events=BATCH, linger_s=0.05))
    async with bench.running():
        await bench.put(0)
        await bench.put(1)
        await bench.acks(2)
    assert bench.applier.batches == [[0, 1]]


async def test_a_redelivered_record_begins_a_batch_of_its_own() -> None:
    bench = Bench()
    bench.applier.gate.clear()
    async with bench.running():
        await bench.put(7, 8, 7, 8)
        bench.applier.gate.set()
        await bench.acks(4)
    assert bench.applier.batches == [[7, 8], [7, 8]]


async def test_what_the_applier_raises_ends_the_pump_unacked() -> None:
    bench = Bench()
    bench.applier.error = RuntimeError("a bug")
    async with bench.running() as task:
        await bench.put(0)
        with pytest.raises(RuntimeError, match="a bug"):
            await task
    assert bench.acked == []


async def test_cancelled_in_mid_batch_nothing_is_acked() -> None:
    bench = Bench()
    bench.applier.gate.clear()
    async with bench.running():
        await bench.put(0, 1)
        await bench.applier.called.acquire()
    bench.applier.gate.set()
    assert bench.acked == []


async def test_pressure_is_put_on_when_the_buffer_is_high_and_taken_off_again() -> None:
    bench = Bench()
    bench.applier.gate.clear()
    async with bench.running():
        await bench.put(0)
        await bench.applier.called.acquire()  # 0 is in hand, what follows is in the buffer
        await bench.put(*range(1, HIGH))
        assert bench.pressed == []
        await bench.put(HIGH)
        assert bench.pressed == [True]
        bench.applier.gate.set()
        await bench.acks(HIGH + 1)
        assert bench.pressed == [True, False]


async def test_bytes_put_on_pressure_as_well() -> None:
    bench = Bench()
    await bench.put(0, 1, 2, value=b"x" * 6000)
    assert bench.pressed == []
    await bench.put(3, value=b"x" * 6000)
    assert bench.pressed == [True]


async def test_put_waits_at_the_hard_bound_only() -> None:
    bench = Bench()
    bench.applier.gate.clear()
    async with bench.running():
        await bench.put(0)
        await bench.applier.called.acquire()
        await bench.put(*range(1, HARD + 1))
        waiting = asyncio.create_task(bench.put(HARD + 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        bench.applier.gate.set()
        await waiting
        await bench.acks(HARD + 2)
    assert bench.acked == list(range(HARD + 2))


async def test_closing_drops_the_buffer_and_frees_who_waits() -> None:
    bench = Bench()
    await bench.put(*range(HARD))
    waiting = asyncio.create_task(bench.pump.put(SourceRecord("t", 0, HARD, None, None), HARD))
    await asyncio.sleep(0)
    bench.pump.close()
    assert await waiting is False
    assert bench.pump.buffered == 0
    assert not bench.pump.busy
    assert await bench.pump.put(SourceRecord("t", 0, 9, None, None), 9) is False


async def test_an_idle_pump_compares_the_stores_now_and_then() -> None:
    bench = Bench(PumpLimits(batch_events=BATCH, linger_s=0.0, catch_up_s=0.001))
    async with bench.running():
        for _ in range(3):
            await bench.applier.looked.acquire()
        await bench.put(0)
        await bench.acks(1)


async def test_stores_that_cannot_be_compared_do_not_hold_up_records() -> None:
    bench = Bench()
    bench.applier.look_error = StoreUnavailableError("Redis", "away")
    async with bench.running():
        await bench.put(0)
        await bench.acks(1)


async def test_a_turn_is_a_batch_or_a_look() -> None:
    bench = Bench()
    assert await bench.pump.run_once() == 0
    await bench.put(0, 1)
    assert await bench.pump.run_once() == 2
