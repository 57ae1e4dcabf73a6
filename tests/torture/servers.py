"""The servers of a tortured site: brokers, a Redis and its stand-in, PostgreSQL, and the wires.

Every process of the engine has a slot. A slot has wires of its own to each server, so that one
process can be cut off and the others not. Feeder and judge speak to the servers directly.
"""

import asyncio
import base64
import os
import shutil
import subprocess
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from string import Template

from redis.asyncio import Redis

from pod_automation.stack.errors import StackError
from pod_automation.stack.folder import StackFolder
from pod_automation.stack.kafka import KafkaPart
from pod_automation.stack.ports import HOST, choose_ports
from pod_automation.stack.postgres import DATABASE, PostgresPart
from pod_automation.stack.redis import RedisPart
from pod_automation.stack.running import RunningPart
from scheduler.tasks import ended
from tests.torture.link import Link

SLOTS = (
    *("worker-1", "worker-2", "worker-3"),
    *("dispatcher-1", "dispatcher-2", "dispatcher-3"),
    *("executor-1", "executor-2"),
)
READY_S = 90.0
REDIS_DISK = "64m"
TAKEN = ("another program has taken its port", "ddress already in use")
"""What a part says of itself, or its log of it."""


class _Broker(KafkaPart):
    """One of several brokers; `ports` are those of the whole site, `wire` tells that of a slot."""

    def __init__(
        self,
        node: int,
        brokers: int,
        home: Path,
        ports: Mapping[str, int],
        wire: Callable[[str], int],
    ) -> None:
        own = {"kafka": ports[f"kafka-{node}"], "kafka_controller": ports[f"controller-{node}"]}
        super().__init__(home, own, lambda _: None)
        self._node = node
        self._brokers = brokers
        self._site = ports
        self._wire = wire

    def properties(self, log_dirs: Path) -> str:
        node, ports = self._node, self._site
        names = {slot: slot.upper().replace("-", "") for slot in SLOTS}
        listeners = {"DIRECT": self.port}
        advertised = dict(listeners)
        for slot, name in names.items():
            listeners[name] = ports[f"kafka-{node}-{slot}"]
            advertised[name] = self._wire(slot)
        listeners["CONTROLLER"] = ports[f"controller-{node}"]
        text = (Path(__file__).parent / "broker.properties").read_text("utf-8")
        return Template(text).substitute(
            node=node,
            voters=",".join(
                f"{each}@{HOST}:{ports[f'controller-{each}']}"
                for each in range(1, self._brokers + 1)
            ),
            listeners=_addresses(listeners),
            advertised=_addresses(advertised),
            protocols=",".join(f"{name}:PLAINTEXT" for name in listeners),
            data=log_dirs,
            replicas=min(3, self._brokers),
            insync=min(2, self._brokers),
        )

    def cluster_id(self) -> str:
        # The same for all brokers of a site, which is known by its first port.
        name = uuid.uuid5(uuid.NAMESPACE_URL, str(self._site["kafka-1"]))
        return base64.urlsafe_b64encode(name.bytes).decode().rstrip("=")


@asynccontextmanager
async def running(home: Path, brokers: int) -> AsyncIterator["Servers"]:
    """Started servers; on other ports where another program has taken one of the first meanwhile,
    since between the choice of the first and the start of the last there are seconds."""
    servers = Servers(home / "first", brokers)
    try:
        try:
            await servers.start()
        except StackError as error:
            if not any(told in str(error) for told in TAKEN):
                raise
            await servers.stop()
            servers = Servers(home / "again", brokers)
            await servers.start()
        yield servers
    finally:
        await servers.stop()


