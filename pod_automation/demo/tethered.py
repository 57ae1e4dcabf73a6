"""`pod-automation` as a process that dies with the one that started it.

Its standard input is a pipe that nobody writes to. It closes when the other end dies, however that
happens, kill -9 included; then this process ends at once, which loses nothing.
"""

import os
import sys
import threading

EXIT_PARENT_GONE = 143


def main() -> int:
    """Run the command in the arguments."""
    threading.Thread(target=_end_with_parent, name="tether", daemon=True).start()
    from pod_automation.cli import main as cli

    return cli()


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    # At once: an orderly stop would wait for servers that die with the same parent.
    os._exit(EXIT_PARENT_GONE)


if __name__ == "__main__":
    sys.exit(main())
