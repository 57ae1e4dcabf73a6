"""Patience ends when it is told to."""

import asyncio

import pytest

from scheduler.errors import StoreUnavailableError
from scheduler.patience import Patience


async def test_a_cancellation_that_a_driver_has_turned_into_an_error_ends_it() -> None:
    asked = asyncio.Event()
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise StoreUnavailableError("PostgreSQL", "TimeoutError") from None

    waiting = asyncio.create_task(Patience("test").until_done(attempt))
    await asked.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert tries == 1
