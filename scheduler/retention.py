"""Retention: removes what has come to its end and need not be kept. docs/retention.md.

Each pod is read through in pages, and each of its surplus rows is removed by a statement of its
own batch, so that neither memory nor any lock grows with the pod. Nothing depends on who prunes, or
on how many do: a batch removes only rows that are still as they were read.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from heapq import heappush, heappushpop
from typing import Protocol

from msgspec import Struct

from scheduler.activity import Status
from scheduler.errors import WheelLostError
from scheduler.ports import Wheel
from scheduler.settings import Settings
from scheduler.tasks import end_if_cancelled

BATCH = 1000
"""Rows of one statement, of some ten milliseconds: an ingest may have to wait for one."""

MOST_HELD = 20 * BATCH
"""Surplus rows of a pod that are looked for before they are removed: some megabytes."""

NOTES_A_PASS = 10_000
"""Notes of removed rows looked at in one pass; all of them would be too many each minute."""


class Limits(Struct, frozen=True):
    """What is kept of each pod: the newest, as far as they are not older than so many days.

    Failed, cancelled and expired activities share one allowance. Commands, whosever they are, are
    kept by their age alone.
    """

    executed_count: int
    executed_days: float
    failed_count: int
    failed_days: float
    command_days: float = 365.0

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Those that `settings` name."""
        return cls(
            settings.completed_job_keep_count,
            settings.completed_job_age_days,
            settings.failed_job_keep_count,
            settings.failed_job_age_days,
            settings.audit_age_days,
        )

    @property
    def note_days(self) -> float:
        """How long it is remembered what was removed."""
        return max(self.executed_days, self.failed_days)


class Ended(Struct, frozen=True, order=True, gc=False):
    """An activity that has come to its end, at `ended_us` (microseconds UTC); the newest is last.

    `aged`: older than its limit. `version` differs after every change. `planned_id` is the id
    that the planner would give it, where it has another one. `shard`, `result_offset` and
    `command_offset` as in `ActivityRow`.
    """

    ended_us: int
    activity_id: str
    status: Status
    aged: bool
    version: int
    planned_id: str = ""
    shard: int | None = None
    result_offset: int | None = None
    command_offset: int | None = None


class Archive(Protocol):
    """The record, as far as retention goes. Every call raises `StoreUnavailableError`."""

    async def next_pod(self, after: str | None) -> str | None:
        """The pod that follows on `after` (None: the first); None behind the last."""

    def ended(self, pod_id: str, limits: Limits) -> AsyncGenerator[Sequence[Ended], None]:
        """The pod's activities that have come to their end, as of one moment, in pages.

        To be closed: it may hold a connection. No other call before that.
        """

    async def remove(self, activities: Sequence[Ended]) -> Mapping[Status, int]:
        """Remove those that are still as they were read, and note what they were, in one statement.

        Returns how many were removed, by status. One that somebody has changed, or is changing,
        stays.
        """

    async def forget(self, after: str | None, count: int, days: float) -> str | None:
        """Of the `count` posts that follow on `after`: forget what was removed of those of which
        nothing was removed in the last `days`. Returns where to go on; None behind the last."""

    async def forget_commands(self, days: float, count: int) -> None:
        """Remove commands that were applied more than `days` ago, `count` at most."""


Acked = Callable[[], Awaitable[Mapping[str, Mapping[int, int]]]]
"""Asks how far workers have acked each topic, by partition (`adapters.kafka_acked`)."""


class Settled(Struct, frozen=True):
    """How far each shard has got with results and with commands, to the very end: they have reached
    its wheel, and what they have ended has been told."""

    results: Mapping[int, int]
    commands: Mapping[int, int]

    def covers(self, each: Ended) -> bool:
        """Whether what ended the activity is done with.

        Until then a timer of it may be in the wheel, and only the row tells that it must go; and
        only the row tells of its end, should the worker die before it has announced that.
        """
        if each.shard is None:
            return True
        return (
            each.result_offset is None or each.result_offset <= self.results.get(each.shard, -1)
        ) and (
            each.command_offset is None or each.command_offset <= self.commands.get(each.shard, -1)
        )


async def settled(wheel: Wheel, acked: Acked, settings: Settings) -> Settled:
    """How far `wheel` has got by now, and the workers; a shard that is being rebuilt is nowhere.

    Raises `StoreUnavailableError`.
    """

    told = await acked()

    async def marks(topic: str) -> dict[int, int]:
        found = {}
        for shard in range(settings.partitions):
            try:
                at = await wheel.watermark(shard, topic)
            except WheelLostError:
                continue
            found[shard] = min(at, told[topic].get(shard, -1))
        return found

    return Settled(
        await marks(settings.topics.engagement_executed), await marks(settings.topics.pod_commands)
    )


