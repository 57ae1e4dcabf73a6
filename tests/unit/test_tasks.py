"""Ending tasks, also those that swallow what they are told."""

import asyncio

import pytest

from scheduler.tasks import ended


async def test_a_task_that_swallows_a_cancellation_ends_all_the_same() -> None:
    begun = asyncio.Event()
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        begun.set()
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await begun.wait()
    await ended(task, again_s=0.01)
    assert task.cancelled()
    assert swallowed == 2


async def test_what_a_task_raises_is_dropped() -> None:
    async def failing() -> None:
        raise ValueError("dropped")

    task = asyncio.create_task(failing())
    await asyncio.wait([task])
    await ended(task)
    with pytest.raises(ValueError, match="dropped"):
        task.result()


async def test_no_tasks_are_ended_at_once() -> None:
    await ended()
