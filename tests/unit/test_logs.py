"""A log line is one line, whatever stands in it."""

import subprocess
import sys

import pytest


def shown(make: str, value: str) -> str:
    """What a process writes that logs by `make`."""
    code = (
        "import logging, structlog, sys; from pod_automation.logs import configure; configure();"
        f"value = {value!r}; {make}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    (line,) = done.stderr.decode().splitlines()
    return line


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("post-1", "post=post-1"),
        ("", "post=''"),
        ("a b", "post='a b'"),
        ("a=b", "post='a=b'"),
        ("\ufeff", r"post='\ufeff'"),
        ("\u202eabc", r"post='\u202eabc'"),
        ("\x1b[2J", r"post='\x1b[2J'"),
    ],
)
def test_a_value_disturbs_no_terminal(value: str, written: str) -> None:
    line = shown("structlog.get_logger().info('would do', post=value)", value)
    assert line.endswith(f"would do {written}")


def test_nor_does_a_librarys_message() -> None:
    line = shown("logging.getLogger('somebody').warning('no %s here', value)", "\x1b[2J\nkey")
    assert line.endswith(r"no \x1b[2J\nkey here")