class Servers:
    """Started as one, then killed, filled, emptied and cut off one by one."""

    def __init__(self, home: Path, brokers: int) -> None:
        self.home = home
        names = ["postgres", "redis-a", "redis-b"]
        for node in range(1, brokers + 1):
            names += [f"kafka-{node}", f"controller-{node}"]
            names += [f"kafka-{node}-{slot}" for slot in SLOTS]
        self._ports = choose_ports(names, {})
        self._folders: list[StackFolder] = []
        self.brokers = [self._broker(node, brokers) for node in range(1, brokers + 1)]
        self._redis = [
            self._running(
                name, RedisPart(home / name, {"redis": self._ports[name]}, _silent, "valkey")
            )
            for name in ("redis-a", "redis-b")
        ]
        self._current = 0
        self.postgres = self._running(
            "postgres", PostgresPart(home / "pg", {"postgres": self._ports["postgres"]}, _silent)
        )
        self.replication = Link(lambda: self.redis.port)
        self.links = {slot: self._links_of(slot, brokers) for slot in SLOTS}
        self._mounted: list[Path] = []
        self.disk_is_limited = False

    @property
    def bootstrap(self) -> str:
        """Kafka, without a wire."""
        return ",".join(f"{HOST}:{broker.port}" for broker in self.brokers)

    @property
    def redis(self) -> RunningPart:
        """The Redis that the wires lead to."""
        return self._redis[self._current]

    @property
    def stand_in(self) -> RunningPart:
        """The other one, mostly stopped."""
        return self._redis[1 - self._current]

    @property
    def redis_url(self) -> str:
        """Redis, without a wire."""
        return f"redis://{HOST}:{self.redis.port}/0"

    @property
    def dsn(self) -> str:
        """PostgreSQL, without a wire."""
        return f"postgresql://postgres@{HOST}:{self._ports['postgres']}/{DATABASE}"

    def environment(self, slot: str, database: str) -> dict[str, str]:
        """What a process in `slot` is told: nothing but its own wires."""
        links = self.links[slot]
        kafka = ",".join(f"{HOST}:{link.port}" for link in links["kafka"])
        return {
            "POD_AUTOMATION_KAFKA_BOOTSTRAP": kafka,
            "POD_AUTOMATION_REDIS_URL": f"redis://{HOST}:{links['redis'][0].port}/0",
            "POD_AUTOMATION_POSTGRES_DSN": (
                f"postgresql://postgres@{HOST}:{links['postgres'][0].port}/{database}"
            ),
        }

    async def start(self) -> None:
        """All servers but the stand-in, and the wires."""
        self._limit_disks()
        # First the wires, whose ports the brokers advertise.
        for link in self._all_links():
            await link.start()
        # Brokers need one another to start.
        parts = [*self.brokers, self.redis, self.postgres]
        starts = [asyncio.create_task(part.start()) for part in parts]
        try:
            await asyncio.gather(*starts)
        except BaseException:
            await ended(*starts)
            raise

    async def stop(self) -> None:
        """All of it, whatever state it is in."""
        for link in self._all_links():
            await link.stop()
        await asyncio.gather(
            *(part.stop() for part in (*self.brokers, *self._redis, self.postgres)),
            return_exceptions=True,
        )
        for folder in self._folders:
            folder.close()
        self._unmount()

    def heal(self) -> None:
        """All wires whole again."""
        for link in self._all_links():
            link.heal()

    def switch_over(self) -> None:
        """From now on the wires lead to the stand-in."""
        self._current = 1 - self._current

    def forget_redis(self, part: RunningPart) -> None:
        """Remove all that a stopped Redis has on disk."""
        for path in part.data.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "server.conf":
                path.unlink()

    def redis_client(self, part: RunningPart | None = None) -> Redis:
        """A client without a wire."""
        return Redis(host=HOST, port=(part or self.redis).port)

    def _broker(self, node: int, brokers: int) -> RunningPart:
        def wire(slot: str) -> int:
            return self.links[slot]["kafka"][node - 1].port

        home = self.home / f"broker-{node}"
        return self._running(home.name, _Broker(node, brokers, home, self._ports, wire))

    def _running(self, name: str, part: KafkaPart | RedisPart | PostgresPart) -> RunningPart:
        folder = StackFolder(part.home)
        folder.open()
        self._folders.append(folder)
        return RunningPart(part, folder, READY_S)

    def _links_of(self, slot: str, brokers: int) -> dict[str, list[Link]]:
        ports = self._ports

        def kafka(node: int) -> Link:
            inner = ports[f"kafka-{node}-{slot}"]
            return Link(lambda: inner)

        return {
            "kafka": [kafka(node) for node in range(1, brokers + 1)],
            "redis": [Link(lambda: self.redis.port)],
            "postgres": [Link(lambda: ports["postgres"])],
        }

    def _all_links(self) -> list[Link]:
        found = [self.replication]
        for stores in self.links.values():
            for links in stores.values():
                found += links
        return found

    def _unmount(self) -> None:
        for path in self._mounted:
            subprocess.run(["umount", "-l", path], check=False)

    def _limit_disks(self) -> None:
        """Give each Redis a disk of its own that can be filled; only root can."""
        if os.geteuid() != 0 or shutil.which("mount") is None:
            return
        for part in self._redis:
            part.data.mkdir(parents=True, exist_ok=True)
            mounted = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={REDIS_DISK}", "torture", part.data],
                check=False,
                capture_output=True,
            )
            if mounted.returncode:
                return  # a container without the right to
            self._mounted.append(part.data)
        self.disk_is_limited = True


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


def _silent(_: str) -> None:
    pass
