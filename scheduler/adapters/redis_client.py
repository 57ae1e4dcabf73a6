"""A redis-py client, or an error that names the setting which its address came from."""

from urllib.parse import urlsplit

from redis.asyncio import Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from scheduler.errors import SettingsError
from scheduler.settings import ENV_PREFIX

MOST_CONNECTIONS = 1 << 16


def client(url: str, timeout_s: float) -> Redis:
    """A client that connects on its first call, and tries each call once. Raises
    `SettingsError`."""
    try:
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if parts.scheme != "unix" and database and not (database.isascii() and database.isdigit()):
            # redis-py would take database 0.
            raise ValueError("the database is a number, such as redis://host:6379/0")
        # No retry inside the client: each caller has its own back-off, and a second try hidden
        # here would double every time limit.
        made: Redis = Redis.from_url(
            url,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            # By default 100, and then an error: a process may have a thousand shards. No more are
            # made than there are calls at once.
            max_connections=MOST_CONNECTIONS,
            decode_responses=False,
            protocol=2,
        )
        # Options that it does not know show only here. Nothing is connected.
        connection = made.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        if isinstance(connection, SSLConnection):
            _read_files(connection)
    except OSError as error:
        raise SettingsError(
            f"{ENV_PREFIX}REDIS_URL: a file that it names (ssl_ca_certs, ssl_certfile, ssl_keyfile)"
            f" cannot be used: {error.strerror or type(error).__name__}"
        ) from None
    except (ValueError, TypeError, AttributeError, RedisError) as error:
        # Not the driver's words: they may quote the address, and that a password.
        known = isinstance(error, ValueError | RedisError)
        detail = f": {error}" if known else ": it has an unknown option"
        raise SettingsError(f"{ENV_PREFIX}REDIS_URL{detail}") from None
    return made


def _read_files(connection: SSLConnection) -> None:
    # When it connects, nothing would tell a file that is not there from a server that is away.
    tls = connection.ssl_context
    if tls.password is None:
        tls.password = ""  # else OpenSSL asks whoever sits at the terminal
    tls.get()
