"""All Redis keys of the wheel, in one place.

The keys of shard p share the hash tag ``{p}``, so that a Redis Cluster keeps them on one node.
"""

from typing import NamedTuple

WATERMARK_FIELD = "at:"


def trace_key(prefix: str, shard: int, post_id: str) -> str:
    """String, for two weeks: the trace context of the event that planned the post."""
    return f"{prefix}wheel:{{{shard}}}:trace:{post_id}"


class ShardKeys(NamedTuple):
    """The keys of one shard."""

    meta: str
    """Hash: epoch, gen, seq, nonce, claimed, pending, head, last, shift, parks, aside, asides, and
    `at:<topic>` watermarks."""
    slots: str
    """Sorted set of the occupied slots, by number."""
    in_flight: str
    """The claimed batch, packed (MessagePack), until it is settled."""
    awaited: str
    """Sorted set of packed timers that have fired and whose result is awaited, by deadline (ms)."""
    answered: str
    """Set of packed timers whose result came, or that were cancelled, while a batch was in flight
    that may hold them; until the batch is settled."""
    held: str
    """Sorted set of packed timers that are held back as overdue, by the time they were due (ms)."""
    aside: str
    """Sorted set of packed timers that a command has set aside to change them, by the time they are
    due (ms)."""
    paused: str
    """Hash of who is paused: the slot where their timers are parked once they fall due."""
    slot_prefix: str
    """Followed by a slot's number: a sorted set of packed timers, by time within the slot; by `p`
    and a number: one of timers that are parked, by the time they were due (ms)."""
    wake: str
    """Publish channel: an add has put a timer before the time the owner sleeps until, or has found
    no wheel."""

    @classmethod
    def of(cls, prefix: str, shard: int) -> "ShardKeys":
        """The keys of `shard`, behind the topic prefix."""
        base = f"{prefix}wheel:{{{shard}}}:"
        return cls(
            meta=base + "meta",
            slots=base + "index",
            in_flight=base + "flight",
            awaited=base + "awaited",
            answered=base + "answered",
            held=base + "held",
            aside=base + "aside",
            paused=base + "paused",
            slot_prefix=base + "s:",
            wake=base + "wake",
        )
