"""A wire from one process to one store, that can be cut, go silent, or be slow.

A TCP proxy on the loopback interface. A process gets one for each address it knows; Kafka's brokers
advertise to it the addresses of its own wires (`tests.torture.servers`), so it knows no other way.
"""

import asyncio
from collections.abc import Callable

from pod_automation.stack.ports import HOST

CHUNK = 1 << 16


class Link:
    """One wire. `target` says where it leads at present."""

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._whole = True
        self._delay_s = 0.0
        self._ends: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        """Where its process connects, once it has started."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Listen, for as long as the site is there."""
        self._server = await asyncio.start_server(self._accepted, HOST, 0)

    async def stop(self) -> None:
        """Stop listening, and drop what is connected."""
        if self._server is not None:
            self._server.close()
        self._drop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self._whole = False
        self._drop()

    def silence(self) -> None:
        """Carry nothing any more, and close nothing: what a host that drops packets does."""
        self._flows.clear()

    def slow(self, delay_s: float) -> None:
        """Let each piece of data take so long."""
        self._delay_s = delay_s

    def heal(self) -> None:
        """As at first. What a silent wire has swallowed arrives now, as after a retransmission."""
        self._whole = True
        self._delay_s = 0.0
        self._flows.set()

    def _drop(self) -> None:
        for end in self._ends:
            end.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._ends.add(writer)
        other: asyncio.StreamWriter | None = None
        try:
            if not self._whole:
                return
            await self._flows.wait()
            back, other = await asyncio.open_connection(HOST, self._target())
            self._ends.add(other)
            ways = [
                asyncio.ensure_future(self._carry(reader, other)),
                asyncio.ensure_future(self._carry(back, writer)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # the store is away: so is the wire
        finally:
            for end in (writer, other):
                if end is not None:
                    end.transport.abort()
                    self._ends.discard(end)
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