class Pruned(Struct, frozen=True):
    """What a pass has removed, or would remove, and what it has kept, by final status."""

    pods: int
    kept: Mapping[Status, int]
    removed: Mapping[Status, int]

    @property
    def total_removed(self) -> int:
        """Over all statuses."""
        return sum(self.removed.values())


class Retention:
    """Prunes all pods in turn, and rests for as long as it has worked: ingest goes first."""

    def __init__(
        self,
        archive: Archive,
        limits: Limits,
        settled: Callable[[], Awaitable[Settled]],
        *,
        batch: int = BATCH,
        most_held: int = MOST_HELD,
    ) -> None:
        """`settled` tells what the wheels have got; see `Settled`."""
        self._archive = archive
        self._limits = limits
        self._settled = settled
        self._batch = batch
        self._most_held = most_held
        self._forgotten_upto: str | None = None

    async def run_once(self) -> Pruned:
        """One pass over all pods, and over the next of the notes. Raises `TransientError`; may be
        cancelled at any time: what was removed is noted."""
        pruned = await self.prune()
        await self.forget_some()
        return pruned

    async def prune(self, pod_id: str | None = None, *, dry_run: bool = False) -> Pruned:
        """Remove the surplus of one pod, or of all; with `dry_run` only count it."""
        marks = await self._settled()
        pods = 0
        kept: Counter[Status] = Counter()
        removed: Counter[Status] = Counter()
        prune_pod = self._count_pod if dry_run else self._prune_pod
        async for pod in self._pods(pod_id):
            pods += 1
            await prune_pod(pod, marks, kept, removed)
        return Pruned(pods, kept, removed)

    async def forget_some(self) -> bool:
        """Forget what is no longer needed among the next of the notes; False once it is through
        with all of them, and begins again."""
        began_s = _now_s()
        self._forgotten_upto = await self._archive.forget(
            self._forgotten_upto, NOTES_A_PASS, self._limits.note_days
        )
        await self._archive.forget_commands(self._limits.command_days, NOTES_A_PASS)
        await _rest(began_s)
        return self._forgotten_upto is not None

    async def _pods(self, only: str | None) -> AsyncIterator[str]:
        if only is not None:
            yield only
            return
        pod = await self._archive.next_pod(None)
        while pod is not None:
            yield pod
            pod = await self._archive.next_pod(pod)

    async def _prune_pod(
        self, pod_id: str, marks: Settled, kept: Counter[Status], removed: Counter[Status]
    ) -> None:
        while True:
            # Removed only after reading has ended: what is being read keeps vacuum from the rows.
            began_s = _now_s()
            seen: Counter[Status] = Counter()
            found: list[Ended] = []
            whole = True
            async with aclosing(self._surplus(pod_id, marks, seen)) as pages:
                async for page in pages:
                    found += page
                    if len(found) >= self._most_held:
                        whole = False
                        break
            await _rest(began_s)
            gone: Counter[Status] = Counter()
            for at in range(0, len(found), self._batch):
                began_s = _now_s()
                gone.update(await self._archive.remove(found[at : at + self._batch]))
                await _rest(began_s)
            removed.update(gone)
            if whole or not gone:
                kept.update(seen - gone)
                return

    async def _count_pod(
        self, pod_id: str, marks: Settled, kept: Counter[Status], removed: Counter[Status]
    ) -> None:
        began_s = _now_s()
        seen: Counter[Status] = Counter()
        surplus: Counter[Status] = Counter()
        async with aclosing(self._surplus(pod_id, marks, seen)) as pages:
            async for page in pages:
                surplus.update(each.status for each in page)
        kept.update(seen - surplus)
        removed.update(surplus)
        await _rest(began_s)

    async def _surplus(
        self, pod_id: str, marks: Settled, seen: Counter[Status]
    ) -> AsyncGenerator[list[Ended], None]:
        """What need not be kept of the pod, in pages; right however early it is left: whatever is
        pushed out of the newest has enough newer ones."""
        executed = _Newest(self._limits.executed_count)
        others = _Newest(self._limits.failed_count)
        async with aclosing(self._archive.ended(pod_id, self._limits)) as pages:
            async for page in pages:
                found = []
                for each in page:
                    seen[each.status] += 1
                    newest = executed if each.status is Status.EXECUTED else others
                    surplus = each if each.aged else newest.pushed_out_by(each)
                    if surplus is not None and marks.covers(surplus):
                        found.append(surplus)
                yield found
                end_if_cancelled()


class _Newest:
    """The newest few of what has come by, in memory of that size."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._heap: list[Ended] = []

    def pushed_out_by(self, each: Ended) -> Ended | None:
        """The one that is no longer among the newest, now that there is `each`; maybe itself."""
        if len(self._heap) < self._count:
            heappush(self._heap, each)
            return None
        return heappushpop(self._heap, each)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def _rest(began_s: float) -> None:
    """Rest for as long as the work has taken since `began_s`."""
    end_if_cancelled()
    await asyncio.sleep(_now_s() - began_s)
