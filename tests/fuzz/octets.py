"""Bytes that were hurt on the way, and everything else that a Kafka record may hold."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from schemas.codec import encode
from schemas.events import Event
from schemas.examples import EXAMPLES
from schemas.headers import REPLAYED_FROM
from tests.fuzz.events import EVENT_TYPES, almost

MOST_BYTES = 1_000_000
"""Of a value: a broker takes 1 MiB with headers."""


@dataclass(frozen=True, slots=True)
class Fuzzed:
    """A record as it is handed to a producer."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, Any]]


def record(rng: Random, event_type: type[Event]) -> Fuzzed:
    """A record for the topic of `event_type`: some are good events, most are almost."""
    return Fuzzed(_key(rng), value(rng, event_type), headers(rng))


def value(rng: Random, event_type: type[Event]) -> bytes | None:
    """Its value alone."""
    chance = rng.random()
    if chance < 0.6:
        made: bytes | None = almost(rng, event_type)
    elif chance < 0.85:
        made = mutated(rng, almost(rng, event_type))
    elif chance < 0.93:
        made = almost(rng, rng.choice(EVENT_TYPES))
    elif chance < 0.98:
        made = rng.randbytes(rng.choice((1, 2, 16, 100, 1000)))
    else:
        made = rng.choice((None, b"", b"\x00", b"null", b"\xef\xbb\xbf{}", b"{}", b"[]", b" " * 99))
    return made if made is None else made[:MOST_BYTES]


def largest(event_type: type[Event]) -> Iterator[Fuzzed]:
    """Events with one thing wrong, or nothing: they are as large as a broker takes them."""
    wire = orjson.loads(encode(EXAMPLES[event_type]))
    for name in (next(iter(wire)), "activity_id", "post_id", "a field of theirs"):
        yield Fuzzed(b"fuzz", orjson.dumps(wire | {name: "x" * 900_000}), [])


def mutated(rng: Random, data: bytes) -> bytes:
    """`data` with one to six changes."""
    hurt = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        rng.choice(_CHANGES)(rng, hurt)
    return bytes(hurt)


def headers(rng: Random) -> list[tuple[str, Any]]:
    """Headers of no, some or very much sense."""
    names = ("ce_id", "ce_type", "ce_time", "ce_source", "", "reason", "source_topic", "history",
             "source_partition", "source_offset", "original_ce_id", "truncated_from",
             REPLAYED_FROM, "\N{SNOWMAN}", "x" * 300)  # fmt: skip
    values = (None, b"", b"1", b"-1", b"9" * 30, b"\xff\xfe", b"\x00", b"post-detected/0/1", b"[]",
              b"failed after 3 attempts: x", b"[" * 5000, b"\x1b[2J", b"h" * 3000)  # fmt: skip
    if rng.random() < 0.5:
        return []
    return [(rng.choice(names), rng.choice(values)) for _ in range(rng.randint(1, 8))]


def _key(rng: Random) -> bytes | None:
    return rng.choice((None, b"", b"key", b"\xff\xfe", b"\x00", b"k" * 3000, rng.randbytes(16)))


def _at(rng: Random, data: bytearray) -> int:
    return rng.randrange(len(data)) if data else 0


def _flip(rng: Random, data: bytearray) -> None:
    if data:
        data[_at(rng, data)] ^= 1 << rng.randrange(8)


def _set(rng: Random, data: bytearray) -> None:
    if data:
        data[_at(rng, data)] = rng.choice(b'\x00"\\{}[]:,\x80\xc0\xff09eE-\n')


def _cut(rng: Random, data: bytearray) -> None:
    del data[_at(rng, data) :]


def _drop(rng: Random, data: bytearray) -> None:
    at = _at(rng, data)
    del data[at : at + rng.randint(1, 8)]


def _insert(rng: Random, data: bytearray) -> None:
    at = _at(rng, data)
    data[at:at] = rng.randbytes(rng.randint(1, 8))


def _repeat(rng: Random, data: bytearray) -> None:
    at = _at(rng, data)
    data[at:at] = data[at : at + rng.randint(1, 64)] * rng.randint(1, 4)


def _digits(rng: Random, data: bytearray) -> None:
    at = _at(rng, data)
    data[at:at] = b"9" * rng.randint(1, 40)


_CHANGES: tuple[Callable[[Random, bytearray], None], ...] = (
    _flip,
    _set,
    _cut,
    _drop,
    _insert,
    _repeat,
    _digits,
)
