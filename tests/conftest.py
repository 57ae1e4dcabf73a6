"""Fixtures of all tests."""

import hypothesis

# How long an example takes says more of the machine than of the code.
hypothesis.settings.register_profile("ours", deadline=None)
hypothesis.settings.load_profile("ours")

pytest_plugins = ["tests.fixtures.postgres", "tests.fixtures.stack", "tests.fixtures.redis"]
