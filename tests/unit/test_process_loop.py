"""A process ends when its main has ended, whatever that has left behind."""

import asyncio
import contextlib

import pytest
from structlog.testing import capture_logs

from pod_automation.loop import run_to_the_end


async def never_ends() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


def test_it_raises_what_main_raises_though_a_task_does_not_end() -> None:
    async def main() -> None:
        stubborn = asyncio.create_task(never_ends(), name="stubborn")
        await asyncio.sleep(0)
        assert not stubborn.done()
        raise LookupError("main has failed")

    with capture_logs() as logs, pytest.raises(LookupError, match="main has failed"):
        run_to_the_end(main(), left_s=0.01)
    assert [line["tasks"] for line in logs] == [["stubborn"]]


def test_what_ends_is_waited_for() -> None:
    ended: list[str] = []

    async def other() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append("other")

    async def swallows_once() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await other()

    async def main() -> None:
        left = asyncio.create_task(swallows_once())
        await asyncio.sleep(0)
        assert not left.done()

    with capture_logs() as logs:
        run_to_the_end(main())
    assert ended == ["other"]
    assert logs == []
