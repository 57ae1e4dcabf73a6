"""Locks that their holder's death releases."""

import asyncio
import fcntl
import os
import time
from pathlib import Path

_POLL_S = 0.02


def try_lock(path: Path) -> int | None:
    """A descriptor with an exclusive flock on `path`, or None when somebody else holds it.

    The lock lasts until every copy of the descriptor, here and in children, is closed.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def wait_for_lock(path: Path, limit_s: float) -> int:
    """`try_lock`, again and again.

    Raises:
        TimeoutError: it was not free within `limit_s` seconds.
    """
    end = time.monotonic() + limit_s
    while (descriptor := try_lock(path)) is None:
        if time.monotonic() >= end:
            raise TimeoutError
        await asyncio.sleep(_POLL_S)
    return descriptor


def holder(path: Path) -> str:
    """What the holder wrote into the lock file: a process id, or nothing."""
    return path.read_text("ascii", "replace").strip()
