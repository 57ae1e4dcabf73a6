"""A process whose wall clock is wrong by a fixed time. Monotonic clocks stay true."""

import datetime as datetimes
import time
from typing import Any


def set_off(seconds: float) -> None:
    """Call it before anything of the engine is imported, so that no module has the true clock."""
    real_time, real_time_ns, real = time.time, time.time_ns, datetimes.datetime
    by = datetimes.timedelta(seconds=seconds)

    class Shifted(datetimes.datetime):
        @classmethod
        def now(cls, tz: datetimes.tzinfo | None = None) -> Any:
            return real.now(tz) + by

        @classmethod
        def utcnow(cls) -> Any:
            return real.now(datetimes.UTC).replace(tzinfo=None) + by

    time.time = lambda: real_time() + seconds
    time.time_ns = lambda: real_time_ns() + round(seconds * 1e9)
    datetimes.datetime = Shifted  # type: ignore[misc]
