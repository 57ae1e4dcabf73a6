"""The whole engine against brokers that ask for a login or a certificate, over TLS."""

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.stack.folder import StackFolder
from pod_automation.stack.kafka import KafkaPart
from pod_automation.stack.ports import HOST, choose_ports
from pod_automation.stack.running import RunningPart
from tests.integration.scenario import EngineProcess, executed
from tests.integration.test_cli import pod_automation

pytestmark = pytest.mark.timeout(240)

READY_S = 60.0
USER, PASSWORD = "pods", "not-to-be-shown"
PORTS = ("kafka", "kafka_controller", "login", "certificate")

SOON = {
    "POD_AUTOMATION_LIKE_MIN_DELAY_MS": "100",
    "POD_AUTOMATION_LIKE_MAX_DELAY_MS": "200",
    "POD_AUTOMATION_COMMENT_MIN_DELAY_MS": "100",
    "POD_AUTOMATION_COMMENT_MAX_DELAY_MS": "200",
    "POD_AUTOMATION_SESSION_TIMEOUT_MS": "30000",
}


class Guarded(KafkaPart):
    """A broker with two more listeners: one asks for a login, one for a certificate."""

    port_names = PORTS

    def __init__(self, home: Path, ports: Mapping[str, int], ca: trustme.CA) -> None:
        super().__init__(home, ports, lambda _: None)
        self._store = home / "broker.pem"
        self._trusted = home / "ca.pem"
        ca.cert_pem.write_to_path(self._trusted)
        issued = ca.issue_cert(HOST)
        # Kafka reads no other form of a key.
        key = load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self._store.write_bytes(key + b"".join(each.bytes() for each in issued.cert_chain_pems))

    def properties(self, log_dirs: Path) -> str:
        """See `KafkaPart.properties`. What comes later counts."""
        at = {name: f"{HOST}:{port}" for name, port in self.ports.items()}
        outside = (
            f"PLAINTEXT://{at['kafka']},LOGIN://{at['login']},CERTIFICATE://{at['certificate']}"
        )
        more = {
            "listeners": f"{outside},CONTROLLER://{at['kafka_controller']}",
            "advertised.listeners": outside,
            "listener.security.protocol.map": (
                "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_SSL,CERTIFICATE:SSL"
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self._store,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self._trusted,
            "listener.name.certificate.ssl.client.auth": "required",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.login.plain.sasl.jaas.config": (
                "org.apache.kafka.common.security.plain.PlainLoginModule required"
                f' user_{USER}="{PASSWORD}";'
            ),
            "listener.name.login.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
        }
        lines = [f"{name}={value}" for name, value in more.items()]
        return "\n".join([super().properties(log_dirs), *lines, ""])

    def format_options(self) -> tuple[str, ...]:
        """See `KafkaPart.format_options`."""
        return ("--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]")


@dataclass
class Secured:
    """A guarded broker, and the files that let one in."""

    ports: Mapping[str, int]
    folder: Path

    def login(self, mechanism: str, password: str = PASSWORD) -> dict[str, str]:
        """The settings of one who has a login; the password is in a file."""
        secret = self.folder / f"password-{password}"
        secret.write_text(f"{password}\n", "utf-8")
        return {
            "POD_AUTOMATION_KAFKA_BOOTSTRAP": f"{HOST}:{self.ports['login']}",
            "POD_AUTOMATION_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "POD_AUTOMATION_KAFKA_SASL_MECHANISM": mechanism,
            "POD_AUTOMATION_KAFKA_SASL_USERNAME": USER,
            "POD_AUTOMATION_KAFKA_SASL_PASSWORD_FILE": str(secret),
            "POD_AUTOMATION_KAFKA_CA_FILE": str(self.folder / "ca.pem"),
        }

    def certificate(self) -> dict[str, str]:
        """The settings of one who has a certificate."""
        return {
            "POD_AUTOMATION_KAFKA_BOOTSTRAP": f"{HOST}:{self.ports['certificate']}",
            "POD_AUTOMATION_KAFKA_SECURITY_PROTOCOL": "SSL",
            "POD_AUTOMATION_KAFKA_CA_FILE": str(self.folder / "ca.pem"),
            "POD_AUTOMATION_KAFKA_CERTIFICATE_FILE": str(self.folder / "client.pem"),
        }


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="pod-automation-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
async def secured(folder: Path) -> AsyncIterator[Secured]:
    ca = trustme.CA()
    home = folder / "broker"
    home.mkdir()
    stack_folder = StackFolder(home)
    stack_folder.open()
    ports = choose_ports(list(PORTS), {})
    broker = RunningPart(Guarded(home, ports, ca), stack_folder, READY_S)
    ca.cert_pem.write_to_path(folder / "ca.pem")
    ca.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(folder / "client.pem")
    trustme.CA().cert_pem.write_to_path(folder / "other-ca.pem")
    await broker.start()
    try:
        yield Secured(ports, folder)
    finally:
        await broker.stop()
        stack_folder.close()


