"""Fixtures of several unit tests."""

from typing import Any, cast

import pytest

from scheduler.settings import load_settings
from streams.app import build_app


async def _nothing(*_: object) -> bool:
    return True


@pytest.fixture
async def consumer() -> Any:
    """Faust's consumer as the worker has it, not started."""
    # In the loop of the test: what it waits with belongs to one.
    app = build_app(
        load_settings(),
        ["posts", "results"],
        deliver=_nothing,
        on_assigned=cast(Any, _nothing),
        on_revoked=cast(Any, _nothing),
        on_death=lambda _: None,
    )
    return app.consumer
