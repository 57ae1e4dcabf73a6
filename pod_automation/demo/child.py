"""One process of the engine, started by the demo: its log is a file, and it never outlives us."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pod_automation
from scheduler.errors import EngineError

STOP_S = 12.0
"""For an orderly stop; the processes cut themselves off after eight seconds."""

TAIL_LINES = 15


class ChildError(EngineError):
    """A process of the demo does not do what it should."""


class ChildDiedError(ChildError):
    """A process that should run has ended."""


class NotReadyError(ChildError):
    """A process does not get to work in time."""


async def started(
    stack: AsyncExitStack,
    environment: Mapping[str, str],
    directory: Path,
    *commands: Sequence[str],
) -> "list[Child]":
    """A process for each of `commands`, its log in `directory`; `stack` stops them, even where the
    start itself is interrupted."""
    children = [
        Child(name, environment, directory / f"{name}.log", *options) for name, *options in commands
    ]
    for child in children:
        stack.push_async_callback(child.stop)
        await child.start()
    return children


class Child:
    """`pod-automation <command>` as a process of its own."""

    def __init__(
        self, command: str, environment: Mapping[str, str], log: Path, *options: str
    ) -> None:
        """`environment` is all that the process gets to see; `log` takes what it says."""
        self.command = command
        self._options = options
        self.log = log
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._restarting = asyncio.Lock()

    async def start(self) -> None:
        """Start it; again, after a `kill`."""
        # Not found through the working directory (-P), in which anything may lie about.
        root = str(Path(pod_automation.__file__).parents[1])
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "pod_automation.demo.tethered", self.command),
                *self._options,
                env={**self._environment, "PYTHONPATH": root},
                # The tether: it closes when this process dies.
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                # A Ctrl-C in the terminal is ours to pass on, in order.
                start_new_session=True,
            )

    async def watch(self) -> None:
        """Return when it is stopped; raises `ChildDiedError` when it ends by itself."""
        while not self._stopping and (process := self._process) is not None:
            code = await process.wait()
            async with self._restarting:
                ended = process is self._process and not self._stopping
            if ended:
                raise ChildDiedError(
                    f"the {self.command} has ended with exit code {code}. The end of"
                    f" {self.log}:\n{self.last_lines()}"
                )

    async def kill_and_restart(self) -> None:
        """kill -9, and start it again at once."""
        async with self._restarting:
            if self._process is not None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()
            await self.start()

    async def stop(self) -> None:
        """Stop it in order (SIGTERM), by force when that takes too long."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    def last_lines(self) -> str:
        """The end of its log."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            return str(error)
        return "\n".join(lines[-TAIL_LINES:])


def clean_environment() -> dict[str, str]:
    """Our environment without settings: those of a real site must not reach the demo."""
    kept = {"POD_AUTOMATION_LOG_LEVEL"}
    return {
        name: value
        for name, value in os.environ.items()
        if name in kept or not name.startswith("POD_AUTOMATION_")
    }
