"""Whose processor time a measurement took, and how large processes are."""

import os
import time
from collections.abc import Mapping

import psutil  # type: ignore[import-untyped]
from msgspec import Struct


class Spent(Struct, frozen=True):
    """Processor time by who used it: in cores, and in microseconds for each timer.

    Of the cores, `others` is what the rest of the machine used besides: a rate is worth little
    where that is not small. Microseconds suffer less from it.
    """

    cores: Mapping[str, float]
    us_a_timer: Mapping[str, float]


class Meter:
    """Processor time from `start` to `stop`, by who used it.

    `roots` are process ids by name; each counts with all its children.
    """

    def __init__(self, roots: Mapping[str, int]) -> None:
        self._roots = {**roots, "bench": os.getpid()}
        self._before: dict[str, float] = {}
        self._busy = 0.0
        self._began = 0.0

    def start(self) -> None:
        """Begin, or begin anew."""
        self._before, self._busy, self._began = self._used(), _busy(), time.monotonic()

    def stop(self, timers: int) -> "Spent":
        """What was used since `start`, while `timers` went through."""
        elapsed = time.monotonic() - self._began
        used = {name: now - self._before[name] for name, now in self._used().items()}
        others = max(0.0, _busy() - self._busy - sum(used.values()))
        return Spent(
            cores={
                name: round(each / elapsed, 2) for name, each in {**used, "others": others}.items()
            },
            us_a_timer={name: round(each * 1e6 / timers, 1) for name, each in used.items()},
        )

    def _used(self) -> dict[str, float]:
        return {
            # Ours are the parents of all the others.
            name: seconds_of(pid, children=name != "bench")
            for name, pid in self._roots.items()
        }


def seconds_of(pid: int, *, children: bool = True) -> float:
    """Processor time of a process, and of its children, present and past; 0 where it is gone."""
    try:
        root = psutil.Process(pid)
        processes = [root, *(root.children(recursive=True) if children else ())]
    except psutil.NoSuchProcess:
        return 0.0
    seconds = 0.0
    for process in processes:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        seconds += times.user + times.system
        if children:
            # Of those that have ended, such as a server's that rewrites its file.
            seconds += times.children_user + times.children_system
    return seconds


def memory_of(*pids: int) -> int:
    """Resident bytes of processes and their children. A page that several share counts in parts,
    so who forks does not pay for it in each; where the system does not tell, it does."""
    roots = [psutil.Process(pid) for pid in pids]
    return sum(_resident(each) for root in roots for each in (root, *root.children(recursive=True)))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except (psutil.AccessDenied, AttributeError):
        return int(process.memory_info().rss)


def _busy() -> float:
    times = psutil.cpu_times()
    # Guests' time is within user's already.
    return float(times.user + times.nice + times.system)
