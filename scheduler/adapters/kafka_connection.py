"""A connection that has gone is told as such, whichever event loop it runs on.

asyncio says nothing of a write to a connection that is closed, and aiokafka expects an `OSError` at
most. uvloop raises a plain `RuntimeError` there. A broker that dies under constant writes has each
connection raise one; in aiokafka 0.14.0 it ends whatever task was writing: the one that fetches
metadata, without which a client waits for ever after the next change of leaders, a commit, a start.
So the connections that all its clients make, Faust's too, have it told as what it is.

A cluster of one broker that stands still for some seconds names no broker at all afterwards, for a
moment; aiokafka takes a look for a coordinator in that moment for a mistake of its caller.

At debug level aiokafka logs each request and response. Those of a login hold the password, or what
passwords can be tried against.

The first look at a cluster asks the hosts of the address one after another, in any order, each for
as long as any request may take: 40 seconds by default. One that says nothing would have those give
up who asked, now and then, though the others are there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import aiokafka.admin.client
import aiokafka.conn
import aiokafka.consumer.consumer
import aiokafka.producer.producer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError
from aiokafka.protocol.admin import (
    SaslAuthenticateRequest_v0,
    SaslAuthenticateRequest_v1,
    SaslAuthenticateResponse_v0,
    SaslAuthenticateResponse_v1,
)

from scheduler.transports import is_closed

FIRST_LOOK_MS = 4_000
"""How long one host may take to say what the cluster is. Some of them together must fit into the
ten to fifteen seconds that commands and clients wait for an answer."""


class _Connection(AIOKafkaConnection):  # type: ignore[misc] # aiokafka is untyped here
    def send(self, request: Any, expect_response: bool = True) -> Any:
        with self._told():
            return super().send(request, expect_response)

    def _send_sasl_token(self, payload: bytes, expect_response: bool = True) -> Any:
        with self._told():
            return super()._send_sasl_token(payload, expect_response)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if not is_closed(error):
                raise
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(
                f"Connection at {self._host}:{self._port} broken: {error}"
            ) from error


class _Client(AIOKafkaClient):  # type: ignore[misc]
    async def bootstrap(self) -> None:
        limited: Any = self
        limit_ms = limited._request_timeout_ms
        if len(self.hosts) > 1:
            # Where there is one alone, nobody is waiting to be asked.
            limited._request_timeout_ms = min(limit_ms, FIRST_LOOK_MS)
        try:
            await super().bootstrap()
        finally:
            limited._request_timeout_ms = limit_ms

    async def coordinator_lookup(self, coordinator_type: Any, coordinator_key: Any) -> Any:
        if not self.cluster.brokers():
            # Whoever asks asks again, behind new metadata; of an assertion their task would end.
            raise NodeNotReadyError("the cluster names no broker that is there")
        return await super().coordinator_lookup(coordinator_type, coordinator_key)


def _name_alone(login: object) -> str:
    return f"{type(login).__name__}(...)"


for _each in (
    SaslAuthenticateRequest_v0,
    SaslAuthenticateRequest_v1,
    SaslAuthenticateResponse_v0,
    SaslAuthenticateResponse_v1,
):
    _each.__repr__ = _name_alone
aiokafka.conn.AIOKafkaConnection = _Connection
aiokafka.admin.client.AIOKafkaClient = _Client
aiokafka.consumer.consumer.AIOKafkaClient = _Client
aiokafka.producer.producer.AIOKafkaClient = _Client
