"""The command line `pod-automation`: one command a file.

Nothing heavy is imported at the top of these files, so that `--help` and completion are quick.
"""

from pod_automation.cli.entry import main

__all__ = ["main"]
