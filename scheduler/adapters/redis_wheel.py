"""The timer wheel in Redis or Valkey (6.2 or newer): sorted sets a slot, one Lua script a call."""

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import Any

from scheduler.adapters.redis_client import client
from scheduler.adapters.redis_errors import RAISED, is_demoted, translated
from scheduler.adapters.redis_keys import WATERMARK_FIELD, ShardKeys
from scheduler.adapters.redis_pack import array, text
from scheduler.controls import Subject
from scheduler.errors import (
    FencedError,
    WheelBehindError,
    WheelLostError,
)
from scheduler.lua import script
from scheduler.policy import OverduePolicy
from scheduler.ports import NOBODY, NOTHING_BEFORE, Aside, Claim, WheelSize, WheelState
from scheduler.timer import Timer, pack, pack_derived, subject_key, unpack

SLOT_MS = 10_000
"""Width of a slot. Wider ones slow the adds (listpack inserts are linear), narrower ones cost keys:
a million timers over six hours in eight shards are 58 to a slot."""

MAX_LOAD = 5_000
"""Timers of one `load` call, so that a rebuild blocks Redis for milliseconds only."""

MAX_DUE_SLOTS = 10_000
"""Due slots that a look at a shard counts: a day's backlog. Of a longer one it counts so much."""

WIPE_SLOTS = 500
"""Slots removed by one `wipe` call."""

TIMEOUT_S = 5.0
"""A Redis that does not answer within this time counts as away."""

_NAMES = (
    "add",
    "take",
    "claim",
    "wipe",
    "load",
    "load_awaited",
    "open",
    "size",
    "forget",
    "set_aside",
    "aside",
)

# Looked up, not formatted: one goes with each timer.
_RELATIVE = tuple(text(b"%d" % relative) for relative in range(SLOT_MS))

# Slots under which a batch holds what has none (claim.lua): deadlines, and overdue timers by what
# is to become of them.
_DEADLINES, _POSTPONED, _EXPIRED = -1, -2, -3


