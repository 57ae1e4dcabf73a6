"""A log line is one line, whatever stands in it."""

import subprocess
import sys

import pytest

from pod_automation.logs import PREFIX


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


def test_nor_does_what_was_raised() -> None:
    code = (
        "import logging; from pod_automation.logs import configure; configure()\n"
        "try: raise ValueError('\\x1b[2J\\r\\nfoo')\n"
        "except ValueError: logging.getLogger('somebody').exception('it failed')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    text = done.stderr.decode()
    lines = text.removesuffix("\n").split("\n")
    assert "Traceback" in text
    assert len(lines) > 3
    assert all(each.startswith(f"{PREFIX} ") and each.isprintable() for each in lines)
