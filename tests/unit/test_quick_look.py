"""The light look: it speaks only of what stays while nothing moves."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.request import urlopen

import pytest
from msgspec.structs import replace

from pod_automation.metrics import Differences, served, serving
from pod_automation.stack.ports import choose_ports
from scheduler import quick_look
from scheduler.activity import Status
from scheduler.adapters.memory_log import MemoryPartition
from scheduler.adapters.memory_record import MemoryRecord, Row
from scheduler.adapters.memory_view import MemoryWheelView
from scheduler.difference import Kind
from scheduler.ports import WheelCount, WheelMeta
from scheduler.quick_look import QuickLook, QuickReport, ShardLook, imbalance, lasting
from scheduler.settings import load_settings
from scheduler.timer import Timer
from schemas.events import WheelCursor
from schemas.topics import Topics

pytestmark = pytest.mark.timeout(20)

TOPICS = Topics.prefixed()
POSTS, RESULTS, _ = INPUTS = TOPICS.inputs
LOOK = ShardLook(
    meta=WheelMeta("gen", 7, "nonce", True, {POSTS: 41}),
    held=WheelCount(waiting=5, in_flight=0, awaited=2),
    still=True,
    waiting=5,
    dispatched=2,
    marks={POSTS: 41},
    cursor=WheelCursor(seq=7, nonce="nonce", gen="gen"),
)


def test_what_adds_up() -> None:
    assert imbalance(LOOK, INPUTS) == {}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"waiting": 6}, {Kind.WAITING: 1}),
        ({"waiting": 3}, {Kind.WAITING: -2}),
        ({"dispatched": 3, "waiting": 4}, {Kind.WAITING: -1, Kind.AWAITED: 1}),
        ({"marks": {POSTS: 44, RESULTS: 0}}, {Kind.WHEEL_BEHIND: 4}),
        ({"marks": {}}, {Kind.WHEEL_AHEAD: 42}),
        ({"meta": replace(LOOK.meta, gen=None)}, {Kind.NO_WHEEL: 1}),
        ({"cursor": None}, {Kind.CURSOR: 1}),
        ({"cursor": WheelCursor(seq=7, nonce="other", gen="gen")}, {Kind.CURSOR: 1}),
        ({"cursor": WheelCursor(seq=7, nonce="nonce", gen="other")}, {Kind.CURSOR: 1}),
        ({"held": WheelCount(4, 1, 2), "cursor": WheelCursor(seq=6, nonce="x", gen="gen")}, {}),
        ({"held": WheelCount(4, 1, 2)}, {Kind.CURSOR: 1}),
    ],
)
def test_what_does_not(changes: Mapping[str, Any], expected: Mapping[Kind, int]) -> None:
    look = replace(LOOK, **changes)
    assert imbalance(look, INPUTS) == expected
    assert lasting(look, look, INPUTS) == expected


def test_nothing_is_said_of_what_moves() -> None:
    look = replace(LOOK, waiting=6)
    assert lasting(None, look, INPUTS) == {}
    assert lasting(LOOK, look, INPUTS) == {}
    moving = replace(look, still=False)
    assert lasting(moving, moving, INPUTS) == {}


class Said:
    """A logger whose lines can be read; the program's may have been set up by other tests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: object) -> None:
        self._lines: list[str] = []
        monkeypatch.setattr(module, "log", self)

    def _say(self, event: str, **fields: object) -> None:
        self._lines.append(f"{event} {fields}")

    info = warning = error = _say

    def lines(self) -> str:
        """What was said since the last time."""
        said, self._lines = "\n".join(self._lines), []
        return said


class Log:
    """The `LogView` port, as far as the light look asks it."""

    def __init__(self, partition: MemoryPartition) -> None:
        self._partition = partition

    async def cursors(self, shards: Sequence[int]) -> Mapping[int, WheelCursor | None]:
        return dict.fromkeys(shards, self._partition.cursors[-1])

    async def spans(
        self, topics: Sequence[str], shards: Sequence[int]
    ) -> Mapping[str, Mapping[int, tuple[int, int]]]:
        return {topic: dict.fromkeys(shards, (0, 12)) for topic in topics}


