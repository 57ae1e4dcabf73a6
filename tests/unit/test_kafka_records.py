"""Records with header names that are not UTF-8, which aiokafka alone cannot read."""

import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import calc_crc32c

from scheduler.adapters.kafka_records import missing_codecs, read_foreign_headers


@pytest.fixture
def patched() -> Iterator[Callable[[bytes], Any]]:
    before = fetcher.MemoryRecords
    read_foreign_headers()
    yield lambda data: fetcher.MemoryRecords(data)
    fetcher.MemoryRecords = before


def batch(base: int, names: list[str], compression: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 20)
    for at, name in enumerate(names):
        builder.append(at, 1000 + at, b"k%d" % at, b"v%d" % at, [(name, b"x")])
    built = bytearray(builder.build())
    struct.pack_into(">q", built, 0, base)
    return built


def foreign(built: bytearray) -> bytearray:
    """`built` with the bytes of every name "bad" replaced."""
    replaced = bytearray(built.replace(b"bad", b"\xff\xfeZ"))
    struct.pack_into(">I", replaced, 17, calc_crc32c(bytes(replaced[21:])))
    return replaced


def read(made: Any) -> list[tuple[int, bytes, Any]]:
    found = []
    while made.has_next():
        each = made.next_batch()
        assert each.validate_crc()
        assert not each.is_control_batch
        found += [(record.offset, record.value, record.headers) for record in each]
        assert each.next_offset == found[-1][0] + 1
    return found


def test_such_a_record_and_its_neighbours_are_read(patched: Callable[[bytes], Any]) -> None:
    data = bytes(
        batch(10, ["a", "b"]) + foreign(batch(12, ["c", "bad", "d", "bad"])) + batch(16, ["e"])
    )
    with pytest.raises(UnicodeDecodeError):
        read(MemoryRecords(data))
    found = read(patched(data))
    assert [offset for offset, *_ in found] == list(range(10, 17))
    assert [value for _, value, _ in found] == [b"v0", b"v1", b"v0", b"v1", b"v2", b"v3", b"v0"]
    assert [name for *_, ((name, _),) in found] == [
        *("a", "b", "c", "\\xff\\xfeZ", "d", "\\xff\\xfeZ", "e")
    ]


def test_what_is_cut_off_at_the_end_of_a_fetch_is_left(patched: Callable[[bytes], Any]) -> None:
    data = bytes(batch(0, ["a"]) + batch(1, ["b"])[:-1])
    assert [offset for offset, *_ in read(patched(data))] == [0]


def test_compressed_batches_are_read_too(patched: Callable[[bytes], Any]) -> None:
    gzip = 1
    data = bytes(batch(0, ["a", "b"], gzip))
    assert [offset for offset, *_ in read(patched(data))] == [0, 1]


def test_codecs_that_are_missing_are_named() -> None:
    assert set(missing_codecs()) <= {"snappy", "lz4", "zstd"}
