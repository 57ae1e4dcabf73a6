"""Named points of the engine's protocols, at which a process can be made to die or to freeze.

The engine has no hooks: a process of the torture (`tests.torture.process`) replaces methods of its
adapters by ones that call the real one and then look whether this point is armed. What runs in
production has none of it.
"""

import functools
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ARM_FILE = "TORTURE_ARM_FILE"
"""The variable that names the file from which SIGUSR1 reads `<point> <signal>`."""


def _always(result: Any, args: tuple[Any, ...]) -> bool:
    return True


def _claimed_something(result: Any, args: tuple[Any, ...]) -> bool:
    return not result.empty


def _is_rebuild(result: Any, args: tuple[Any, ...]) -> bool:
    # The only transaction without timers: the cursor of a new generation.
    return not args[1]


def _is_batch(result: Any, args: tuple[Any, ...]) -> bool:
    return bool(args[1])


def _moved(result: Any, args: tuple[Any, ...]) -> bool:
    return result is not None


@dataclass(frozen=True, slots=True)
class Point:
    """Behind (or before) each call of a method whose result and arguments are such."""

    module: str
    owner: str
    method: str
    holds: Callable[[Any, tuple[Any, ...]], bool] = _always
    before: bool = False


_RECORD = ("scheduler.adapters.postgres_record", "PostgresRecord")
_WHEEL = ("scheduler.adapters.redis_wheel", "RedisWheel")
_LOG = ("scheduler.adapters.kafka_shard_log", "KafkaShardLog")
_OUTBOX = ("scheduler.adapters.kafka_outbox", "KafkaOutbox")
_RESULTS = ("pod_automation.executor.results", "ResultSender")

WORKER: dict[str, Point] = {
    "planned-in-postgres": Point(*_RECORD, "apply_plan", _moved),
    "changed-in-postgres": Point(*_RECORD, "change", _moved),
    "added-in-redis": Point(*_WHEEL, "add"),
    "announced": Point(*_OUTBOX, "announce"),
}
FIRING: dict[str, Point] = {
    "claimed": Point(*_WHEEL, "claim", _claimed_something),
    "mid-transaction": Point("aiokafka", "AIOKafkaProducer", "commit_transaction", before=True),
    "committed": Point(*_LOG, "commit", _is_batch),
    "projected": Point(*_RECORD, "project"),
}
TAKEOVER: dict[str, Point] = {
    "epoch-taken": Point(*_WHEEL, "take"),
    "fenced": Point(*_LOG, "fence"),
    "cursor-read": Point(*_LOG, "cursor"),
}
REBUILD: dict[str, Point] = {
    "wiped": Point(*_WHEEL, "wipe"),
    "loading": Point(*_WHEEL, "load"),
    "rebuilt-in-kafka": Point(*_LOG, "commit", _is_rebuild),
    "opened": Point(*_WHEEL, "open"),
}
EXECUTOR: dict[str, Point] = {
    "handled": Point(*_RESULTS, "_send", before=True),
    "reported": Point(*_RESULTS, "_send"),
}
ALL = WORKER | FIRING | TAKEOVER | REBUILD | EXECUTOR

_armed: tuple[str, int] | None = None


def install() -> None:
    """Put all points in place, and let SIGUSR1 arm one of them. Once a process."""
    for name, point in ALL.items():
        owner = getattr(import_module(point.module), point.owner)
        setattr(owner, point.method, _watched(name, point, getattr(owner, point.method)))
    signal.signal(signal.SIGUSR1, _arm)
    # Before this SIGUSR1 would have ended the process.
    ready_file(Path(os.environ[ARM_FILE])).write_text(str(os.getpid()), "utf-8")


def ready_file(arm_file: Path) -> Path:
    """Holds the number of the process that can be armed by `arm_file`."""
    return arm_file.with_suffix(".ready")


def _watched(
    name: str, point: Point, real: Callable[..., Awaitable[Any]]
) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(real)
    async def watched(*args: Any, **kwargs: Any) -> Any:
        if point.before:
            _pass(name)
            return await real(*args, **kwargs)
        result = await real(*args, **kwargs)
        if point.holds(result, args):
            _pass(name)
        return result

    return watched


def _arm(number: int, frame: Any) -> None:
    global _armed
    found = Path(os.environ[ARM_FILE]).read_text("utf-8").split()
    if found:  # else it is just being written anew, and the next signal is on its way
        _armed = found[0], int(found[1])


def _pass(name: str) -> None:
    global _armed
    if _armed is not None and _armed[0] == name:
        what, _armed = _armed[1], None
        # Kill or stop: either way the next instruction of ours does not run now.
        os.kill(os.getpid(), what)
