"""The commands as a user gives them, on real servers."""


import pytest

pytestmark = pytest.mark.timeout(90)
