"""Peers are installed by their own package managers, where these are on the machine."""

import asyncio
import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.peers.catalogue import HERE, Peer

CACHE = HERE / ".installed"


class NotInstalledError(Exception):
    """A peer cannot be had here; the message says why."""


async def installed(peer: Peer) -> tuple[Sequence[str], Path]:
    """The command of `peer`'s driver and the folder to run it in, installed first where it is not.

    Raises `NotInstalledError`.
    """
    home = CACHE / peer.folder
    how = {"package.json": _npm, "go.mod": _go, "requirements.txt": _pip}[peer.requirements]
    stamp = home / "stamp"
    wanted = _print_of(peer.source, HERE / "go_driver")
    fresh = stamp.is_file() and stamp.read_text() == wanted
    if not fresh:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
    found = await how(peer, home, fresh)
    stamp.write_text(wanted)
    return found


async def _npm(peer: Peer, home: Path, fresh: bool) -> tuple[Sequence[str], Path]:
    node = _program("node")
    if not fresh:
        for name in (peer.requirements, "driver.mjs"):
            shutil.copy(peer.source / name, home)
        options = ("--no-package-lock", "--no-audit", "--no-fund", "--silent")
        await _run(_program("npm"), "install", *options, folder=home)
    return (node, "driver.mjs"), home


async def _go(peer: Peer, home: Path, fresh: bool) -> tuple[Sequence[str], Path]:
    program = home / "driver"
    if not fresh:
        await _run(_program("go"), "build", "-o", str(program), ".", folder=peer.source)
    return (str(program),), home


async def _pip(peer: Peer, home: Path, fresh: bool) -> tuple[Sequence[str], Path]:
    python = home / "venv" / "bin" / "python"
    if not fresh:
        await _run(sys.executable, "-m", "venv", str(home / "venv"), folder=home)
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        needed = str(peer.source / peer.requirements)
        await _run(str(python), *pip, "--requirement", needed, folder=home)
    return (str(python), str(peer.source / "driver.py")), home


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise NotInstalledError(f"there is no {name} on this machine")
    return found


async def _run(*command: str, folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-3:]
        raise NotInstalledError(f"{Path(command[0]).name} has failed: {' / '.join(last)}")


def _print_of(*folders: Path) -> str:
    """Of all files of a driver, and of what those in Go share: another one is installed anew."""
    made = hashlib.sha256()
    for file in sorted(each for folder in folders for each in folder.iterdir()):
        if file.is_file():
            made.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return made.hexdigest()
