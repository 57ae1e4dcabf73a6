"""Lets aiokafka read records whose header names are not UTF-8.

Kafka takes any bytes for a header's name, and so do clients in C. aiokafka raises where it meets
one, at the same record each time: one such record would hold up its partition for ever, before our
code has seen it. So the batch it stands in is read once more, by the slow parser, with the bytes
that are not UTF-8 escaped.
"""

from collections.abc import Iterator
from typing import Any

from aiokafka import codec
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords

_LENGTH_END = 12  # BaseOffset => Int64, Length => Int32


def read_foreign_headers() -> None:
    """Put it in place, for all consumers of this process. May be called again."""
    fetcher.MemoryRecords = _Records


def missing_codecs() -> list[str]:
    """Compressions that this process cannot read: a record with one would hold up its partition."""
    return [
        name for name in ("gzip", "snappy", "lz4", "zstd") if not getattr(codec, f"has_{name}")()
    ]


class _Records:
    """What `MemoryRecords` is to the fetcher, with each batch's bytes kept at hand."""

    def __init__(self, data: bytes) -> None:
        self._records = MemoryRecords(data)
        self._data = memoryview(data)
        self._at = 0
        self.has_next = self._records.has_next
        self.size_in_bytes = self._records.size_in_bytes

    def next_batch(self) -> Any:
        batch = self._records.next_batch()
        if batch is None:
            return None
        start = self._at
        length = int.from_bytes(self._data[start + 8 : start + _LENGTH_END], "big")
        self._at = start + _LENGTH_END + length
        return _Batch(batch, self._data[start : self._at])


class _Batch:
    """A batch of records; all but its iteration is the original's."""

    def __init__(self, batch: Any, data: memoryview) -> None:
        self._batch = batch
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        last = -1
        try:
            for record in self._batch:
                last = record.offset
                yield record
        except UnicodeDecodeError:
            for record in _slowly(self._data):
                if record.offset > last:
                    yield record


def _slowly(data: memoryview) -> Iterator[Any]:
    batch = _DefaultRecordBatchPy(data)
    records = iter(batch)  # this is what uncompresses the buffer
    batch._buffer = _Lenient(batch._buffer)
    yield from records


class _Lenient(bytearray):
    """Bytes of which every slice is read with what is not UTF-8 escaped."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return _Lenient(found) if isinstance(key, slice) else found

    def decode(self, encoding: str = "utf-8", errors: str = "backslashreplace") -> str:
        return super().decode(encoding, errors)
