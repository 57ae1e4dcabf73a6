"""The letters that were found, each once, in a temporary file: there may be millions."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Self

from pod_automation.dead_letters.letter import Letter

PAGE = 500

KEPT_CHARS = 1000
"""Of a reason or key; the engine's own reasons have 300 at most."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A letter without its content. `partition`, `offset` and `at_ms` are those of its last copy.

    `why_not` says why it cannot be replayed, None where it can. `key` is the beginning of it.
    """

    id: str
    at_ms: int
    partition: int
    offset: int
    reason: str
    source_topic: str | None
    source_partition: int | None
    source_offset: int | None
    key: bytes | None
    key_size: int
    size: int
    truncated_from: int | None
    failures: int
    why_not: str | None
    copies: int = 1


_COLUMNS = ", ".join(f'"{each.name}"' for each in fields(Entry))
_SET = ", ".join(
    f'"{each.name}" = excluded."{each.name}"'
    for each in fields(Entry)
    if each.name not in ("id", "copies")
)
_ADD = (
    f"insert into letters ({_COLUMNS}) values ({', '.join('?' for _ in fields(Entry))})"  # noqa: S608
    f" on conflict (id) do update set {_SET}, copies = copies + 1"
)


class Index:
    """A context: the file is gone after it. One call at a time, from any thread."""

    def __init__(self) -> None:
        # A database of its own on disk, which SQLite deletes.
        self._file = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._file.execute(f"create table letters ({_COLUMNS}, primary key (id)) without rowid")
        self._file.execute("begin")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        (count,) = self._file.execute("select count(*) from letters").fetchone()
        return int(count)

    def add(self, letter: Letter, why_not: str | None = None) -> None:
        """Add a letter, or another copy of one."""
        topic, partition, offset = letter.source or (None, None, None)
        entry = Entry(
            id=letter.id,
            at_ms=letter.at_ms,
            partition=letter.partition,
            offset=letter.offset,
            reason=letter.reason[:KEPT_CHARS],
            source_topic=topic,
            source_partition=partition,
            source_offset=offset,
            key=None if letter.key is None else letter.key[:KEPT_CHARS],
            key_size=len(letter.key or b""),
            size=letter.size,
            truncated_from=letter.truncated_from,
            failures=len(letter.history),
            why_not=why_not,
        )
        self._file.execute(_ADD, astuple(entry))

    def drop(self, ids: Sequence[str]) -> None:
        """Forget these."""
        self._file.executemany("delete from letters where id = ?", [(each,) for each in ids])

    def newest(self, limit: int | None = None) -> Iterator[Sequence[Entry]]:
        """Pages of at most `limit` entries in all, the newest first."""
        # The order of all of them is SQLite's to keep, on disk if need be.
        cursor = self._file.execute(
            f"select {_COLUMNS} from letters"  # noqa: S608 - names of ours
            ' order by at_ms desc, partition, "offset" desc limit ?',
            (-1 if limit is None else limit,),
        )
        while rows := cursor.fetchmany(PAGE):
            yield [Entry(*row) for row in rows]

    def ids(self) -> Iterator[Sequence[str]]:
        """Pages of all ids. Those of a page may be dropped before the next one."""
        last = ""
        while rows := self._file.execute(
            "select id from letters where id > ? order by id limit ?", (last, PAGE)
        ).fetchall():
            last = rows[-1][0]
            yield [row[0] for row in rows]

    def widest_id(self) -> int:
        """Characters of the longest id, 0 without any."""
        (width,) = self._file.execute("select max(length(id)) from letters").fetchone()
        return int(width or 0)

    def replayable(self) -> int:
        """How many can be replayed."""
        (count,) = self._file.execute(
            "select count(*) from letters where why_not is null"
        ).fetchone()
        return int(count)

    def places(self) -> Mapping[int, tuple[int, int]]:
        """First and last offset of what can be replayed, by partition."""
        rows = self._file.execute(
            'select partition, min("offset"), max("offset") from letters'
            " where why_not is null group by partition"
        )
        return {partition: (first, last) for partition, first, last in rows}

    def wants(self, letter: Letter) -> bool:
        """Whether this very copy of a letter is to be replayed."""
        found = self._file.execute(
            'select 1 from letters where id = ? and partition = ? and "offset" = ?'
            " and why_not is null",
            (letter.id, letter.partition, letter.offset),
        )
        return found.fetchone() is not None
