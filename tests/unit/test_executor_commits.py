"""When an executor commits."""

import asyncio
from typing import Any, cast

import pytest

from pod_automation.executor import Executor
from pod_automation.executor.engagement import Engagement
from scheduler.settings import load_settings


async def handle(_: Engagement) -> None: ...


async def test_nothing_is_committed_behind_a_join(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = Executor(load_settings(), handle)
    rejoining, looked, committed = [True], 0, asyncio.Event()

    def look(_: object) -> bool:
        nonlocal looked
        looked += 1
        if looked == 5:
            assert not committed.is_set()
            rejoining[0] = False
        return rejoining[0]

    async def commit() -> None:
        committed.set()

    monkeypatch.setattr("pod_automation.executor.executor.COMMIT_S", 0)
    monkeypatch.setattr("pod_automation.executor.executor.rejoining", look)
    monkeypatch.setattr(executor, "_commit", commit)
    monkeypatch.setattr(executor, "_consumer", cast(Any, object()))
    committing = asyncio.create_task(executor._commit_now_and_then())
    try:
        await committed.wait()
        assert looked >= 5
    finally:
        committing.cancel()
        await asyncio.wait([committing])
