"""The folder of one stack: whose it is, what it remembers, and what may be deleted in it."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pod_automation.stack.descriptors import disown, own
from pod_automation.stack.errors import StackError
from pod_automation.stack.lock import holder, try_lock, wait_for_lock

_STATE = "stack.json"
_LOCK = "stack.lock"
_OF = "pod-automation embedded stack"
# What the stack makes and `fresh` therefore deletes; the state and the locks stay.
_DATA = ("kafka", "valkey", "redis", "postgres", "logs")
# Kafka reads its folders as a list with commas; Redis and Java's properties know escapes.
_UNFIT = set(',"\\\n')
# A server of an earlier owner has its grace to end; Kafka's is the longest.
_LEFTOVER_S = 20.0


class StackFolder:
    """Holds the folder's lock from `open` to `close`, or to the death of this process.

    Parameters:
        path: the folder; made when it does not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()
        self.environment_file = self.path / "stack.env"
        self._lock: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether the folder is ours now."""
        return self._lock is not None

    def open(self) -> None:
        """Take the folder.

        Raises:
            StackError: another stack runs here, or the folder holds something else.
            OSError: the folder cannot be made or written.
        """
        if bad := set(str(self.path)) & _UNFIT:
            raise StackError(
                f"the servers' configuration cannot name {self.path}, which has {min(bad)!r} in it;"
                " name another folder with --dir"
            )
        self.path.mkdir(parents=True, exist_ok=True)
        strangers = {each.name for each in self.path.iterdir()} - {_LOCK, ".gitignore"}
        if strangers and self._state().get("of") != _OF:
            raise StackError(
                f"{self.path} is not a folder of the embedded stack (it holds"
                f" {min(strangers)!r}); name an empty or a new one with --dir"
            )
        lock = self.path / _LOCK
        descriptor = try_lock(lock)
        if descriptor is None:
            raise StackError(
                f"a stack already runs in {self.path} (process {holder(lock) or 'unknown'});"
                " use it, stop it, or name another folder with --dir"
            )
        self._lock = own(descriptor)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        # The mark comes first: a start that is cut short must not make the folder a stranger's.
        self._remember(self._state())
        # The folder may lie anywhere in somebody's checkout.
        (self.path / ".gitignore").write_text("*\n", "ascii")
        # One left by an owner that was killed names servers that are gone.
        self.environment_file.unlink(missing_ok=True)
        (self.path / "run").mkdir(exist_ok=True)
        (self.path / "logs").mkdir(exist_ok=True)

    def close(self) -> None:
        """Give the folder back."""
        if self._lock is not None:
            disown(self._lock)
            self._lock = None

    async def part_lock(self, part: str) -> int:
        """A descriptor with the lock of one server, once the last process of an earlier one ended.

        Raises:
            StackError: it does not end.
        """
        path = self.path / "run" / f"{part}.lock"
        try:
            return await wait_for_lock(path, _LEFTOVER_S)
        except TimeoutError:
            raise StackError(
                f"the {part} of an earlier run in {self.path} does not end;"
                f" kill process {holder(path) or '(unknown)'} and try again"
            ) from None

    def clear(self) -> None:
        """Delete the data and the logs. Only while no server runs: see `part_lock`."""
        for name in _DATA:
            if (self.path / name).exists():
                shutil.rmtree(self.path / name)
        (self.path / "logs").mkdir()

    @property
    def ports(self) -> dict[str, int]:
        """The ports of the last start."""
        ports = self._state().get("ports")
        if not isinstance(ports, dict):
            return {}
        return {str(name): port for name, port in ports.items() if isinstance(port, int)}

    def remember_ports(self, ports: Mapping[str, int]) -> None:
        """Keep `ports` for the next start, next to those of other servers."""
        self._remember(self._state() | {"ports": self.ports | dict(ports)})

    def write_environment(self, variables: Mapping[str, str]) -> None:
        """Write stack.env, whole or not at all: a program may wait for it to appear."""
        lines = ["# Written by `pod-automation stack`; gone when it stops."]
        lines += [f"{name}={value}" for name, value in variables.items()]
        _replace(self.environment_file, "\n".join(lines) + "\n")

    def _state(self) -> dict[str, Any]:
        try:
            state = json.loads((self.path / _STATE).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def _remember(self, state: Mapping[str, Any]) -> None:
        _replace(self.path / _STATE, json.dumps({**state, "of": _OF}, indent=1) + "\n")


def _replace(path: Path, text: str) -> None:
    written = path.with_name(path.name + ".new")
    written.write_text(text, "utf-8")
    written.replace(path)
