"""The timer wheel in Redis or Valkey (6.2 or newer): sorted sets a slot, one Lua script a call."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from scheduler.adapters.redis_keys import WATERMARK_FIELD, ShardKeys
from scheduler.errors import EngineError, FencedError, StoreUnavailableError, WheelLostError
from scheduler.lua import script
from scheduler.ports import Claim, WheelSize, WheelState
from scheduler.timer import Timer, pack, unpack

SLOT_MS = 10_000
"""Width of a slot. Wider ones slow the adds (listpack inserts are linear), narrower ones cost keys:
a million timers over six hours in eight shards are 58 to a slot."""

MAX_LOAD = 5_000
"""Timers of one `load` call, so that a rebuild blocks Redis for milliseconds only."""

WIPE_SLOTS = 500
"""Slots removed by one `wipe` call."""

TIMEOUT_S = 5.0
"""A Redis that does not answer within this time counts as away."""

# Answers by which Redis says that it cannot serve at present; all else is a bug of ours.
_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    OutOfMemoryError,
    ReadOnlyError,
    OSError,
)
_AWAY_CODES = ("LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "MISCONF")

_NAMES = ("add", "take", "claim", "wipe", "load", "open", "size", "forget")


class RedisWheel:
    """The `Wheel` port over one Redis address. Safe to share between tasks of one event loop."""

    def __init__(self, url: str, *, prefix: str = "") -> None:
        """Connects on first use. `prefix` stands before every key."""
        self._prefix = prefix
        # No retry inside the client: each caller has its own back-off, and a second try hidden
        # here would double every time limit.
        self._redis: Redis = Redis.from_url(
            url,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 0),
            decode_responses=False,
            protocol=2,
        )
        self._scripts = {name: self._redis.register_script(script(name)) for name in _NAMES}
        self._keys: dict[int, ShardKeys] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """One real request. Raises `StoreUnavailableError`."""
        try:
            await self._redis.ping()
        except RedisError as error:
            raise _translated(error) from error

    async def watermark(self, shard: int, topic: str) -> int:
        """See `Wheel.watermark`."""
        try:
            gen, at = await self._redis.hmget(
                self._of(shard).meta, ["gen", WATERMARK_FIELD + topic]
            )
        except (RedisError, OSError) as error:
            raise _translated(error) from error
        if gen is None:
            raise WheelLostError(shard)
        return -1 if at is None else int(at)

    async def add(
        self, shard: int, topic: str, expected: int, upto: int, timers: Sequence[Timer]
    ) -> int:
        """See `Wheel.add`. All timers go in one script call: half an add must not be seen."""
        if upto < expected:
            raise ValueError(f"a watermark never goes back: {expected} to {upto}")
        keys = self._of(shard)
        earliest = min((timer.due_ms for timer in timers), default="")
        reply = await self._run(
            "add",
            [keys.meta, keys.slots],
            [
                keys.slot_prefix,
                keys.wake,
                WATERMARK_FIELD + topic,
                expected,
                upto,
                earliest,
                *_groups(timers),
            ],
        )
        if reply[0] == b"lost":
            raise WheelLostError(shard)
        return int(reply[1])

    async def take(self, shard: int, epoch: str) -> WheelState:
        """See `Wheel.take`."""
        gen, seq, nonce = await self._run("take", [self._of(shard).meta], [epoch])
        if gen is None or seq is None or nonce is None:
            return WheelState(gen=None, seq=-1, nonce="")
        return WheelState(gen=gen.decode(), seq=int(seq), nonce=nonce.decode())

    async def claim(
        self, shard: int, epoch: str, gen: str, done: tuple[int, str], nonce: str, limit: int
    ) -> Claim:
        """See `Wheel.claim`."""
        keys = self._of(shard)
        _, seq, name, now, due, batch = _granted(
            shard,
            await self._run(
                "claim",
                [keys.meta, keys.slots, keys.in_flight],
                [keys.slot_prefix, SLOT_MS, epoch, gen, *done, nonce, limit],
            ),
        )
        timers: list[Timer] = []
        for i in range(0, len(batch), 2):
            start, flat = int(batch[i]) * SLOT_MS, batch[i + 1]
            timers += [unpack(flat[j], start + int(flat[j + 1])) for j in range(0, len(flat), 2)]
        return Claim(
            seq=int(seq),
            nonce=name.decode(),
            timers=timers,
            next_due_ms=None if due == b"" else int(due),
            now_ms=int(now),
        )

    async def wipe(self, shard: int, epoch: str) -> None:
        """See `Wheel.wipe`. Bounded calls, until nothing is left."""
        keys = self._of(shard)
        left = 1
        while left:
            reply = await self._run(
                "wipe",
                [keys.meta, keys.slots, keys.in_flight],
                [keys.slot_prefix, epoch, WIPE_SLOTS],
            )
            left = int(_granted(shard, reply)[1])

    async def load(self, shard: int, epoch: str, timers: Sequence[Timer]) -> None:
        """See `Wheel.load`. Bounded calls."""
        keys = self._of(shard)
        for i in range(0, len(timers), MAX_LOAD):
            reply = await self._run(
                "load",
                [keys.meta, keys.slots],
                [keys.slot_prefix, epoch, *_groups(timers[i : i + MAX_LOAD])],
            )
            _granted(shard, reply)

    async def open(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        watermarks: Mapping[str, int],
    ) -> None:
        """See `Wheel.open`."""
        fields: list[Any] = []
        for topic, at in watermarks.items():
            fields += (WATERMARK_FIELD + topic, at)
        reply = await self._run("open", [self._of(shard).meta], [epoch, gen, *done, *fields])
        _granted(shard, reply)

    async def size(self, shard: int) -> WheelSize:
        """See `Wheel.size`."""
        keys = self._of(shard)
        due, in_flight, flat = await self._run(
            "size", [keys.meta, keys.slots, keys.in_flight], [keys.slot_prefix, SLOT_MS]
        )
        meta = {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
        return WheelSize(
            gen=meta.get("gen"),
            pending=int(meta.get("pending", 0)),
            in_flight=int(meta.get("claimed", 0)) if in_flight else 0,
            next_due_ms=None if due == b"" else int(due),
            watermarks={
                name.removeprefix(WATERMARK_FIELD): int(at)
                for name, at in meta.items()
                if name.startswith(WATERMARK_FIELD)
            },
        )

    async def forget(self, shard: int) -> None:
        """See `Wheel.forget`."""
        keys = self._of(shard)
        await self._run("forget", [keys.meta], [keys.wake])

    @asynccontextmanager
    async def wakes(self, shards: Sequence[int]) -> AsyncIterator[AsyncIterator[int]]:
        """See `Wheel.wakes`. Raises `StoreUnavailableError` when the connection breaks."""
        channels = {self._of(shard).wake.encode(): shard for shard in shards}
        pubsub = self._redis.pubsub(ignore_subscribe_messages=True)

        async def heard() -> AsyncIterator[int]:
            try:
                while True:
                    # Without a time limit of its own the socket's would break an idle channel.
                    message = await pubsub.get_message(timeout=None)
                    if message is not None and message["channel"] in channels:
                        yield channels[message["channel"]]
            except (RedisError, OSError) as error:
                raise _translated(error) from error

        try:
            try:
                await pubsub.subscribe(*channels)
            except (RedisError, OSError) as error:
                raise _translated(error) from error
            yield heard()
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _of(self, shard: int) -> ShardKeys:
        keys = self._keys.get(shard)
        if keys is None:
            keys = self._keys[shard] = ShardKeys.of(self._prefix, shard)
        return keys

    async def _run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        try:
            return await self._scripts[name](keys=keys, args=args)
        except (RedisError, OSError) as error:
            raise _translated(error) from error


def _granted(shard: int, reply: Any) -> Any:
    """The reply of an owner's script, unless it was refused."""
    if reply[0] == b"fenced":
        raise FencedError(shard, f"epoch {reply[1].decode()}")
    if reply[0] == b"lost":
        raise WheelLostError(shard, reply[1].decode())
    return reply


def _groups(timers: Sequence[Timer]) -> list[Any]:
    """`timers` as put.lua reads them: grouped by slot."""
    slots: dict[int, list[Any]] = {}
    for timer in timers:
        slot, relative = divmod(timer.due_ms, SLOT_MS)
        group = slots.get(slot)
        if group is None:
            group = slots[slot] = []
        group += (relative, pack(timer))
    arguments: list[Any] = []
    # In order of time, so that appends to the index stay at its end.
    for slot, group in sorted(slots.items(), key=itemgetter(0)):
        arguments += (slot, len(group))
        arguments += group
    return arguments


def _translated(error: Exception) -> EngineError | Exception:
    """What the engine calls a Redis error: away (try again), or a bug (itself)."""
    if isinstance(error, AuthenticationError):
        return EngineError(f"Redis refuses the credentials in POD_AUTOMATION_REDIS_URL: {error}")
    if isinstance(error, _AWAY):
        return StoreUnavailableError("Redis", str(error) or type(error).__name__)
    if isinstance(error, ResponseError) and str(error).startswith(_AWAY_CODES):
        return StoreUnavailableError("Redis", str(error))
    return error
