"""Work of many shards in turns: never two at once, a rest behind each, nobody shut out."""

import asyncio
from typing import Any, cast
from uuid import UUID

import pytest

from scheduler.activity import Status
from scheduler.adapters.memory_record import MemoryRecord, Row
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.patience import Patience
from scheduler.ports import Aside, Outbox, SourceRecord
from scheduler.settings import load_settings
from scheduler.turns import Turns
from schemas import codec
from schemas.events import PodCommand
from schemas.times import moment
from streams.worker import appliers

pytestmark = pytest.mark.timeout(30)

NOW_MS = 1_000_000


class Store:
    """Says who is at it, and waits until told to go on."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.log: list[str] = []
        self.go_on = asyncio.Event()

    async def work(self, name: str, *, fail: bool = False) -> None:
        async def rest(_: float) -> None:
            self.log.append(f"{name} rests")
            await asyncio.sleep(0)

        async with self.turns.turn(Patience(name, sleep=rest)):
            self.log.append(f"{name} begins")
            await self.go_on.wait()
            await asyncio.sleep(0)
            if fail:
                raise ConnectionError(name)
            self.log.append(f"{name} ends")


async def test_one_after_the_other_in_the_order_of_asking_with_a_rest_behind_each() -> None:
    store = Store()
    store.go_on.set()
    await asyncio.gather(*(store.work(name) for name in "abc"))
    assert store.log == [f"{name} {does}" for name in "abc" for does in ("begins", "ends", "rests")]


async def test_who_fails_leaves_the_turn_to_the_next_at_once() -> None:
    store = Store()
    store.go_on.set()
    failing, other = store.work("a", fail=True), store.work("b")
    found = await asyncio.gather(failing, other, return_exceptions=True)
    assert isinstance(found[0], ConnectionError)
    assert store.log == ["a begins", "b begins", "b ends", "b rests"]


@pytest.mark.parametrize("victim", ["a", "b"])
async def test_who_is_stopped_holds_up_nobody(victim: str) -> None:
    """As when a partition is taken away from a worker, in a turn or in the wait for one."""
    store = Store()
    tasks = {name: asyncio.create_task(store.work(name)) for name in "abc"}
    await asyncio.sleep(0)
    assert store.log == ["a begins"]
    tasks[victim].cancel()
    store.go_on.set()
    left = [task for name, task in tasks.items() if name != victim]
    async with asyncio.timeout(10):
        await asyncio.gather(*left)
    assert [line for line in store.log if line.endswith("ends")] == [
        f"{name} ends" for name in tasks if name != victim
    ]


async def test_a_rest_is_in_proportion_to_the_work_and_has_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rested: list[float] = []
    now = [0.0]
    monkeypatch.setattr("scheduler.turns.time.monotonic", lambda: now[0])

    async def rest(seconds: float) -> None:
        rested.append(seconds)

    turns, patience = Turns(), Patience("test", sleep=rest)
    for worked_s in (0.02, 60.0):
        async with turns.turn(patience):
            now[0] += worked_s
    assert rested == [pytest.approx(0.03), 0.5]


class SlowWheel(MemoryWheel):
    """Sees which shards set timers aside at one time."""

    def __init__(self) -> None:
        super().__init__(lambda: NOW_MS)
        self.at_it: set[int] = set()
        self.together: set[frozenset[int]] = set()

    async def set_aside(self, shard: int, *args: Any, **fields: Any) -> Aside | None:
        self.at_it.add(shard)
        for _ in range(20):
            await asyncio.sleep(0)
            self.together.add(frozenset(self.at_it))
        self.at_it.remove(shard)
        return await super().set_aside(shard, *args, **fields)


class NoOutbox:
    """Takes all statuses."""

    async def announce(self, shard: int, statuses: object) -> None:
        pass


async def test_a_worker_sweeps_one_of_its_shards_at_a_time() -> None:
    record, wheel = MemoryRecord(), SlowWheel()
    settings = load_settings()
    *_, commands = settings.topics.inputs
    open_applier = appliers(settings, record, wheel, cast(Outbox, NoOutbox()), {})[commands]
    names = [str(UUID(int=shard)) for shard in range(4)]
    for shard, name in enumerate(names):
        await wheel.take(shard, "epoch")
        await wheel.wipe(shard, "epoch")
        await wheel.open(shard, "epoch", "gen", (0, ""), {})
        due_ms = NOW_MS + 60_000
        row = Row(
            id=name,
            pod_id="pod",
            post_id="post",
            member_id=name,
            engagement_type="like",
            source_partition=shard,
            status=Status.SCHEDULED,
            scheduled_for_ms=due_ms,
        )
        assert record.insert(row)
        timer = record.table[name].timer
        assert timer is not None
        await wheel.add(shard, commands, -1, -1, [timer])
    command = PodCommand(event_id="e", command="cancel", issued_at=moment(NOW_MS), pod_id="pod")
    value = codec.encode(command)
    await asyncio.gather(
        *(
            open_applier(shard).apply([SourceRecord(commands, shard, 0, b"key", value)])
            for shard in range(4)
        )
    )
    assert {record.table[name].status for name in names} == {Status.CANCELLED}
    assert wheel.together == {frozenset({shard}) for shard in range(4)}
