"""What the engine calls redis-py's errors."""

import re

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    InvalidResponse,
    MasterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from scheduler.errors import EngineError, SettingsError, StoreUnavailableError
from scheduler.transports import is_closed

RAISED = (RedisError, OSError, RuntimeError)
"""What a call may raise; `translated` says what it means."""

# Answers by which Redis says that it cannot serve at present; all else is a bug of ours.
_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    MasterDownError,
    ClusterDownError,
    TryAgainError,
    # It was there a moment ago: scripts were flushed, or another server has the address now.
    NoScriptError,
    # Something between us and Redis has answered.
    InvalidResponse,
    OSError,
)
# Likewise, as codes; of a command in a script Redis 6.2 quotes it: "...: 35: -OOM ...", and so does
# redis-py of a command in a pipeline: "... caused error: ('BUSY ...',)".
_AWAY_CODE = re.compile(
    r"""(?:^|: -|caused error: \(['"])"""
    "(?:LOADING|BUSY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|MISCONF|OOM|READONLY)"
    # An operator's, of a script that has written nothing yet; it has no code of its own.
    "|Script killed by user"
)
_DEMOTED = re.compile(r"(?:^|: -)(?:READONLY|MASTERDOWN)")


def is_demoted(error: Exception) -> bool:
    """Whether it is of a server that must not be written to any more, or has lost its primary."""
    return isinstance(error, ReadOnlyError | MasterDownError) or (
        isinstance(error, ResponseError) and bool(_DEMOTED.search(str(error)))
    )


def translated(error: Exception) -> EngineError | Exception:
    """What the engine calls a Redis error: away (try again), or a bug (itself)."""
    if isinstance(error, AuthenticationError):
        return EngineError(f"Redis refuses the credentials in POD_AUTOMATION_REDIS_URL: {error}")
    if isinstance(error, NoPermissionError):
        return EngineError(
            "Redis does not let the user in POD_AUTOMATION_REDIS_URL do what the engine needs"
            f' (docs/runbook.md, "Least privilege"): {error}'
        )
    if isinstance(error, ResponseError) and "DB index" in str(error):
        return SettingsError(
            f"POD_AUTOMATION_REDIS_URL names a database that is not there: {error}"
        )
    if isinstance(error, _AWAY) or is_closed(error):
        return StoreUnavailableError("Redis", str(error) or type(error).__name__)
    if isinstance(error, ResponseError) and _AWAY_CODE.search(str(error)):
        return StoreUnavailableError("Redis", str(error))
    return error
