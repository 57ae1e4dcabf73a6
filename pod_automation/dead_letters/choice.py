"""Which dead letters are meant: by id, reason, source and time."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from pod_automation.dead_letters.letter import Letter
from schemas.times import millis

_DURATION = re.compile(r"([0-9]{1,9})(s|m|h|d|w)").fullmatch
_UNIT_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_SOURCE = re.compile(r"([a-zA-Z0-9._-]+)(?:/([0-9]{1,9}))?").fullmatch


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Letters that pass all that is given; without anything, every letter does.

    `reason`: a part of it, in any case; `*` in it stands for any text. `topic` and `partition` are
    the source's; `topic` and `ids` with or without `prefix`. `since_ms` (inclusive) and `until_ms`
    (exclusive) are milliseconds UTC, of the time at which the letter was written.
    """

    ids: Collection[str] = ()
    reason: str | None = None
    topic: str | None = None
    partition: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    prefix: str = ""

    def partitions(self, count: int) -> list[int]:
        """The partitions, of `count`, in which such letters can stand: a letter stands in the one
        that has the number of its source's."""
        if self.ids:
            found = {each.split("/")[-2] for each in self.ids if each.count("/") == 2}
            return [each for each in range(count) if str(each) in found]
        if self.partition is not None:
            return [self.partition] if self.partition < count else []
        return list(range(count))

    def matches(self, letter: Letter) -> bool:
        """Whether `letter` is meant."""
        if self.ids and letter.id not in self.ids and not self._without_prefix(letter.id):
            return False
        if self.since_ms is not None and letter.at_ms < self.since_ms:
            return False
        if self.until_ms is not None and letter.at_ms >= self.until_ms:
            return False
        if self.topic is not None:
            if letter.source is None:
                return False
            topic, partition, _ = letter.source
            if topic not in (self.topic, self.prefix + self.topic):
                return False
            if self.partition not in (None, partition):
                return False
        return self.reason is None or _found(self.reason, letter.reason)

    def _without_prefix(self, letter_id: str) -> bool:
        return letter_id.startswith(self.prefix) and letter_id[len(self.prefix) :] in self.ids


def source_of(text: str) -> tuple[str, int | None]:
    """`TOPIC` or `TOPIC/PARTITION`. Raises `ValueError`."""
    found = _SOURCE(text)
    if found is None:
        raise ValueError("a topic, or a topic and a partition: post-detected/3")
    topic, partition = found.groups()
    return topic, None if partition is None else int(partition)


def moment_of(text: str, now_ms: int) -> int:
    """A time (RFC 3339 with an offset) or a duration before `now_ms`, such as 90s, 15m, 2h, 3d or
    1w, in milliseconds UTC. Raises `ValueError`."""
    if duration := _DURATION(text):
        number, unit = duration.groups()
        return max(0, now_ms - int(number) * _UNIT_MS[unit])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise ValueError(
            "neither a time such as 2026-11-24T08:00:00Z nor a duration such as 90s, 15m, 2h, 3d"
        )
    return max(0, millis(at))


def _found(wanted: str, reason: str) -> bool:
    parts = [re.escape(each) for each in wanted.casefold().split("*")]
    return re.search(".*".join(parts), reason.casefold(), re.DOTALL) is not None
