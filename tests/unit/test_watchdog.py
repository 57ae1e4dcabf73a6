"""What ends a process that cannot end itself."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import pytest

from streams.quiet import REPEATS, WINDOW_S, RepeatLimit
from streams.stall import Progress, StallDetector
from streams.watchdog import EXIT_GRACE_OVER, EXIT_STALLED, Watchdog

STALL_S, GRACE_S, STEP_S = 10.0, 20.0, 6.0


class Process:
    """One that is watched: its clock, which stands still until it is moved, and its end."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.code: int | None = None
        self.ended = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._seen = asyncio.Event()
        self.dog = Watchdog(STALL_S, GRACE_S, end=self._end, beat_s=0.001, clock=self._clock)
        self.dog.start(self._loop)

    def _clock(self) -> float:
        if threading.current_thread().name == "watchdog":
            self._loop.call_soon_threadsafe(self._seen.set)
        return self.now_s

    def _end(self, code: int, reason: str) -> None:
        self.code = code
        self.ended.set()
        self._loop.call_soon_threadsafe(self._seen.set)

    async def turns(self, steps: int) -> None:
        """Time goes on; behind each step the loop turns, and has beaten before the next."""
        for _ in range(steps):
            self.now_s += STEP_S
            for _ in range(2):
                self._seen.clear()
                if self.code is None:
                    await self._seen.wait()

    async def watched_no_more(self) -> None:
        await asyncio.to_thread(self.dog._thread.join, 10)
        assert not self.dog._thread.is_alive()


@pytest.fixture
async def process() -> AsyncIterator[Process]:
    made = Process()
    yield made
    made.dog.stop()
    await made.watched_no_more()


async def test_a_stop_that_takes_too_long_ends_the_process(process: Process) -> None:
    await process.turns(10)
    process.dog.stop_within_grace()
    await process.turns(3)
    assert process.code is None
    await process.turns(1)
    assert process.code == EXIT_GRACE_OVER


async def test_a_blocked_loop_ends_the_process(process: Process) -> None:
    process.now_s += STALL_S
    assert process.ended.wait(10)  # the loop does not turn meanwhile
    assert process.code == EXIT_STALLED


async def test_a_loop_that_turns_is_left_alone(process: Process) -> None:
    await process.turns(10)
    assert process.code is None


async def test_a_process_that_has_stopped_in_time_is_left_alone(process: Process) -> None:
    process.dog.stop_within_grace()
    process.dog.stop()
    await process.watched_no_more()
    assert process.code is None


def test_the_process_ends_with_the_code_and_says_why() -> None:
    program = "from streams.watchdog import end_process; end_process(75, 'why', ValueError('v'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 75
    assert b"why" in done.stdout + done.stderr


def lag(end: int = 10, next_offset: int = 5, *, busy: bool = False) -> dict[int, Progress]:
    return {0: Progress(end, next_offset, busy)}


def test_lag_without_progress_is_a_stall() -> None:
    detector: StallDetector[int] = StallDetector(60)
    assert detector.stalled(0, lag()) == []
    assert detector.stalled(59, lag(end=20)) == []
    assert detector.stalled(60, lag(end=30)) == [0]


@pytest.mark.parametrize("between", [lag(next_offset=6), lag(busy=True), lag(end=5), {}], ids=str)
def test_progress_work_no_lag_and_revocation_start_the_clock_again(
    between: dict[int, Progress],
) -> None:
    detector: StallDetector[int] = StallDetector(60)
    detector.stalled(0, lag())
    assert detector.stalled(50, between) == []
    assert detector.stalled(70, lag()) == []


def test_who_is_acquitted_is_left_alone_for_another_time_out() -> None:
    detector: StallDetector[int] = StallDetector(60)
    detector.stalled(0, lag())
    assert detector.stalled(60, lag()) == [0]
    detector.acquit(0)
    assert detector.stalled(61, lag()) == []


def line(name: str, message: str, *args: object) -> logging.LogRecord:
    return logging.LogRecord(name, logging.ERROR, "", 0, message, args, None)


def test_repeats_of_libraries_are_limited_and_counted() -> None:
    now_s = 0.0
    limit = RepeatLimit(clock=lambda: now_s)
    passed = [limit.filter(line("aiokafka.client", "no %s", n)) for n in range(100)]
    assert sum(passed) == REPEATS
    assert all(limit.filter(line("scheduler", "ours")) for _ in range(100))
    assert limit.filter(line("aiokafka.client", "something else"))
    now_s = WINDOW_S
    late = line("aiokafka.client", "no %s", "broker")
    assert limit.filter(late)
    assert late.getMessage() == "no broker (97 more of these were left out)"
