"""The engine's processes on the rack, each under a supervisor that starts it again."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.torture.points import ARM_FILE, ready_file
from tests.torture.process import CLOCK

RESTART_S = 0.1
EXPECTED = {0, -signal.SIGKILL, -signal.SIGTERM, 74, 75}
"""Exit codes that are no bug: told to, killed, a stop cut off, and two that ask for a restart."""


class Process:
    """One process of the engine, in its slot."""

    def __init__(
        self, slot: str, folder: Path, environment: Mapping[str, str], *options: str
    ) -> None:
        self.slot = slot
        self.kind = slot.partition("-")[0]
        self.log = folder / f"{slot}.log"
        self.exits: list[tuple[float, int]] = []
        self.lock = asyncio.Lock()
        """Held by a fault that has this process in its hands."""
        self._arm_file = folder / f"{slot}.arm"
        self._environment = {**os.environ, **environment, ARM_FILE: str(self._arm_file)}
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._wanted = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._died = asyncio.Event()

    @property
    def alive(self) -> bool:
        """Whether it runs at present."""
        return self._process is not None and self._process.returncode is None

    def begin(self) -> None:
        """Want it, from now on."""
        self._wanted.set()
        if self._supervisor is None:
            self._supervisor = asyncio.create_task(self._supervise(), name=self.slot)

    def set_clock(self, seconds: float) -> None:
        """From its next start on."""
        self._environment[CLOCK] = str(seconds) if seconds else ""

    async def end(self) -> None:
        """Kill it and its supervisor."""
        self._wanted.clear()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        self.send(signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()

    async def kill(self, down_s: float) -> None:
        """kill -9, and not back before `down_s`."""
        self._wanted.clear()
        self.send(signal.SIGKILL)
        await self.gone()
        await asyncio.sleep(down_s)
        self._wanted.set()

    async def leave(self) -> None:
        """SIGTERM, and wait until it has gone; `begin` brings it back."""
        self._wanted.clear()
        self.send(signal.SIGTERM)
        await self.gone()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def gone(self) -> None:
        """Wait until it does not run."""
        if self._process is not None:
            await self._process.wait()

    async def dies_within(self, seconds: float) -> bool:
        """Whether it ends by itself so soon."""
        self._died.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._died.wait()
                return True
        return False

    def stopped(self) -> bool:
        """Whether it is frozen by SIGSTOP."""
        if not self.alive or self._process is None:
            return False
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self._process.pid}/stat").read_text("utf-8")
            return stat.rpartition(")")[2].split()[0] == "T"
        return False

    def listens(self) -> bool:
        """Whether it can be armed."""
        ready = ready_file(self._arm_file)
        return (
            self.alive
            and self._process is not None
            and ready.exists()
            and ready.read_text("utf-8") == str(self._process.pid)
        )

    async def listening(self, within_s: float) -> bool:
        """Wait until it can be armed."""
        end = time.monotonic() + within_s
        while not self.listens() and time.monotonic() < end:
            await asyncio.sleep(0.02)
        return self.listens()

    def arm(self, point: str, what: signal.Signals) -> bool:
        """Let it die or freeze at its next passing of `point`. False: it does not listen yet."""
        if not self.listens():
            return False
        written = self._arm_file.with_suffix(".new")
        written.write_text(f"{point} {int(what)}", "utf-8")
        written.replace(self._arm_file)
        self.send(signal.SIGUSR1)
        return True

    async def _supervise(self) -> None:
        while True:
            await self._wanted.wait()
            with self.log.open("ab") as output:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "tests.torture.process", self.kind, *self._options),
                    env=self._environment,
                    stdout=output,
                    stderr=output,
                )
            code = await self._process.wait()
            self.exits.append((time.time(), code))
            self._died.set()
            await asyncio.sleep(RESTART_S)
