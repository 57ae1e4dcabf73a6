"""What the metrics of worker and dispatcher say, and that their labels stay few."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.registry import Collector

from pod_automation.metrics import Applying, Firing
from pod_automation.metrics.applying import OTHER, REASONS, kind_of
from pod_automation.metrics.histogram import Histogram
from scheduler.activity import Announcement, Status
from scheduler.adapters.memory_wheel import MemoryWheel
from scheduler.dispatch import Turn
from scheduler.errors import StoreUnavailableError
from scheduler.ports import Outbox, SourceRecord, Wheel
from scheduler.timer import Timer

ROOT = Path(__file__).parents[2]
NOW_MS = 1_795_507_200_000


def samples(collector: Collector) -> Mapping[str, float]:
    """Values by name and labels, as Prometheus would write them."""
    found = {}
    for metric in collector.collect():
        for sample in metric.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return found


def timer(kind: str, due_ms: int) -> Timer:
    return Timer(
        "activity", "pod", "post", "member", "like" if kind == "like" else "comment", 1, due_ms
    )


@given(
    st.lists(st.lists(st.integers(0, 500)), max_size=5),
    st.lists(st.integers(0, 500), unique=True).map(sorted),
)
def test_a_histogram_counts_as_if_one_by_one(
    batches: Sequence[Sequence[int]], bounds: Sequence[int]
) -> None:
    histogram = Histogram("h", "about", bounds)
    for batch in batches:
        histogram.add(batch)
    values = [value for batch in batches for value in batch]
    (shown,) = histogram.collect()
    found = {
        sample.labels.get("le", sample.name.rpartition("_")[2]): sample.value
        for sample in shown.samples
    }
    expected: dict[str, float] = {
        f"{bound / 1000:g}": sum(value <= bound for value in values) for bound in bounds
    }
    expected["+Inf"] = expected["count"] = len(values)
    assert found.pop("sum") == pytest.approx(sum(values) / 1000)
    assert found == expected


def test_a_dispatcher_tells_what_it_fired_and_how_late() -> None:
    firing = Firing()
    firing.taken(3, rebuilt=True)
    firing.taken(4, rebuilt=False)
    timers = [timer("like", NOW_MS - 7), timer("comment", NOW_MS - 30_000), timer("like", NOW_MS)]
    firing.turned(3, Turn(timers, None, at_ms=NOW_MS, commit_s=0.004, timeouts=2))
    firing.turned(4, Turn((), 0, at_ms=NOW_MS, commit_s=0.2, overdue=5))
    firing.left(4)
    found = samples(firing)
    assert found["pod_automation_fired_total{type=like}"] == 2
    assert found["pod_automation_fired_total{type=comment}"] == 1
    assert found["pod_automation_timeouts_total"] == 2
    assert found["pod_automation_overdue_total"] == 5
    assert found["pod_automation_takeovers_total"] == 2
    assert found["pod_automation_rebuilds_total"] == 1
    assert found["pod_automation_shards_owned"] == 1
    late = "pod_automation_lateness_seconds"
    assert found[f"{late}_bucket{{le=0.001}}"] == 1
    assert found[f"{late}_bucket{{le=0.01}}"] == 2
    assert found[f"{late}_count"] == 3
    assert found[f"{late}_sum"] == pytest.approx(30.007)
    assert found["pod_automation_transaction_seconds_count"] == 2
    assert found["pod_automation_transaction_seconds_bucket{le=0.005}"] == 1


class Clockwork(MemoryWheel):
    """A wheel that can be away, and says when it was asked for the time."""

    def __init__(self, now_ms: int) -> None:
        super().__init__(now_ms=lambda: now_ms)
        self.away = False
        self.asked = asyncio.Event()

    async def now_ms(self) -> int:
        self.asked.set()
        if self.away:
            raise StoreUnavailableError("Redis", "away")
        return await super().now_ms()


async def test_a_dispatcher_looks_at_its_wheels_and_the_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pod_automation.metrics.firing.LOOK_S", 0)
    wheel = Clockwork(NOW_MS)
    await wheel.take(0, "epoch")
    await wheel.wipe(0, "epoch")
    await wheel.load(0, "epoch", [timer("like", NOW_MS - 5000), timer("comment", NOW_MS + 60_000)])
    await wheel.open(0, "epoch", "gen", (0, "nonce"), {})
    firing = Firing()
    firing.taken(0, rebuilt=False)
    wheel.away = True
    looking = asyncio.create_task(firing.look(cast(Wheel, wheel)))
    try:
        await wheel.asked.wait()
        assert "pod_automation_clock_ahead_seconds" not in samples(firing)
        wheel.away = False
        for _ in range(100):
            await asyncio.sleep(0)
        found = samples(firing)
    finally:
        looking.cancel()
    assert found["pod_automation_wheel_timers{shard=0,state=pending}"] == 2
    assert found["pod_automation_wheel_timers{shard=0,state=due}"] == 1
    assert found["pod_automation_oldest_due_seconds{shard=0}"] >= 5
    firing.left(0)
    assert not any("wheel_timers" in name for name in samples(firing))


class KeptOutbox:
    """The `Outbox` port, which may refuse."""

    def __init__(self) -> None:
        self.away = False

    async def announce(self, _shard: int, _statuses: Sequence[Announcement]) -> None:
        if self.away:
            raise StoreUnavailableError("Kafka", "away")

    async def dead_letter(
        self, _record: SourceRecord, _reason: str, _extra: Iterable[object] = ()
    ) -> None:
        if self.away:
            raise StoreUnavailableError("Kafka", "away")

    async def forward(self, _record: SourceRecord, _partition: int) -> None: ...


async def test_a_worker_counts_what_was_confirmed() -> None:
    applying, kept = Applying(["posts", "results"]), KeptOutbox()
    outbox = applying.counting(cast(Outbox, kept))
    scheduled = Announcement("a", "pod", "post", "m", "like", Status.SCHEDULED, 1, NOW_MS)
    record = SourceRecord("posts", 0, 1, None, b"{", ())
    await outbox.announce(0, [scheduled, scheduled])
    await outbox.dead_letter(record, "not JSON: because")
    await outbox.forward(record, 1)
    kept.away = True
    with pytest.raises(StoreUnavailableError):
        await outbox.announce(0, [scheduled])
    with pytest.raises(StoreUnavailableError):
        await outbox.dead_letter(record, "not JSON: because")
    found = {name: value for name, value in samples(applying).items() if name.endswith("}")}
    assert {name: value for name, value in found.items() if value} == {
        "pod_automation_statuses_total{status=scheduled,type=like}": 2,
        "pod_automation_dead_letters_total{reason=not_json,topic=posts}": 1,
    }
    # The others begin at 0, or their first would not show as an increase.
    assert "pod_automation_dead_letters_total{reason=empty,topic=results}" in found
    assert "pod_automation_statuses_total{status=failed,type=comment}" in found


def test_reasons_that_are_documented_are_told_apart() -> None:
    page = (ROOT / "docs" / "events.md").read_text("utf-8")
    table = page[page.index("| reason | cause |") :].partition("\n\n")[0]
    reasons = [
        reason.strip(" `")
        for line in table.splitlines()[2:]
        for reason in re.findall(r"`` ?.+? ?``|`[^`]+`", line.split(" | ")[0])
    ]
    kinds = {reason: kind_of(reason) for reason in reasons}
    assert {kind for kind in kinds.values() if kind != OTHER} == {kind for _, kind in REASONS}
    bugs = ("cannot be planned: …", "cannot be judged: …", "cannot be applied: …")
    assert {kinds[reason] for reason in bugs} == {"bug"}
    assert kinds["not UTF-8: …"] == kinds["not JSON: …"] == "not_json"


@given(st.text())
def test_no_reason_becomes_a_label(reason: str) -> None:
    assert kind_of(reason) in {OTHER, *(kind for _, kind in REASONS)}
