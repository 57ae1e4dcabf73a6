"""Fixtures of all tests."""

pytest_plugins = ["tests.fixtures.postgres", "tests.fixtures.stack", "tests.fixtures.redis"]
