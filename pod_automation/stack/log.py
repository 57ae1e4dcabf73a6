"""The log file of one server."""

import datetime
import os
from pathlib import Path

_TRIM_ABOVE = 4 << 20
_TRIM_TO = 1 << 20
_TAIL = 64 << 10


class ServerLog:
    """A file to which a server's output is appended, bounded at each start.

    Parameters:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._from = 0

    def begin(self, title: str) -> int:
        """Cut the file to its bound, mark a new start in it, and open it for appending."""
        if self.path.exists() and self.path.stat().st_size > _TRIM_ABOVE:
            with self.path.open("rb") as file:
                file.seek(-_TRIM_TO, os.SEEK_END)
                kept = file.read()
            self.path.write_bytes(kept[kept.find(b"\n") + 1 :])
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        os.write(descriptor, f"---- {now} {title}\n".encode())
        self._from = os.fstat(descriptor).st_size
        return descriptor

    def tail(self, lines: int = 20) -> list[str]:
        """The last lines since `begin`, so that an error does not show an earlier run's."""
        try:
            with self.path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(min(self._from, size), size - _TAIL))
                text = file.read().decode("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]
