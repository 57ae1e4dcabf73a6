"""What tests start does not outlive them."""

import subprocess
import sys

import pytest

from tests.unit.program import ROOT

PARENT = """
import subprocess
from tests.tied import tied
subprocess.run(tied("sh", "-c", "echo up; read line"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel is asked for it")
@pytest.mark.timeout(20)
def test_what_is_tied_to_a_process_ends_with_it() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        parent.kill()
        # Open until the last has ended that writes to it.
        assert parent.stdout.read() == b""
