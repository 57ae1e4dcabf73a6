"""Events wait for the commands that were there before them, and not for ever."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from unittest.mock import Mock

import pytest

from scheduler import patience
from scheduler.errors import StoreUnavailableError, WheelLostError
from scheduler.ports import SourceRecord
from streams import commands_first
from streams.commands_first import CommandsFirst

SHARD, TOPIC = 3, "pod-commands"
RECORDS = [SourceRecord("post-detected", SHARD, 0, None, b"v")]


class World:
    """A wheel whose watermark goes on with each look, and a topic with records and markers."""

    def __init__(self, at: int, end: int, markers: Collection[int] = ()) -> None:
        self.at, self.end, self.markers = at, end, markers
        self.fails: list[Exception] = []
        self.applied: list[int] = []
        self.stops_at = end

    async def ends(self, partitions: Collection[int]) -> Mapping[int, int]:
        assert list(partitions) == [SHARD]
        return {SHARD: self.end}

    async def has_record(self, partition: int, start: int, end: int) -> bool:
        assert partition == SHARD
        return any(each not in self.markers for each in range(start, end))

    async def watermark(self, shard: int, topic: str) -> int:
        assert (shard, topic) == (SHARD, TOPIC)
        if self.fails:
            raise self.fails.pop()
        self.at = min(self.at + 1, self.stops_at)
        return self.at

    async def apply(self, records: Sequence[SourceRecord]) -> None:
        self.applied.append(self.at)

    async def catch_up(self) -> None: ...

    @property
    def applier(self) -> CommandsFirst:
        world: Any = self
        return CommandsFirst(world, SHARD, TOPIC, world, world)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_first, "LOOK_S", 0)


async def test_events_wait_for_the_last_command() -> None:
    world = World(at=4, end=9)
    await world.applier.apply(RECORDS)
    assert world.applied == [8]


async def test_only_the_first_ones_wait() -> None:
    world = World(at=7, end=9)
    applier = world.applier
    await applier.apply(RECORDS)
    world.end += 5
    await applier.apply(RECORDS)
    assert world.applied == [8, 8]


async def test_markers_of_transactions_and_what_has_expired_are_not_waited_for() -> None:
    world = World(at=4, end=9, markers=(6, 7, 8))
    world.stops_at = 5
    await world.applier.apply(RECORDS)
    assert world.applied == [5]


async def test_stores_that_are_away_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Mock()
    monkeypatch.setattr(patience, "log", log)
    world = World(at=7, end=9)
    world.fails = [WheelLostError(SHARD), StoreUnavailableError("Redis", "away")]
    await world.applier.apply(RECORDS)
    assert world.applied == [8]
    # It is said: nothing else of this partition is heard meanwhile.
    assert [call.args for call in log.warning.call_args_list] == [("waiting",)]


async def test_commands_that_take_longer_hold_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands_first, "LONGEST_S", 0)
    world = World(at=4, end=9)
    world.stops_at = 4
    await world.applier.apply(RECORDS)
    assert world.applied == [4]
