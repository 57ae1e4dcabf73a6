"""A process of the engine on the rack: the command line, with points, a bug, or a wrong clock.

python -m tests.torture.process worker
"""

import os
import sys

from tests.tied import tie

BUG = "TORTURE_BUG"
CLOCK = "TORTURE_CLOCK_S"


def main() -> int:
    """Run the command line as it is but for what the environment asks for."""
    tie()
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


if __name__ == "__main__":
    sys.exit(main())
