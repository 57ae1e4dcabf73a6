"""Why brokers let nobody in: aiokafka logs that, and says only that it found no broker."""

import ssl

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from scheduler.errors import PermanentError, StoreUnavailableError
from scheduler.kafka_servers import ENCRYPTED, Kafka, client_options

ANSWER_MS = 5000

_LOGIN_REFUSED = (
    AuthenticationFailedError,
    IllegalSaslStateError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)


async def check_access(kafka: Kafka) -> None:
    """Raises `PermanentError` where a broker refuses login or certificate, or shows one that is not
    trusted, and `StoreUnavailableError` where one hangs up; for whoever could not connect."""
    options = client_options(kafka)
    for host, port, _ in collect_hosts(options.pop("bootstrap_servers")):
        try:
            connection = await create_conn(host, port, request_timeout_ms=ANSWER_MS, **options)
        except _LOGIN_REFUSED as error:
            raise PermanentError(
                f"Kafka refuses the login ({str(error) or type(error).__name__}): see"
                " POD_AUTOMATION_KAFKA_SASL_USERNAME, _PASSWORD and _MECHANISM"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise PermanentError(
                f"the certificate of Kafka at {host}:{port} is not trusted"
                f" ({error.verify_message}): see POD_AUTOMATION_KAFKA_CA_FILE"
            ) from error
        except ssl.SSLError as error:
            raise PermanentError(
                f"no TLS with Kafka at {host}:{port} ({error.reason}): see"
                " POD_AUTOMATION_KAFKA_SECURITY_PROTOCOL and POD_AUTOMATION_KAFKA_CERTIFICATE_FILE"
            ) from error
        except KafkaError as error:
            asks = "a certificate" if options.get("security_protocol") in ENCRYPTED else "TLS"
            raise StoreUnavailableError(
                "Kafka",
                f"{host}:{port} hangs up; does it ask for {asks}? See"
                " POD_AUTOMATION_KAFKA_SECURITY_PROTOCOL and POD_AUTOMATION_KAFKA_CERTIFICATE_FILE",
            ) from error
        except (OSError, TimeoutError):
            continue
        connection.close()
