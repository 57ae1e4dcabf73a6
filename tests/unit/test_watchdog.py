"""What ends a process that cannot end itself."""

import asyncio
import logging
import subprocess
import sys
import threading
import time

import pytest

from streams.quiet import REPEATS, WINDOW_S, RepeatLimit
from streams.stall import Progress, StallDetector
from streams.watchdog import EXIT_GRACE_OVER, EXIT_STALLED, Watchdog

BEAT_S = 0.01


class Ends:
    """Stands for the end of the process."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.called = threading.Event()

    def __call__(self, code: int, reason: str) -> None:
        self.code = code
        self.called.set()


async def test_a_stop_that_takes_too_long_ends_the_process() -> None:
    ends = Ends()
    dog = Watchdog(3600, 0.02, end=ends, beat_s=BEAT_S)
    dog.start(asyncio.get_running_loop())
    dog.stop_within_grace()
    assert await asyncio.to_thread(ends.called.wait, 10)
    assert ends.code == EXIT_GRACE_OVER


async def test_a_blocked_loop_ends_the_process() -> None:
    ends = Ends()
    dog = Watchdog(0.05, 3600, end=ends, beat_s=BEAT_S)
    dog.start(asyncio.get_running_loop())
    deadline = time.monotonic() + 10
    while not ends.called.is_set() and time.monotonic() < deadline:
        time.sleep(BEAT_S)  # noqa: ASYNC251 - it is the blocking that is tested
    assert ends.code == EXIT_STALLED


async def test_a_loop_that_turns_is_left_alone_and_so_is_a_stopped_watchdog() -> None:
    ends = Ends()
    dog = Watchdog(3600, 3600, end=ends, beat_s=0.001)
    dog.start(asyncio.get_running_loop())
    await asyncio.sleep(0.05)
    dog.stop()
    dog.stop_within_grace()
    assert ends.code is None


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
