"""A dead letter: what became of a record that could never be applied.

Whoever may write to the topic may have put anything there, so nothing here trusts a header.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from scheduler.settings import Settings
from schemas.headers import HISTORY, REPLAYED_FROM
from schemas.ids import dead_letter_id

ORIGINAL_CE_ID = "original_ce_id"

# Behind the original's headers, each once, in whatever order.
_SOURCE = ("ce_id", "source_topic", "source_partition", "source_offset", "reason")
_TRUNCATED = "truncated_from"
_NUMBER = re.compile(rb"[0-9]{1,18}").fullmatch
_TOPIC = re.compile(rb"[a-zA-Z0-9._-]{1,249}").fullmatch  # what Kafka allows

Header = tuple[str, bytes | None]


class Failure(msgspec.Struct, frozen=True):
    """One failed attempt of an engagement."""

    attempt: int
    at: str
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A record of `dead-letter`, as it stands at `partition`/`offset` since `at_ms`.

    `id` is `<topic>/<partition>/<offset>` of its source; of a record that is no dead letter of
    the engine, its own position: then `source` is None and `headers` are all it has. Of a dead
    letter `headers` are the original's, with its own `ce_id`. `value` is cut where
    `truncated_from` gives the size that it had.
    """

    id: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    reason: str = ""
    source: tuple[str, int, int] | None = None
    truncated_from: int | None = None
    history: Sequence[Failure] = ()

    @property
    def size(self) -> int:
        """Bytes of the value here."""
        return len(self.value or b"")


def letter_of(
    topic: str,
    partition: int,
    offset: int,
    at_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Sequence[Header],
) -> Letter:
    """The record at `partition`/`offset` of the dead letter topic `topic` as a letter."""
    added, original = _parted(headers, key, value)
    source = _source(added)
    if source is None:
        reason = next((data for name, data in reversed(headers) if name == "reason"), None)
        return Letter(
            id=dead_letter_id(topic, partition, offset),
            partition=partition,
            offset=offset,
            at_ms=at_ms,
            key=key,
            value=value,
            headers=headers,
            reason=_text(reason or b""),
        )
    cut = added.get(_TRUNCATED)
    return Letter(
        id=dead_letter_id(*source),
        partition=partition,
        offset=offset,
        at_ms=at_ms,
        key=key,
        value=value,
        headers=original,
        reason=_text(added["reason"]),
        source=source,
        truncated_from=None if cut is None else int(cut),
        history=_history(added.get(HISTORY)) or (),
    )


def replayed_headers(letter: Letter) -> list[Header]:
    """What the letter's record carries when it is sent again: the original's headers, and whence.

    `replayed_from` stands there once, however often the record has died.
    """
    kept = [(name, data) for name, data in letter.headers if name != REPLAYED_FROM]
    return [*kept, (REPLAYED_FROM, letter.id.encode())]


def not_replayable(letter: Letter, settings: Settings) -> str | None:
    """Why the letter cannot be sent again, None where it can."""
    topics = settings.topics
    inputs = (topics.post_detected, topics.engagement_executed, topics.pod_commands)
    if letter.source is None:
        return "it is no dead letter of the engine: nothing says where it came from"
    topic, partition, _ = letter.source
    if topic not in inputs:
        return f"it came from {topic}, and the engine reads {', '.join(inputs)}"
    if partition >= settings.partitions:
        return f"it came from partition {partition}, and there are {settings.partitions}"
    if letter.truncated_from is not None:
        return (
            f"it was cut, its value had {letter.truncated_from:,} bytes: have the original's"
            " sender publish it again"
        )
    return None


def _source(added: Mapping[str, bytes]) -> tuple[str, int, int] | None:
    """Where a dead letter of the engine came from."""
    if any(name not in added for name in _SOURCE):
        return None
    topic, partition, offset = (added[name] for name in _SOURCE[1:4])
    if not (_TOPIC(topic) and _NUMBER(partition) and _NUMBER(offset)):
        return None
    source = (topic.decode(), int(partition), int(offset))
    return source if added["ce_id"] == dead_letter_id(*source).encode() else None


def _parted(
    headers: Sequence[Header], key: bytes | None, value: bytes | None
) -> tuple[dict[str, bytes], list[Header]]:
    """What the engine has added, and the headers that the original had."""
    added: dict[str, bytes] = {}
    end = len(headers)
    while end:
        name, data = headers[end - 1]
        # The original may have had headers of these names, too; they stand before ours.
        if data is None or name in added or not _is_ours(name, data, headers, key, value):
            break
        added[name] = data
        end -= 1
    return added, [
        ("ce_id" if name == ORIGINAL_CE_ID else name, data) for name, data in headers[:end]
    ]


def _is_ours(
    name: str, data: bytes, headers: Sequence[Header], key: bytes | None, value: bytes | None
) -> bool:
    if name == _TRUNCATED:
        # Where in doubt it was cut: to send half a record would be worse than to send none.
        return bool(_NUMBER(data)) and (
            int(data) > len(value or b"") or (key is None and value is None)
        )
    if name == HISTORY:
        failed = next((kept for each, kept in reversed(headers) if each == "reason"), b"")
        return (failed or b"").startswith(b"failed") and _history(data) is not None
    return name in _SOURCE


def _history(data: bytes | None) -> list[Failure] | None:
    try:
        return None if data is None else msgspec.json.decode(data, type=list[Failure])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
