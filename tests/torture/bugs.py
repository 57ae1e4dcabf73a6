"""Deliberate bugs. Each takes away one step of a protocol, as a patch of the running process would;
the torture must notice every one of them (docs/torture.md tells how each was noticed)."""

from collections.abc import Callable
from typing import Any


def settle_before_commit() -> None:
    """The owner takes whatever is in flight for settled: what was claimed and not committed is
    dropped by the next claim."""
    _change_script(
        "claim",
        "local seq, done = tonumber(meta[2]), tonumber(ARGV[5])",
        "local seq = tonumber(meta[2])\nlocal done = seq\nARGV[6] = meta[3]",
    )


def watermark_not_checked() -> None:
    """Whoever adds to the wheel is believed: a worker that was away adds what has fired since."""
    _change_script("add", "if at ~= ARGV[4] then", "if false then")


def no_drain_before_rebuild() -> None:
    """A rebuild loads rows of which PostgreSQL does not know yet that they have fired."""
    from scheduler.project import Projection

    async def drain(self: Projection, end: int) -> None:
        pass

    _put(Projection, "drain", drain)


def epoch_after_producer() -> None:
    """The shard is taken by its producer and its cursor first, and by its epoch after that."""
    from scheduler.dispatch import ShardDispatcher

    async def take(self: ShardDispatcher, *, rebuild: bool = False) -> None:
        await self._log.fence()
        cursor = await self._log.cursor()
        self._epoch = self._token()
        state = await self._wheel.take(self._shard, self._epoch)
        if rebuild or cursor is None or state.gen != cursor.gen:
            cursor = await self._rebuild.run(
                self._shard, self._epoch, self._log, self._projection, cursor
            )
        self._done = cursor

    _put(ShardDispatcher, "take", take)


def cursor_before_fence() -> None:
    """The cursor is read while the former owner may still commit."""
    from scheduler.dispatch import ShardDispatcher

    async def take(self: ShardDispatcher, *, rebuild: bool = False) -> None:
        self._epoch = self._token()
        state = await self._wheel.take(self._shard, self._epoch)
        cursor = await self._log.cursor()
        await self._log.fence()
        if rebuild or cursor is None or state.gen != cursor.gen:
            cursor = await self._rebuild.run(
                self._shard, self._epoch, self._log, self._projection, cursor
            )
        self._done = cursor

    _put(ShardDispatcher, "take", take)


BUGS: dict[str, Callable[[], None]] = {
    "settle-before-commit": settle_before_commit,
    "watermark-not-checked": watermark_not_checked,
    "no-drain-before-rebuild": no_drain_before_rebuild,
    "epoch-after-producer": epoch_after_producer,
    "cursor-before-fence": cursor_before_fence,
}


def _change_script(name: str, text: str, by: str) -> None:
    from scheduler import lua
    from scheduler.adapters import redis_wheel

    real = lua.script

    def changed(wanted: str) -> str:
        script = real(wanted)
        if wanted != name:
            return script
        assert script.count(text) == 1, f"{name}.lua has changed: mend the bug"
        return script.replace(text, by)

    _put(redis_wheel, "script", changed)


def _put(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name), f"{name} has changed: mend the bug"
    setattr(owner, name, value)
