"""A process whose wall clock is wrong by a fixed time. Monotonic clocks stay true."""

import time


def set_off(seconds: float) -> None:
    """Call it before anything of the engine is imported, so that no module has the true clock.

    `datetime.now` stays true: C libraries hold its type, and no worker asks it.
    """
    real_time, real_time_ns = time.time, time.time_ns
    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_time_ns() + round(seconds * 1e9)
