"""The three servers together."""

import asyncio
import contextlib
import os
from collections.abc import Collection, Coroutine, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pod_automation.stack.errors import PartError, StackError
from pod_automation.stack.folder import StackFolder
from pod_automation.stack.kafka import KafkaPart
from pod_automation.stack.part import PART_NAMES, Part, PartName, Progress, RedisServer
from pod_automation.stack.ports import choose_ports
from pod_automation.stack.postgres import PostgresPart
from pod_automation.stack.redis import RedisPart
from pod_automation.stack.running import RunningPart

_PORT_NAMES: dict[PartName, tuple[str, ...]] = {
    "kafka": KafkaPart.port_names,
    "redis": RedisPart.port_names,
    "postgres": PostgresPart.port_names,
}


class EmbeddedStack:
    """Real Kafka, Redis and PostgreSQL of this process's own, gone when it is.

    None of the servers outlives the process, not even one that is killed; the data does. Use it as
    an async context manager. Its methods may be awaited from any event loop, by one task at a time.

    Parameters:
        directory: the folder for data, logs and stack.env; each running stack needs its own.
        fresh: begin with no data.
        redis_server: which server speaks the Redis protocol; each has its own data.
        parts: the servers to start.
        lasting: it is to run, and to be used, for longer than minutes: Kafka's JVM then takes the
            time to compile well.
        on_progress: told in one line what takes time.
        ready_limit_s: how many seconds each server may take to answer its first request.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] = ".pod-automation",
        *,
        fresh: bool = False,
        redis_server: RedisServer = "valkey",
        parts: Collection[PartName] = PART_NAMES,
        lasting: bool = False,
        on_progress: Progress | None = None,
        ready_limit_s: float = 90.0,
    ) -> None:
        if unknown := set(parts) - set(PART_NAMES):
            raise ValueError(f"no such part: {', '.join(sorted(unknown))}")
        self._folder = StackFolder(Path(directory))
        self._fresh = fresh
        self._redis_server = redis_server
        self._names = tuple(name for name in PART_NAMES if name in parts)
        self._lasting = lasting
        self._progress = on_progress or (lambda _: None)
        self._ready_limit_s = ready_limit_s
        self._parts: dict[PartName, RunningPart] = {}

    @property
    def directory(self) -> Path:
        """The folder, absolute."""
        return self._folder.path

    @property
    def environment_file(self) -> Path:
        """`stack.env`: there while all servers answer."""
        return self._folder.environment_file

    @property
    def environment(self) -> dict[str, str]:
        """The `POD_AUTOMATION_*` variables that lead to the servers."""
        found: dict[str, str] = {}
        for running in self._parts.values():
            found |= running.part.environment
        return found

    @property
    def parts(self) -> Mapping[PartName, RunningPart]:
        """The servers by name, with their process ids, ports, logs and data folders."""
        return self._parts

    async def start(self) -> None:
        """Start the servers side by side and return when each has answered a request.

        Raises:
            StackError: one cannot be started or does not answer, with the end of its log; the
                folder is in use or is somebody else's; a package is not installed. No server is
                left running then, but for those of a stack that had been started before.
        """
        if self._folder.is_open:
            raise StackError(f"the stack in {self.directory} runs already: stop() it first")
        try:
            self._folder.open()
            if self._fresh:
                await self._clear()
            self._parts = self._make_parts()
            await _side_by_side(running.start() for running in self._parts.values())
            self._folder.write_environment(self.environment)
        except OSError as raised:
            await self.stop()
            raise StackError(
                f"the stack cannot use {self.directory}: {raised}; see to it, or name another"
                " folder with --dir"
            ) from raised
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop all servers in order of their own, or kill those that do not; never raises for them.

        Does nothing the second time.
        """
        if self._folder.is_open:
            with contextlib.suppress(OSError):
                self.environment_file.unlink(missing_ok=True)
        try:
            await asyncio.gather(*(running.stop() for running in self._parts.values()))
        except asyncio.CancelledError:
            self.kill_now()
            raise
        finally:
            self._folder.close()

    def kill_now(self) -> None:
        """Kill all servers at once; `stop` still has to follow."""
        for running in self._parts.values():
            running.kill_now()

    async def kill(self, part: PartName) -> None:
        """Kill one server with SIGKILL, and return when all of its processes are gone."""
        await self._parts[part].kill()

    async def stop_part(self, part: PartName) -> None:
        """Stop one server in order; `restart` starts it again."""
        await self._parts[part].stop()

    async def restart(self, part: PartName) -> None:
        """Start one server again on its port and data; one that still runs is stopped first.

        Raises:
            StackError: it does not come up again.
        """
        await self._parts[part].stop()
        await self._parts[part].start()

    async def wait_for_death(self) -> PartError:
        """Return when a server has ended that nobody stopped or killed through this object."""
        while True:
            for running in self._parts.values():
                if (error := running.death()) is not None:
                    return error
            await asyncio.sleep(0.1)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        raised: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def _clear(self) -> None:
        # Also of the servers that are not started this time: all data goes.
        for name in PART_NAMES:
            os.close(await self._folder.part_lock(name))
        self._folder.clear()

    def _make_parts(self) -> dict[PartName, RunningPart]:
        names = [port for part in self._names for port in _PORT_NAMES[part]]
        ports = choose_ports(names, self._folder.ports)
        self._folder.remember_ports(ports)
        return {
            name: RunningPart(self._make_part(name, ports), self._folder, self._ready_limit_s)
            for name in self._names
        }

    def _make_part(self, name: PartName, ports: Mapping[str, int]) -> Part:
        home = self._folder.path
        if name == "kafka":
            return KafkaPart(home, ports, self._progress, lasting=self._lasting)
        if name == "redis":
            return RedisPart(home, ports, self._progress, self._redis_server)
        return PostgresPart(home, ports, self._progress)


async def _side_by_side(starts: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Await all; when one fails, cancel the others, and raise what failed first."""
    tasks = [asyncio.create_task(start) for start in starts]
    try:
        # gather raises the first failure at once, and leaves the others running.
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