async def test_a_timer_that_is_gone_is_told_at_the_second_look_and_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said = Said(monkeypatch, quick_look)
    wheel, record, kafka = MemoryWheelView(), MemoryRecord(), MemoryPartition(0)
    rows = [
        Row(
            id=f"00000000-0000-4000-8000-{number:012}",
            pod_id="pod",
            post_id="post",
            member_id=f"member-{number}",
            engagement_type="like",
            status=Status.SCHEDULED,
            scheduled_for_ms=4_000_000_000_000,
            source_partition=0,
        )
        for number in range(3)
    ]
    for row in rows:
        assert record.insert(row)
    timers = [row.timer for row in rows]
    await wheel.take(0, "epoch")
    await wheel.wipe(0, "epoch")
    await wheel.load(0, "epoch", [each for each in timers[1:] if each])
    await wheel.open(0, "epoch", "gen", (0, "nonce"), {})
    kafka.cursors.append(WheelCursor(seq=0, nonce="nonce", gen="gen"))
    log: Any = Log(kafka)
    looking = QuickLook(wheel, record, log, TOPICS, 1)

    first = await looking.run_once()
    assert first.differences == {0: {}}
    assert first.lag == {topic: {0: 12} for topic in INPUTS}
    assert "the stores differ" not in said.lines()
    assert (await looking.run_once()).differences == {0: {Kind.WAITING: 1}}
    assert "pod-automation reconcile --shard 0" in said.lines()
    assert (await looking.run_once()).differences == {0: {Kind.WAITING: 1}}
    assert "pod-automation reconcile" not in said.lines()

    lost = timers[0]
    assert isinstance(lost, Timer)
    await wheel.add(0, POSTS, -1, 0, [lost])
    assert (await looking.run_once()).differences == {0: {}}
    assert "differ no longer" in said.lines()


def free_port() -> int:
    # None that an outgoing connection may get meanwhile.
    return choose_ports(["one"], {})["one"]


REPORT = QuickReport({0: {Kind.WAITING: -3}, 1: {}}, {POSTS: {0: 17, 1: 0}})


def test_metrics_are_served() -> None:
    settings = load_settings(metrics_port=free_port())
    shown = Differences(60.0)
    with served(settings, shown):
        address = f"http://127.0.0.1:{settings.metrics_port}/metrics"
        with urlopen(address, timeout=5) as answer:
            assert b"shard=" not in answer.read()
        shown.tell(REPORT)
        with urlopen(address, timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    name = "pod_automation_reconcile_differences"
    assert f'{name}{{kind="waiting",shard="0"}} 3.0' in lines
    assert f'{name}{{kind="waiting",shard="1"}} 0.0' in lines
    assert f'{name}{{kind="no_wheel",shard="0"}} 0.0' in lines
    assert f'pod_automation_input_lag{{partition="0",topic="{POSTS}"}} 17.0' in lines
    assert any(
        each.startswith("pod_automation_reconcile_last_run_timestamp_seconds 1") for each in lines
    )


def test_a_report_grows_stale() -> None:
    shown = Differences(0.0)
    shown.tell(REPORT)
    assert not any(each.samples for each in shown.collect())


def test_a_port_in_use_is_one_line_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said(monkeypatch, serving)
    settings = load_settings(metrics_port=free_port())
    with served(settings, Differences(60.0)):
        said.lines()
        with served(settings, Differences(60.0)):
            told = said.lines()
    assert "POD_AUTOMATION_METRICS_PORT" in told
    assert len(told.splitlines()) == 1


def test_nor_does_a_host_that_nobody_can_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Said(monkeypatch, serving)
    # Settings refuse this one; which names Python cannot write is Python's to say.
    settings = load_settings(metrics_port=free_port()).model_copy(update={"metrics_host": "a..b"})
    with served(settings, Differences(60.0)):
        assert "POD_AUTOMATION_METRICS_HOST" in said.lines()
