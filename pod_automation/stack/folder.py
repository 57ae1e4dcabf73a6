"""The stack's data folder: who uses it, which ports it has, and the file that others read."""

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path

from pod_automation.stack.errors import StackError

MARK = "stack.json"
ENVIRONMENT = "stack.env"
LEFTOVERS_S = 15.0
"""How long a former stack's servers may take to end, once their owner is gone."""

_OURS = ("kafka", "redis", "postgres", "postgres.new", "logs", MARK, ENVIRONMENT)


class Folder:
    """One data folder, used by one stack at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._owner_fd = -1
        self.parts_fd = -1
        """Held by every leash too: free only once no server of the folder is left."""

    async def open(self) -> None:
        """Take the folder. Raises `StackError` when a running stack has it.

        Waits for the servers of an owner that has died; their leashes are ending them.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._owner_fd = _lock_file(self.path / "owner.lock")
            self.parts_fd = _lock_file(self.path / "parts.lock")
        except OSError as error:
            raise StackError(f"{self.path} cannot be used: {error}; name another --dir") from None
        if not _locked(self._owner_fd):
            raise StackError(
                f"a stack is already running in {self.path}; use it (its addresses are in"
                f" {ENVIRONMENT}), stop it, or name another --dir"
            )
        try:
            async with asyncio.timeout(LEFTOVERS_S):
                # A lock of other processes: there is nothing to be woken by.
                while not _locked(self.parts_fd):  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise StackError(
                f"servers of a former stack in {self.path} are still running and do not end"
            ) from None
        (self.path / ENVIRONMENT).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the folder back."""
        (self.path / ENVIRONMENT).unlink(missing_ok=True)
        for fd in (self._owner_fd, self.parts_fd):
            if fd >= 0:
                os.close(fd)
        self._owner_fd = self.parts_fd = -1

    def begin_anew(self) -> None:
        """Delete all data. Raises `StackError` for a folder that no stack has made."""
        if not (self.path / MARK).exists():
            others = {entry.name for entry in self.path.iterdir()} - {"owner.lock", "parts.lock"}
            if others:
                raise StackError(
                    f"{self.path} is not a stack's folder (it has no {MARK}), so --fresh will not"
                    " delete it; name another --dir"
                )
        for name in _OURS:
            entry = self.path / name
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)

    def ports(self, names: list[str]) -> dict[str, int]:
        """A port for each name: the one it had before if that is free, else any free one."""
        mark = self.path / MARK
        known: dict[str, int] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(mark.read_text()).get("ports", {})
        held: list[socket.socket] = []
        try:
            for name in names:
                # All are held until the last is chosen, so that no two are the same.
                bound = _bind(known.get(name, 0)) or _bind(0)
                if bound is None:
                    raise StackError("no free port on 127.0.0.1")
                held.append(bound)
                known[name] = bound.getsockname()[1]
        finally:
            for bound in held:
                bound.close()
        mark.write_text(json.dumps({"ports": known}, indent=2) + "\n")
        return {name: known[name] for name in names}

    def announce(self, environment: Mapping[str, str]) -> Path:
        """Write `stack.env`, whole or not at all. Returns its path."""
        path = self.path / ENVIRONMENT
        lines = [f"# set -a; . {path}; set +a", *(f"{k}={v}" for k, v in environment.items())]
        half = path.with_suffix(".env.new")
        half.write_text("\n".join(lines) + "\n")
        half.replace(path)
        return path


def _lock_file(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _bind(port: int) -> socket.socket | None:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        return None
    return bound
