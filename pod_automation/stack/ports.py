"""Which ports the servers listen on."""

import secrets
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from pod_automation.stack.errors import StackError

HOST = "127.0.0.1"
_LOWEST = 20_000
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LINUX_EPHEMERAL = 32_768


def is_free(port: int) -> bool:
    """Whether a server can listen on `port` now."""
    with socket.socket() as probe:
        # As the servers do: a connection in TIME_WAIT does not count, a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def choose_ports(names: Iterable[str], remembered: Mapping[str, int]) -> dict[str, int]:
    """A free port for each name: the remembered one where it is free, else a new one.

    New ones lie below the range from which the system takes the ports of outgoing connections: a
    client that tries again and again to reach a killed server on a port within that range sooner or
    later is given that very port, connects to itself, and the server can never come back.
    """
    chosen: dict[str, int] = {}
    taken = set(remembered.values())
    for name in names:
        port = remembered.get(name)
        if port is None or port in chosen.values() or not is_free(port):
            port = _new_port(taken)
        taken.add(port)
        chosen[name] = port
    return chosen


def _new_port(taken: set[int]) -> int:
    try:
        end = int(_EPHEMERAL.read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        end = _LINUX_EPHEMERAL
    if end < _LOWEST + 1_000:  # somebody widened the range; there is no better place then
        end = _LINUX_EPHEMERAL
    for _ in range(1_000):
        port = _LOWEST + secrets.randbelow(end - _LOWEST)
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port between {_LOWEST} and {end} on {HOST}; close some servers")
