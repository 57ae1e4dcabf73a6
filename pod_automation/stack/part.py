"""What the three servers have in common."""

import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Literal

from pod_automation.stack.errors import MissingPackageError
from pod_automation.stack.log import ServerLog
from pod_automation.stack.server import Command

PartName = Literal["kafka", "redis", "postgres"]
RedisServer = Literal["valkey", "redis"]
Progress = Callable[[str], None]
RunToEnd = Callable[[Command], Awaitable[None]]
"""Runs a helper program; raises PartError when it fails."""

PART_NAMES: tuple[PartName, ...] = ("kafka", "redis", "postgres")
PREFIX = "POD_AUTOMATION_"

# Set for somebody's other servers, they would change ours.
_FOREIGN = ("PG", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "LC_", "LANG")


class Part(ABC):
    """How to make, run and ask one server.

    Parameters:
        home: the stack's folder; the part keeps its data in a folder of its own within.
        ports: the ports by the names in `port_names`.
        progress: told what takes time.
    """

    name: ClassVar[PartName]
    port_names: ClassVar[tuple[str, ...]]

    def __init__(self, home: Path, ports: Mapping[str, int], progress: Progress) -> None:
        self.home = home
        self.ports = {name: ports[name] for name in self.port_names}
        self.port = ports[self.port_names[0]]
        self.progress = progress
        self.log = ServerLog(home / "logs" / f"{self.name}.log")

    @property
    @abstractmethod
    def title(self) -> str:
        """The server, as a user knows it."""

    @property
    @abstractmethod
    def data(self) -> Path:
        """The folder of its data."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """The variables that lead a client to it."""

    @abstractmethod
    async def prepare(self, run: RunToEnd) -> Command:
        """Make what is missing and give the command; nothing of an earlier run is alive.

        Raises:
            StackError: it cannot be made.
        """

    @abstractmethod
    async def ask(self) -> None:
        """Return when the server answers a real request, raise anything when not yet."""


def package_folder(package: str, what: str) -> Path:
    """Where an installed package lies.

    It is not imported: these packages read the environment, warn, and bring along much that the
    stack has no use for.

    Raises:
        MissingPackageError: it is not installed.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingPackageError(f"{what} (the package {package})")
    return Path(spec.origin).parent


def server_environment() -> dict[str, str]:
    """The environment of a server: ours without what configures servers, in the C locale."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}
