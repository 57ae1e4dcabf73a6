"""PostgreSQL's errors as the engine's: away, refused by its data, wrongly addressed, or a bug."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature

import asyncpg
from asyncpg import connect_utils
from asyncpg.exceptions import ClientConfigurationError, TargetServerAttributeNotMatched

from scheduler.errors import DataRefusedError, EngineError, SettingsError, StoreUnavailableError
from scheduler.settings import ENV_PREFIX

# SQLSTATE classes and codes (PostgreSQL, Appendix A).
_REFUSED = (
    "22",  # data exception
    "23",  # integrity constraint violation
    "54",  # program limit exceeded: a value too long for an index
)
_AWAY = (
    "08",  # connection exception
    "25001",  # a transaction that is open already: a statement before was cut off (postgres_pool)
    "25006",  # read-only transaction: a primary that has become a standby
    "25P03",  # a transaction that was idle, or took, longer than the server allows
    "25P04",
    "40",  # transaction rollback: serialization failure, deadlock
    "53",  # insufficient resources: connections, memory, disk
    "55P03",  # lock not available
    "57",  # operator intervention: shutdown, crash, starting up, cancelled
    "58",  # system error: I/O
)
_MISADDRESSED = (
    "28",  # invalid authorization
    "3D",  # no such database
    "42704",  # a parameter in the address that the server does not know
)
_NO_RIGHT = "42501"  # insufficient privilege
# What asyncpg says of a connection that died between two calls; the second one of a connection that
# the pool has thrown away meanwhile.
_LOST = ("connection is closed", "connection has been released back to the pool")


GONE = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
"""What a connection that has died raises, whatever is asked of it."""


async def check_address(dsn: str) -> None:
    """Return if the options in `dsn` make sense, and the files that they name can be read.

    asyncpg reads both again for each connection, and then nothing tells a file that is not there
    from the socket of a server that is not up yet. Raises `SettingsError`.
    """
    read = connect_utils._parse_connect_dsn_and_args  # type: ignore[attr-defined]
    others = dict.fromkeys(signature(read).parameters)
    try:
        await asyncio.to_thread(read, **{**others, "dsn": dsn})
    except ClientConfigurationError as error:
        raise SettingsError(f"{ENV_PREFIX}POSTGRES_DSN: {error.args[0]}") from None
    except OSError as error:
        raise SettingsError(
            f"{ENV_PREFIX}POSTGRES_DSN: a file that it names (sslrootcert, sslcert, sslkey or"
            f" sslcrl) cannot be used: {error.strerror or type(error).__name__}"
        ) from None
    except ValueError:
        # Not Python's words, which quote the address.
        raise SettingsError(f"{ENV_PREFIX}POSTGRES_DSN: a port in its options is none") from None


@contextmanager
def translated() -> Iterator[None]:
    """Raises asyncpg's errors as `DataRefusedError`, `StoreUnavailableError` or `SettingsError`,
    and as `EngineError` where the role lacks a right.

    Whatever else PostgreSQL says is a bug of ours and passes through. To be put around calls of
    the driver only, since every `OSError` counts as PostgreSQL's.
    """
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        # TimeoutError is an OSError.
        meant = _meant(error)
        if meant is None:
            raise
        raise meant from error
    except (TargetServerAttributeNotMatched, asyncpg.InternalClientError) as error:
        # The second: asyncpg's own state, when a connection dies in the middle of an operation.
        raise StoreUnavailableError("PostgreSQL", error) from error


def _meant(error: Exception) -> EngineError | None:
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate)
        text = f"{error.args[0]} (SQLSTATE {state})"
        if state.startswith(_REFUSED):
            return DataRefusedError(text)
        if state.startswith(_AWAY):
            return StoreUnavailableError("PostgreSQL", text)
        if state.startswith(_MISADDRESSED):
            return SettingsError(f"{ENV_PREFIX}POSTGRES_DSN: {text}")
        if state == _NO_RIGHT:
            return EngineError(
                f"the role in {ENV_PREFIX}POSTGRES_DSN has no right to what the engine needs"
                f' (docs/runbook.md, "Least privilege"): {text}'
            )
        return None
    if isinstance(error, ClientConfigurationError):
        return SettingsError(f"{ENV_PREFIX}POSTGRES_DSN: {error.args[0]}")
    if isinstance(error, asyncpg.InterfaceError):
        # The driver's own DataError, which shares its name with the server's, is both: a value
        # that has no encoding.
        if isinstance(error, ValueError):
            return DataRefusedError(str(error.args[0]))
        if any(sign in str(error) for sign in _LOST):
            return StoreUnavailableError("PostgreSQL", error)
        return None
    return StoreUnavailableError("PostgreSQL", str(error) or type(error).__name__)
