"""How one gets into Kafka: settings that fit together, and what becomes of them."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from scheduler.errors import SettingsError
from scheduler.kafka_servers import KafkaServers, client_options
from scheduler.settings import load_settings

LOGIN = {"kafka_sasl_username": "pods", "kafka_sasl_password": "hidden"}


def test_by_default_everybody_is_let_in() -> None:
    assert client_options(load_settings(kafka_bootstrap="a:1,b:2").kafka) == {
        "bootstrap_servers": "a:1,b:2"
    }
    assert client_options("a:1") == {"bootstrap_servers": "a:1"}


def test_a_login_over_tls() -> None:
    settings = load_settings(kafka_security_protocol="SASL_SSL", **LOGIN)
    options = client_options(settings.kafka)
    assert options.pop("ssl_context") is not None
    assert options == {
        "bootstrap_servers": settings.kafka_bootstrap,
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "pods",
        "sasl_plain_password": "hidden",
    }
    assert "hidden" not in repr(settings) + repr(settings.kafka)


def test_a_certificate(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("client")
    ca, both = tmp_path / "ca.pem", tmp_path / "client.pem"
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    authority.cert_pem.write_to_path(ca)
    issued.private_key_and_cert_chain_pem.write_to_path(both)
    issued.private_key_pem.write_to_path(key)
    for each in issued.cert_chain_pems:
        each.write_to_path(chain, append=True)
    for certificate, own_key in ((both, ""), (chain, key)):
        servers = KafkaServers(
            "a:1",
            protocol="SSL",
            ca_file=str(ca),
            certificate_file=str(certificate),
            key_file=str(own_key),
        )
        assert servers.tls is not None
        assert servers.tls is servers.tls
        assert len(servers.tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "KAFKA_SASL_USERNAME is needed"),
        (
            {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "pods"},
            "KAFKA_SASL_PASSWORD is needed",
        ),
        (LOGIN, "KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
        ({**LOGIN, "kafka_security_protocol": "SSL"}, "KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
        ({"kafka_ca_file": "ca.pem"}, "KAFKA_SECURITY_PROTOCOL=SSL"),
        (
            {"kafka_security_protocol": "SSL", "kafka_key_file": "key.pem"},
            "KAFKA_KEY_FILE needs",
        ),
        ({"kafka_security_protocol": "TLS"}, "KAFKA_SECURITY_PROTOCOL"),
    ],
)
def test_settings_that_do_not_fit_together(given: Mapping[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as refused:
        load_settings(**given)
    assert "hidden" not in str(refused.value)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    nothing, empty = tmp_path / "nothing.pem", tmp_path / "empty.pem"
    empty.write_text("")
    for path in (nothing, empty, tmp_path):
        for field, name in (("ca_file", "CA_FILE"), ("certificate_file", "CERTIFICATE_FILE")):
            servers = KafkaServers("a:1", protocol="SSL", **{field: str(path)})
            with pytest.raises(SettingsError, match=f"^POD_AUTOMATION_KAFKA_{name}: "):
                client_options(servers)


def test_a_key_that_cannot_be_used_is_the_one_that_is_named(tmp_path: Path) -> None:
    issued = trustme.CA().issue_cert("client")
    chain, encrypted, both = (tmp_path / each for each in ("chain.pem", "key.pem", "both.pem"))
    issued.cert_chain_pems[0].write_to_path(chain)
    encrypted.write_bytes(
        load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hidden")
        )
    )
    both.write_bytes(encrypted.read_bytes() + chain.read_bytes())
    for certificate, key, told in (
        (chain, encrypted, "KEY_FILE: this cannot be used: its key is encrypted"),
        (both, None, "CERTIFICATE_FILE: this cannot be used: its key is encrypted"),
        (chain, tmp_path / "nothing.pem", "KEY_FILE: this cannot be used: No such file"),
        (chain, tmp_path, "KEY_FILE: this cannot be used: Is a directory"),
        (tmp_path / "nothing.pem", encrypted, "CERTIFICATE_FILE: this cannot be used: No such"),
    ):
        servers = KafkaServers(
            "a:1", protocol="SSL", certificate_file=str(certificate), key_file=str(key or "")
        )
        with pytest.raises(SettingsError, match=f"^POD_AUTOMATION_KAFKA_{told}"):
            client_options(servers)
