"""A connection that uvloop has closed is a store that is away, and no bug."""

import pytest

from scheduler.adapters import kafka_errors, redis_errors
from scheduler.errors import StoreUnavailableError
from scheduler.transports import is_closed

CLOSED = RuntimeError(
    "unable to perform operation on <TCPTransport closed=True reading=False 0x5625>;"
    " the handler is closed"
)


def test_redis() -> None:
    assert isinstance(redis_errors.translated(CLOSED), StoreUnavailableError)
    bug = RuntimeError("a bug")
    assert redis_errors.translated(bug) is bug


def test_kafka() -> None:
    with pytest.raises(StoreUnavailableError), kafka_errors.translated():
        raise CLOSED
    with pytest.raises(RuntimeError, match="a bug"), kafka_errors.translated():
        raise RuntimeError("a bug")


def test_other_errors_are_none() -> None:
    assert is_closed(CLOSED)
    assert not is_closed(StoreUnavailableError("Redis", "the handler is closed"))
