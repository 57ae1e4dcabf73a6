"""A peer's driver: a program that does the work as its library is meant to be used.

It gets its configuration as JSON in its one argument, reads one JSON object a line on standard
input, and answers each with one line:

- `{"do": "hello"}`: answers `{}` when all is made that it needs.
- `{"do": "schedule", "count": N, "from_ms": A, "to_ms": B}`: schedule N timers, due evenly from A
  to B. Answers `{"seconds": S}`, from before the first call until after the last.
- `{"do": "work"}`: start the library's worker. Answers `{}`.
- `{"do": "fired", "count": N}`: wait until N jobs have started since the last answer to this.
  Answers `{"first_ms": ..., "last_ms": ..., "lateness_ms": [...]}`: when the first and the last
  started, and how much later than due each did.
- `{"do": "stop"}`: answers `{}` and ends.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from msgspec import Struct, convert

ANSWER_BYTES = 1 << 27
"""Of one line: a lateness takes some five bytes."""

END_S = 10.0


class DriverError(Exception):
    """A driver has ended, or answers what nobody can read; its last words."""


class Fired(Struct, frozen=True):
    """What `fired` answers."""

    first_ms: int
    last_ms: int
    lateness_ms: Sequence[int]

    @property
    def a_second(self) -> float:
        """Starts a second, from the first to the last: no pause before is held against anybody."""
        return len(self.lateness_ms) / max(1, self.last_ms - self.first_ms) * 1000


class Driver:
    """One that runs."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        """Of the program; its worker may be a child of it."""
        return self._process.pid

    async def hello(self) -> None:
        """Wait until it is ready."""
        await self._ask(do="hello")

    async def schedule(self, count: int, from_ms: int, to_ms: int) -> float:
        """The seconds that it took."""
        answer = await self._ask(do="schedule", count=count, from_ms=from_ms, to_ms=to_ms)
        return float(answer["seconds"])

    async def work(self) -> None:
        """Start the worker."""
        await self._ask(do="work")

    async def fired(self, count: int) -> Fired:
        """Wait for so many starts."""
        return convert(await self._ask(do="fired", count=count), Fired)

    async def stop(self) -> None:
        """Ask it to end, and see to it."""
        if self._process.returncode is None:
            try:
                async with asyncio.timeout(END_S):
                    await self._ask(do="stop")
                    await self._process.wait()
            except (TimeoutError, DriverError):
                pass
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _ask(self, **asked: Any) -> Mapping[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(orjson.dumps(asked) + b"\n")
            await self._process.stdin.drain()
            line = await self._process.stdout.readline()
            answer = orjson.loads(line)
        except (OSError, ValueError) as error:
            raise DriverError(f"{asked['do']}: {self._last_words() or error}") from None
        if not isinstance(answer, dict):
            raise DriverError(f"{asked['do']}: answered {line[:200]!r}")
        return answer

    def _last_words(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])


@asynccontextmanager
async def driver(
    command: Sequence[str], folder: Path, config: Mapping[str, Any], log: Path
) -> AsyncIterator[Driver]:
    """The program `command`, run in `folder`; what it says besides goes to `log`."""
    with log.open("ab") as words:
        process = await asyncio.create_subprocess_exec(
            *command,
            orjson.dumps(config).decode(),
            cwd=folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
            limit=ANSWER_BYTES,
        )
    made = Driver(process, log)
    try:
        await made.hello()
        yield made
    finally:
        await made.stop()