@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-512", "certificate"])
async def test_the_engine_gets_in(environment: dict[str, str], secured: Secured, way: str) -> None:
    access = secured.certificate() if way == "certificate" else secured.login(way)
    environment = environment | SOON | access
    outcome = await pod_automation(environment, "init")
    assert outcome.code == 0, outcome.err
    processes = [EngineProcess(each, environment) for each in ("worker", "dispatcher", "executor")]
    try:
        for process in processes:
            await process.start()
        arguments = ("publish", "--pod", "p", "--post", "x", "--members", "ann,bob")
        outcome = await pod_automation(environment, *arguments)
        assert outcome.code == 0, outcome.err
        await executed(environment["POD_AUTOMATION_POSTGRES_DSN"], 4)
        outcome = await pod_automation(environment, "status", "--json")
        assert outcome.code == 0, outcome.err
        outcome = await pod_automation(environment, "--debug", "status")
        assert outcome.code == 0, outcome.err
        assert "MetadataRequest" in outcome.err  # all of them are there
        assert PASSWORD not in outcome.err
        assert not re.search(r"[rspv]=[\w+/]{16}", outcome.err)  # SCRAM's nonces, salt and proofs
        outcome = await pod_automation(environment, "reconcile", "--json")
        assert outcome.code == 0, outcome.err
        outcome = await pod_automation(environment, "dead-letters", "list")
        assert outcome.code == 0, outcome.err
        assert [await process.stop() for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            await process.kill()


@pytest.mark.parametrize(
    ("wrong", "code", "named"),
    [
        ("password", ExitCode.NOT_READY, "refuses the login"),
        ("authority", ExitCode.NOT_READY, "is not trusted"),
        ("no certificate", ExitCode.STORE_AWAY, "ask for a certificate"),
        ("no encryption", ExitCode.STORE_AWAY, "ask for TLS"),
    ],
)
async def test_who_is_not_let_in_is_told_in_one_line(
    environment: dict[str, str], secured: Secured, wrong: str, code: ExitCode, named: str
) -> None:
    access = {
        "password": lambda: secured.login("PLAIN", "wrong"),
        "authority": lambda: (
            secured.login("PLAIN")
            | {"POD_AUTOMATION_KAFKA_CA_FILE": str(secured.folder / "other-ca.pem")}
        ),
        "no certificate": lambda: {
            name: value
            for name, value in secured.certificate().items()
            if not name.endswith("CERTIFICATE_FILE")
        },
        "no encryption": lambda: {
            "POD_AUTOMATION_KAFKA_BOOTSTRAP": f"{HOST}:{secured.ports['login']}"
        },
    }[wrong]()
    outcome = await pod_automation(environment | access, "init")
    assert outcome.code == code, outcome.err
    assert outcome.shows_no_traceback(), outcome.err
    assert named in outcome.err
    assert "Kafka" in outcome.err
    assert PASSWORD not in outcome.out + outcome.err
