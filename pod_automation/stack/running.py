"""One part of a stack, from its start to its end and to its start again."""

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

from pod_automation.stack.errors import PartError
from pod_automation.stack.folder import StackFolder
from pod_automation.stack.part import Part
from pod_automation.stack.ports import is_free
from pod_automation.stack.server import Command, Server

_ASK_EVERY_S = 0.05
_ASK_LIMIT_S = 10.0


class RunningPart:
    """A server that can be started, killed and started again, on the same port and data.

    Parameters:
        part: which server.
        folder: the stack's folder, open.
        ready_limit_s: how many seconds it may take to answer.
    """

    def __init__(self, part: Part, folder: StackFolder, ready_limit_s: float) -> None:
        self.part = part
        self._folder = folder
        self._ready_limit_s = ready_limit_s
        self._server: Server | None = None
        self._ended_by_us = False

    @property
    def title(self) -> str:
        """The server, as a user knows it."""
        return self.part.title

    @property
    def port(self) -> int:
        """Where it listens, on 127.0.0.1."""
        return self.part.port

    @property
    def log(self) -> Path:
        """Its log file."""
        return self.part.log.path

    @property
    def data(self) -> Path:
        """The folder of its data."""
        return self.part.data

    @property
    def pid(self) -> int | None:
        """The server's main process, None while it is stopped."""
        return self._server.pid if self._server else None

    @property
    def leash_pid(self) -> int | None:
        """The process that ends the server with its owner, None while it is stopped."""
        return self._server.leash_pid if self._server else None

    async def start(self) -> None:
        """Start it and return when it has answered.

        Raises:
            StackError: it does not; it is not running then.
        """
        lock = await self._folder.part_lock(self.part.name)
        try:

            async def run(command: Command) -> None:
                await self._run_to_end(command, lock)

            command = await self.part.prepare(run)
            if busy := [port for port in self.part.ports.values() if not is_free(port)]:
                raise self._error(f"another program has taken its port {busy[0]}; end that one.")
            self.part.progress(f"starting {self.title} on port {self.port} ...")
            begin = time.monotonic()
            self._server = Server.start(command, self.part.log, lock)
            self._ended_by_us = False
        finally:
            os.close(lock)
        try:
            await self._until_it_answers(self._server)
        except BaseException:
            await self.stop()
            raise
        self.part.progress(f"{self.title} is ready after {time.monotonic() - begin:.1f} s")

    async def stop(self) -> None:
        """Stop it, by force if it does not obey; does nothing when it is stopped."""
        # First: whoever looks for deaths may look before the last process is gone.
        self._ended_by_us = True
        if self._server is not None:
            await self._server.stop()
            self._server = None

    async def kill(self) -> None:
        """Kill it with SIGKILL and return when its last process is gone."""
        self._ended_by_us = True
        if self._server is not None:
            self._server.send(signal.SIGKILL)
            await self._server.wait()
            self._server = None
            # PostgreSQL's children notice only after a moment that they are orphans.
            os.close(await self._folder.part_lock(self.part.name))

    def kill_now(self) -> None:
        """Kill it without waiting; `stop` has to follow."""
        self._ended_by_us = True
        if self._server is not None:
            self._server.kill_now()

    def death(self) -> PartError | None:
        """What to tell when it ended though nobody stopped it, else None."""
        if self._ended_by_us or self._server is None or self._server.code is None:
            return None
        return self._error(f"it ended {_how(self._server.code)}, though nobody stopped it.")

    async def _until_it_answers(self, server: Server) -> None:
        end = time.monotonic() + self._ready_limit_s
        while True:
            last = ""
            try:
                async with asyncio.timeout(_ASK_LIMIT_S):
                    await self.part.ask()
            except Exception as raised:
                last = f"{type(raised).__name__}: {raised}"
            if server.code is not None:
                raise self._error(f"it ended {_how(server.code)} while starting; see why below.")
            if not last:
                return
            if time.monotonic() >= end:
                raise self._error(
                    f"no answer on port {self.port} within {self._ready_limit_s:.0f} s"
                    f" ({last}); see why below, or try again when the machine is less busy."
                )
            await asyncio.sleep(_ASK_EVERY_S)

    async def _run_to_end(self, command: Command, lock: int) -> None:
        helper = Server.start(command, self.part.log, lock)
        try:
            async with asyncio.timeout(self._ready_limit_s):
                code = await helper.wait()
        except TimeoutError:
            raise self._error(
                f"its data folder was not ready within {self._ready_limit_s:.0f} s."
            ) from None
        finally:
            helper.kill_now()
            await helper.stop()
        if code:
            raise self._error(f"its data folder could not be made ({_how(code)}); see why below.")

    def _error(self, problem: str) -> PartError:
        return PartError(self.title, problem, self.part.log.path, self.part.log.tail())


def _how(code: int) -> str:
    if code > 128:
        with contextlib.suppress(ValueError):
            return f"by {signal.Signals(code - 128).name}"
    return f"with code {code}"
