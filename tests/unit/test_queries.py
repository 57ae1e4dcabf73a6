"""The record's queries as texts."""

from importlib.resources import files

import pytest

from scheduler.sql import query

NAMES = sorted(
    each.name.removesuffix(".sql")
    for each in files("scheduler.sql").iterdir()
    if each.name.endswith(".sql")
)


@pytest.mark.parametrize("name", NAMES)
def test_every_query_says_what_it_does(name: str) -> None:
    assert query(name).startswith("-- ")


@pytest.mark.parametrize("name", NAMES)
def test_every_include_is_resolved(name: str) -> None:
    assert "@include" not in query(name)
