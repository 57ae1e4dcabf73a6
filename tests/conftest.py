"""Fixtures of all tests."""

import asyncio
from collections.abc import AsyncIterator, Generator
from typing import Any
from weakref import WeakSet

import hypothesis
import pytest
import structlog

from scheduler.tasks import ended

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

pytest_plugins = ["tests.fixtures.postgres", "tests.fixtures.stack", "tests.fixtures.redis"]

Task = asyncio.Task[Any]

CLEAN_UP_S = 60.0
"""Longer than what a test takes to stop what it has started."""

_LOOP = pytest.StashKey[asyncio.AbstractEventLoop]()
_lasting: WeakSet[Task] = WeakSet()
"""Tasks of fixtures that outlive the test which has asked for them first."""


def pytest_configure() -> None:
    """Have no logger kept that a command has made, whose lines `capture_logs` would not hear of."""
    configure = structlog.configure

    def uncached(**options: Any) -> None:
        configure(**options | {"cache_logger_on_first_use": False})

    structlog.configure = uncached  # type: ignore[assignment]


@pytest.fixture(autouse=True)
async def _no_task_outlives_its_test(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    # Set up before all other fixtures of a test, and so torn down when these are.
    request.session.stash[_LOOP] = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    yield
    here = asyncio.current_task()
    assert here is not None
    async with asyncio.timeout(CLEAN_UP_S):
        # The end of one may be the beginning of the next.
        while left := asyncio.all_tasks() - before - {here} - set(_lasting):
            await ended(*left)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Tell the tasks of a test from those of what it is merely the first to ask for."""
    before = _tasks(request.session)
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            _lasting.update(_tasks(request.session) - before)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let a test that its time limit has stopped clean up, while its fixtures are there.

    The limit raises out of the event loop, which mostly waits at that moment. The test is left
    waiting in it, its `finally` to come; and would go on where the next one turns the loop.
    """
    before = _tasks(item.session)
    try:
        return (yield)
    finally:
        code = getattr(getattr(item, "function", None), "__code__", None)
        left = _tasks(item.session) - before
        if tests := [task for task in left if getattr(task.get_coro(), "cr_code", None) is code]:
            item.session.stash[_LOOP].run_until_complete(
                asyncio.wait_for(ended(*tests), CLEAN_UP_S)
            )


def _tasks(session: pytest.Session) -> set[Task]:
    loop = session.stash.get(_LOOP, None)
    return set() if loop is None else asyncio.all_tasks(loop)
