"""Writes docs/openapi.json: `python -m pod_automation.api.reference` (`--check`: is it fresh?)."""

import sys
from pathlib import Path

from pod_automation.api.app import document
from scheduler.settings import load_settings

FILE = Path(__file__).parents[2] / "docs" / "openapi.json"


def main(arguments: list[str]) -> int:
    """The exit code."""
    made = document(load_settings())
    if "--check" in arguments:
        return int(not FILE.exists() or FILE.read_bytes() != made)
    FILE.write_bytes(made)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
