"""A process of the engine on the rack: the command line, with points, a bug, or a wrong clock.

python -m tests.torture.process worker
"""

import ctypes
import os
import signal
import sys

BUG = "TORTURE_BUG"
CLOCK = "TORTURE_CLOCK_S"

PR_SET_PDEATHSIG = 1
"""From linux/prctl.h: the signal that a process gets when its parent ends, however that ends."""


def main() -> int:
    """Run the command line as it is but for what the environment asks for."""
    _die_with_the_torture()
    if seconds := os.environ.get(CLOCK):
        from tests.torture.clock import set_off

        set_off(float(seconds))
    from tests.torture import points
    from tests.torture.bugs import BUGS

    points.install()
    if bug := os.environ.get(BUG):
        BUGS[bug]()
    from pod_automation.cli import main as command_line

    return command_line(sys.argv[1:])


def _die_with_the_torture() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
