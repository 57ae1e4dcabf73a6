"""The embedded stack: real Kafka, Redis and PostgreSQL for as long as somebody holds it."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from pod_automation.stack.errors import StackError
from pod_automation.stack.folder import Folder
from pod_automation.stack.kafka import kafka
from pod_automation.stack.postgres import DATABASE, postgres
from pod_automation.stack.redis import Kind, redis
from pod_automation.stack.server import Part, Server

ALL = frozenset({"kafka", "redis", "postgres"})


def _silent(message: str) -> None:
    pass


class EmbeddedStack:
    """Three servers on 127.0.0.1 with their data in one folder; an async context manager.

    No server outlives the process that entered the context, however that ends. Data stays: the
    next stack on the folder goes on with it, on the same ports where they are still free.
    """

    def __init__(
        self,
        directory: Path | str,
        *,
        fresh: bool = False,
        redis_server: Kind = "valkey",
        parts: Collection[str] = ALL,
        on_progress: Callable[[str], None] = _silent,
    ) -> None:
        """`fresh` deletes the folder's data first; `parts` are those of `ALL` to start."""
        self._folder = Folder(Path(directory))
        self._fresh = fresh
        self._redis_server = redis_server
        self._wanted = [name for name in sorted(ALL) if name in parts]
        self._progress = on_progress
        self._makers: dict[str, Callable[[], Awaitable[Part]]] = {}
        self.parts: dict[str, Server] = {}
        """The servers by name: `kafka`, `redis`, `postgres`."""

    @property
    def directory(self) -> Path:
        """The data folder; logs are in its `logs`."""
        return self._folder.path

    @property
    def environment(self) -> Mapping[str, str]:
        """The `POD_AUTOMATION_*` variables that name the servers."""
        addresses = {
            "kafka": ("KAFKA_BOOTSTRAP", "127.0.0.1:{}"),
            "redis": ("REDIS_URL", "redis://127.0.0.1:{}/0"),
            "postgres": ("POSTGRES_DSN", "postgresql://postgres@127.0.0.1:{}/" + DATABASE),
        }
        return {
            f"POD_AUTOMATION_{addresses[name][0]}": addresses[name][1].format(server.part.port)
            for name, server in sorted(self.parts.items())
        }

    async def __aenter__(self) -> Self:
        """Start all parts, side by side; returns once each has answered. Raises `StackError`."""
        await self._folder.open()
        try:
            if self._fresh:
                self._folder.begin_anew()
            ports = self._folder.ports(["kafka", "kafka-controller", "redis", "postgres"])
            folder = self._folder.path

            async def make_redis() -> Part:
                return redis(folder, ports, self._redis_server)

            self._makers = {
                "kafka": lambda: kafka(folder, ports, self._progress),
                "postgres": lambda: postgres(folder, ports),
                "redis": make_redis,
            }
            starting = [asyncio.ensure_future(self._start(name)) for name in self._wanted]
            try:
                await asyncio.gather(*starting)
            except BaseException:
                for task in starting:
                    task.cancel()
                await asyncio.gather(*starting, return_exceptions=True)
                raise
            self._folder.announce(self.environment)
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all parts in order; what does not end in time is killed."""
        await self._stop()

    async def kill(self, name: str) -> None:
        """`kill -9` one part, and wait until it is gone."""
        self.parts[name].kill()
        await self.parts[name].ended()

    async def stop(self, name: str) -> None:
        """Stop one part in order."""
        await self.parts[name].stop()

    async def restart(self, name: str) -> None:
        """Start one part on the same port, and stop it first if it runs. Raises `StackError`."""
        await self.parts[name].stop()
        await self._start(name)

    async def failed(self) -> Server:
        """Wait until a part ends by itself; returns it."""
        waits = {asyncio.ensure_future(s.ended()): s for s in self.parts.values()}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            return waits[done.pop()]
        finally:
            for wait in waits:
                wait.cancel()

    async def _start(self, name: str) -> None:
        part = await self._makers[name]()
        self._progress(f"{part.name}: starting on 127.0.0.1:{part.port}")
        server = self.parts[name] = Server(part)
        await server.start(self._folder.parts_fd)
        self._progress(f"{part.name}: ready")

    async def _stop(self) -> None:
        servers = [server for server in self.parts.values() if server.running]
        await asyncio.gather(*(server.stop() for server in servers), return_exceptions=True)
        self._folder.close()


__all__ = ["ALL", "EmbeddedStack", "StackError"]
