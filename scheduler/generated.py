"""Files in docs/ that are made from the code: written, or held to be fresh."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def keep_fresh(
    file: Path, made: bytes, command: str, about: str, arguments: Sequence[str] | None = None
) -> int:
    """The command line of whatever makes `file`, which ought to hold `made`; returns the exit code.

    Writes it where it is stale. With `--check` among `arguments` (default: the process's) nothing
    is written, and the exit code is 1 then. `command` is how one runs it, `about` what it does.
    """
    parser = argparse.ArgumentParser(prog=command, description=about.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, exit 1 when stale")
    check = parser.parse_args(arguments).check
    if file.exists() and file.read_bytes() == made:
        return 0
    if check:
        print(f"stale: docs/{file.name}\nRun: {command}", file=sys.stderr)
        return 1
    file.write_bytes(made)
    print(f"written: docs/{file.name}")
    return 0
