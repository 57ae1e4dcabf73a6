"""Writes docs/openapi.json from the API: `python -m pod_automation.api.reference`.

With `--check` nothing is written: the exit code is 1 when the file is not what the API says.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from pod_automation.api.app import document
from scheduler.generated import keep_fresh
from scheduler.settings import load_settings

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"
COMMAND = "python -m pod_automation.api.reference"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return keep_fresh(FILE, document(load_settings()), COMMAND, __doc__ or "", arguments)


if __name__ == "__main__":
    sys.exit(main())