class RedisWheel:
    """The `Wheel` port over one Redis address. Safe to share between tasks of one event loop."""

    def __init__(self, url: str, *, prefix: str = "") -> None:
        """Connects on first use. `prefix` stands before every key."""
        self._prefix = prefix
        self._redis = client(url, TIMEOUT_S)
        self._scripts = {name: self._redis.register_script(script(name)) for name in _NAMES}
        self._keys: dict[int, ShardKeys] = {}

    async def close(self) -> None:
        """Close all connections."""
        await self._redis.aclose()

    async def ping(self) -> None:
        """One real request. Raises `StoreUnavailableError`."""
        try:
            await self._redis.ping()
        except RAISED as error:
            raise translated(error) from error

    async def watermark(self, shard: int, topic: str) -> int:
        """See `Wheel.watermark`."""
        try:
            gen, at = await self._redis.hmget(
                self._of(shard).meta, ["gen", WATERMARK_FIELD + topic]
            )
        except RAISED as error:
            raise translated(error) from error
        if gen is None:
            raise await self._lost(shard)
        return -1 if at is None else int(at)

    async def now_ms(self) -> int:
        """See `Wheel.now_ms`."""
        try:
            seconds, microseconds = await self._redis.time()
        except RAISED as error:
            raise translated(error) from error
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def add(
        self,
        shard: int,
        topic: str,
        expected: int,
        upto: int,
        timers: Sequence[Timer],
        *,
        remove: Sequence[Timer] = (),
        after: Mapping[str, int] = NOTHING_BEFORE,
        planned: bool = False,
        pauses: Mapping[Subject, bool] = NOBODY,
        seen: Aside | None = None,
    ) -> int:
        """See `Wheel.add`. All of it goes in one script call: half an add must not be seen."""
        if upto < expected:
            raise ValueError(f"a watermark never goes back: {expected} to {upto}")
        keys = self._of(shard)
        earliest = min((timer.due_ms for timer in timers), default="")
        reached = _reached(after)
        changing: list[Any] = []
        for subject, paused in pauses.items():
            changing += (subject_key(subject), int(paused))
        leaving: list[Any] = []
        moving: list[Any] = []
        if remove:
            coming = {pack(timer): timer for timer in timers}
            for timer in remove:
                packed = pack(timer)
                slot = timer.due_ms // SLOT_MS
                if (moved := coming.pop(packed, None)) is None:
                    leaving += (slot, packed)
                else:
                    moving += (slot, *divmod(moved.due_ms, SLOT_MS), packed)
            timers = list(coming.values())
        reply = await self._run(
            "add",
            _all_of(keys),
            [
                keys.slot_prefix,
                keys.wake,
                WATERMARK_FIELD + topic,
                expected,
                upto,
                earliest,
                len(reached),
                len(leaving),
                len(moving),
                len(changing),
                SLOT_MS,
                *_told(seen),
                *reached,
                *leaving,
                *moving,
                *changing,
                _groups(timers, pack_derived if planned else pack),
            ],
        )
        return int((await self._added(shard, reply))[1])

    async def set_aside(
        self,
        shard: int,
        topic: str,
        expected: int,
        timers: Sequence[Timer],
        *,
        after: Mapping[str, int] = NOTHING_BEFORE,
        seen: Aside | None = None,
    ) -> Aside | None:
        """See `Wheel.set_aside`."""
        keys = self._of(shard)
        reached = _reached(after)
        asked: list[Any] = []
        for timer in timers:
            asked += (*divmod(timer.due_ms, SLOT_MS), pack(timer))
        reply = await self._run(
            "set_aside",
            [keys.meta, keys.slots, keys.held, keys.paused, keys.aside],
            [
                keys.slot_prefix,
                SLOT_MS,
                WATERMARK_FIELD + topic,
                expected,
                keys.wake,
                *_told(seen),
                len(reached),
                *reached,
                *asked,
            ],
        )
        await self._added(shard, reply)
        if reply[0] == b"moved":
            return None
        _, gen, step, held = reply
        return Aside(gen.decode(), int(step), [bool(each) for each in held])

    async def aside(self, shard: int, topic: str) -> Sequence[Timer]:
        """See `Wheel.aside`."""
        keys = self._of(shard)
        reply = await self._run("aside", [keys.meta, keys.aside], [WATERMARK_FIELD + topic])
        _, flat = await self._added(shard, reply)
        return [unpack(flat[i], int(flat[i + 1])) for i in range(0, len(flat), 2)]

    async def take(self, shard: int, epoch: str) -> WheelState:
        """See `Wheel.take`."""
        gen, seq, nonce = await self._run("take", [self._of(shard).meta], [epoch])
        if gen is None or seq is None or nonce is None:
            return WheelState(gen=None, seq=-1, nonce="")
        return WheelState(gen=gen.decode(), seq=int(seq), nonce=nonce.decode())

    async def claim(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        nonce: str,
        limit: int,
        await_ms: int,
        overdue: OverduePolicy | None = None,
    ) -> Claim:
        """See `Wheel.claim`."""
        keys = self._of(shard)
        policy: tuple[Any, Any] = ("", "")
        if overdue is not None:
            verdict = _POSTPONED if overdue.verdict == "postpone" else _EXPIRED
            policy = (overdue.after_ms, verdict)
        _, seq, name, now, due, batch, shift = _granted(
            shard,
            await self._run(
                "claim",
                _all_of(keys),
                [keys.slot_prefix, SLOT_MS, epoch, gen, *done, nonce, limit, await_ms, *policy],
            ),
        )
        timers: list[Timer] = []
        timeouts: list[Timer] = []
        held: list[Timer] = []
        shift_ms = None
        for i in range(0, len(batch), 2):
            slot, flat = int(batch[i]), batch[i + 1]
            start, into = slot * SLOT_MS, timers
            if slot < 0:
                start, into = 0, timeouts if slot == _DEADLINES else held
                if slot == _POSTPONED:
                    shift_ms = int(shift)
            into += [unpack(flat[j], start + int(flat[j + 1])) for j in range(0, len(flat), 2)]
        return Claim(
            seq=int(seq),
            nonce=name.decode(),
            timers=timers,
            next_due_ms=None if due == b"" else int(due),
            now_ms=int(now),
            timeouts=timeouts,
            overdue=held,
            shift_ms=shift_ms,
        )

    async def wipe(self, shard: int, epoch: str) -> None:
        """See `Wheel.wipe`. Bounded calls, until nothing is left."""
        keys = self._of(shard)
        left = 1
        while left:
            reply = await self._run(
                "wipe",
                _all_of(keys),
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
                [keys.slot_prefix, epoch, _groups(timers[i : i + MAX_LOAD], pack)],
            )
            _granted(shard, reply)

    async def load_awaited(self, shard: int, epoch: str, timers: Sequence[Timer]) -> None:
        """See `Wheel.load_awaited`. Bounded calls."""
        keys = self._of(shard)
        for i in range(0, len(timers), MAX_LOAD):
            members: list[bytes] = []
            for timer in timers[i : i + MAX_LOAD]:
                members += (text(b"%d" % timer.due_ms), text(pack(timer)))
            reply = await self._run(
                "load_awaited", [keys.meta, keys.awaited], [epoch, array(members)]
            )
            _granted(shard, reply)

    async def open(
        self,
        shard: int,
        epoch: str,
        gen: str,
        done: tuple[int, str],
        watermarks: Mapping[str, int],
        *,
        holding: tuple[int, int] | None = None,
        paused: Collection[Subject] = (),
        last_ms: int = 0,
    ) -> None:
        """See `Wheel.open`."""
        keys = self._of(shard)
        fields: list[Any] = []
        for topic, at in watermarks.items():
            fields += (WATERMARK_FIELD + topic, at)
        reply = await self._run(
            "open",
            [keys.meta, keys.slots, keys.awaited, keys.paused],
            [
                *(epoch, gen, *done, *(holding or ("", ""))),
                *(keys.slot_prefix, last_ms, len(fields), *fields),
                *map(subject_key, paused),
            ],
        )
        _granted(shard, reply)

    async def size(self, shard: int) -> WheelSize:
        """See `Wheel.size`."""
        keys = self._of(shard)
        next_due, in_flight, awaited, due, held, parked, flat = await self._run(
            "size",
            [keys.meta, keys.slots, keys.in_flight, keys.awaited, keys.held, keys.paused],
            [keys.slot_prefix, SLOT_MS, MAX_DUE_SLOTS],
        )
        meta = {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}
        return WheelSize(
            gen=meta.get("gen"),
            pending=int(meta.get("pending", 0)),
            in_flight=int(meta.get("claimed", 0)) if in_flight else 0,
            next_due_ms=None if next_due == b"" else int(next_due),
            watermarks={
                name.removeprefix(WATERMARK_FIELD): int(at)
                for name, at in meta.items()
                if name.startswith(WATERMARK_FIELD)
            },
            due=int(due),
            awaited=int(awaited),
            held=int(held),
            parked=int(parked),
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
                    if message is None:
                        # A subscription that was confirmed; or, without end and without a pause, a
                        # connection that the kernel has given up, which redis-py takes for a time
                        # limit of ours (ETIMEDOUT). To write shows that.
                        await pubsub.ping()
                    elif message["channel"] in channels:
                        yield channels[message["channel"]]
            except RAISED as error:
                raise translated(error) from error

        try:
            try:
                await pubsub.subscribe(*channels)
            except RAISED as error:
                raise translated(error) from error
            yield heard()
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    def _of(self, shard: int) -> ShardKeys:
        keys = self._keys.get(shard)
        if keys is None:
            keys = self._keys[shard] = ShardKeys.of(self._prefix, shard)
        return keys

    async def _added(self, shard: int, reply: Any) -> Any:
        """The reply to an input, unless the wheel was lost or has not come so far."""
        if reply[0] == b"lost":
            raise await self._lost(shard)
        if reply[0] == b"behind":
            raise WheelBehindError(shard, reply[1].decode().removeprefix(WATERMARK_FIELD))
        return reply

    async def _lost(self, shard: int) -> WheelLostError:
        """Has the owner, who may sleep, see that there is no wheel any more."""
        try:
            await self._redis.publish(self._of(shard).wake, "lost")
        except RAISED as error:
            raise translated(error) from error
        return WheelLostError(shard)

    async def _run(self, name: str, keys: list[str], args: list[Any]) -> Any:
        try:
            return await self._scripts[name](keys=keys, args=args)
        except RAISED as error:
            if is_demoted(error):
                # Its address may lead to another one by now, and this one stays connected.
                pool = self._redis.connection_pool
                await pool.disconnect(inuse_connections=False)
            raise translated(error) from error


def _all_of(keys: ShardKeys) -> list[str]:
    """What a script names that may touch everything but the slots."""
    return [
        *(keys.meta, keys.slots, keys.in_flight, keys.awaited, keys.answered, keys.held),
        *(keys.paused, keys.aside),
    ]


def _told(seen: Aside | None) -> tuple[str | int, str | int]:
    return ("", "") if seen is None else (seen.gen, seen.step)


def _reached(after: Mapping[str, int]) -> list[Any]:
    return [each for topic, least in after.items() for each in (WATERMARK_FIELD + topic, least)]


def _granted(shard: int, reply: Any) -> Any:
    """The reply of an owner's script, unless it was refused."""
    if reply[0] == b"fenced":
        raise FencedError(shard, f"epoch {reply[1].decode()}")
    if reply[0] == b"lost":
        raise WheelLostError(shard, reply[1].decode())
    return reply


def _groups(timers: Sequence[Timer], packed: Callable[[Timer], bytes]) -> bytes:
    """`timers` as put.lua reads them: grouped by slot."""
    if not timers:
        return b""
    slots: dict[int, list[bytes]] = {}
    for timer in timers:
        due_ms = timer.due_ms
        slot = due_ms // SLOT_MS
        group = slots.get(slot)
        if group is None:
            group = slots[slot] = []
        group += (_RELATIVE[due_ms - slot * SLOT_MS], text(packed(timer)))
    groups: list[bytes] = []
    # In order of time, so that appends to the index stay at its end.
    for slot, group in sorted(slots.items(), key=itemgetter(0)):
        groups += (text(b"%d" % slot), array(group))
    return array(groups)
