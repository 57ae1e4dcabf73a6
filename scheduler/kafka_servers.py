"""Where Kafka is, and how one gets in: the same for every client of it."""

import ssl
from functools import lru_cache
from pathlib import Path
from typing import Any

from msgspec import Struct

from scheduler.errors import SettingsError

ENCRYPTED = ("SSL", "SASL_SSL")
WITH_LOGIN = ("SASL_PLAINTEXT", "SASL_SSL")


class KafkaServers(Struct, frozen=True):
    """Brokers (`host:port`, comma separated) and what they ask for.

    `protocol` is Kafka's `security.protocol`; the files are PEM, empty for none: then the system's
    authorities are trusted, and no certificate is shown.
    """

    bootstrap: str
    protocol: str = "PLAINTEXT"
    mechanism: str = ""
    username: str = ""
    password: str = ""
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""

    def __repr__(self) -> str:
        return f"KafkaServers({self.bootstrap!r}, {self.protocol!r})"

    @property
    def tls(self) -> ssl.SSLContext | None:
        """What to encrypt with; None for not at all. Raises `SettingsError`."""
        if self.protocol not in ENCRYPTED:
            return None
        return _tls(self.ca_file, self.certificate_file, self.key_file)

    def options(self) -> dict[str, Any]:
        """What each client of aiokafka is to be made with. Raises `SettingsError`."""
        found: dict[str, Any] = {"bootstrap_servers": self.bootstrap}
        if self.protocol != "PLAINTEXT":
            found |= {"security_protocol": self.protocol, "ssl_context": self.tls}
        if self.protocol in WITH_LOGIN:
            found |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.username,
                "sasl_plain_password": self.password,
            }
        return found


Kafka = KafkaServers | str
"""The servers, or the addresses of some that let everybody in."""


def client_options(kafka: Kafka) -> dict[str, Any]:
    """See `KafkaServers.options`."""
    return (KafkaServers(kafka) if isinstance(kafka, str) else kafka).options()


@lru_cache(maxsize=8)
def _tls(ca_file: str, certificate_file: str, key_file: str) -> ssl.SSLContext:
    # Read once: reading the system's authorities takes 20 ms, and there are dozens of clients.
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ValueError) as error:
        raise _unreadable("CA_FILE", error) from None
    if certificate_file:
        # By itself: OpenSSL does not say which of the two it cannot open.
        if key_file:
            try:
                Path(key_file).read_bytes()
            except (OSError, ValueError) as error:
                raise _unreadable("KEY_FILE", error) from None
        try:
            context.load_cert_chain(certificate_file, key_file or None, _no_pass_phrase)
        except _EncryptedKeyError as error:
            raise _unreadable("KEY_FILE" if key_file else "CERTIFICATE_FILE", error) from None
        except (OSError, ValueError) as error:
            raise _unreadable("CERTIFICATE_FILE", error) from None
    return context


class _EncryptedKeyError(Exception):
    """Of OpenSSL's question for a pass phrase, which it would put to whoever is at the terminal."""


def _no_pass_phrase() -> str:
    raise _EncryptedKeyError("its key is encrypted, which is not supported; decrypt it first")


def _unreadable(name: str, error: Exception) -> SettingsError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return SettingsError(f"POD_AUTOMATION_KAFKA_{name}: this cannot be used: {reason}")
