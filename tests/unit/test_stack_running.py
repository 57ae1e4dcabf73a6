"""Which ends of a server are told: none that was asked for."""

import asyncio
import signal
from pathlib import Path
from typing import Any, cast

import pytest

from pod_automation.stack.running import RunningPart

pytestmark = pytest.mark.timeout(30)


class Log:
    path = Path("log")

    def tail(self) -> list[str]:
        return []


class APart:
    title, name, log = "Kafka", "kafka", Log()


class Dying:
    """A server that is dead at once, and told to be gone only later."""

    def __init__(self) -> None:
        self.code: int | None = None
        self.gone = asyncio.Event()

    def send(self, _: signal.Signals) -> None:
        self.code = 137

    async def stop(self) -> None:
        self.code = 0
        await self.gone.wait()

    async def wait(self) -> int:
        await self.gone.wait()
        return 137


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_who_ends_it_is_not_told_of_its_death(how: str) -> None:
    running = RunningPart(cast(Any, APart()), cast(Any, None), 1.0)
    server = Dying()
    running._server = cast(Any, server)
    assert running.death() is None
    ending = asyncio.create_task(getattr(running, how)())
    while server.code is None:  # noqa: ASYNC110
        await asyncio.sleep(0)
    assert running.death() is None
    ending.cancel()


async def test_a_death_that_nobody_asked_for_is_told() -> None:
    running = RunningPart(cast(Any, APart()), cast(Any, None), 1.0)
    server = Dying()
    running._server = cast(Any, server)
    server.code = 1
    assert "though nobody stopped it" in str(running.death())
