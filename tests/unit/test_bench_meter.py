"""What processes are measured by."""

import os
from types import SimpleNamespace

import psutil  # type: ignore[import-untyped]
import pytest

from bench.meter import memory_of


def test_shared_pages_count_in_parts_where_the_system_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rss, pss = SimpleNamespace(rss=100), SimpleNamespace(pss=60)
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: rss)
    monkeypatch.setattr(psutil.Process, "memory_full_info", lambda _: pss)
    monkeypatch.setattr(psutil.Process, "children", lambda _, **__: [psutil.Process()])
    assert memory_of(os.getpid(), os.getppid()) == 4 * 60
    monkeypatch.setattr(psutil.Process, "memory_full_info", lambda _: rss)
    assert memory_of(os.getpid()) == 2 * 100
