"""A program that ends when the process that started it does, however that ends.

python tests/tied.py PROGRAM ARGUMENT...
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal that a process gets when its parent ends; kept by exec."""


def tied(*command: str) -> tuple[str, ...]:
    """The command that runs `command` so; elsewhere than on Linux it just runs it."""
    return (sys.executable, "-I", "-S", __file__, *command)


def tie() -> None:
    """Have this process end with its parent."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    tie()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted
