"""Second looks: whether what does not agree at first sight is a difference, or just under way.

For some activities at a time, in this order (why it has no false alarms: `scheduler.reconcile`):

1. their rows, with the watermarks of that very moment;
2. wait until the wheel has come as far, in the same life;
3. where their timers are, all in one moment of that life;
4. what Kafka has had by now of what the rows of step 1 may not know yet;
5. their rows again. One that has changed begins anew at step 1.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from scheduler.activity import Standing
from scheduler.compare import NOWHERE, Known, row_side, timer_for, timer_side, told
from scheduler.difference import Kind
from scheduler.findings import UNREAD, Findings
from scheduler.mentions import dispatched, reported
from scheduler.ports import MAX_FIND, LogView, Placed, Record, Sight, WheelMeta, WheelView
from scheduler.timer import Timer
from schemas.topics import Topics

AT_ONCE = MAX_FIND // 2
"""Activities of one look: each asks for two timers at most."""

LOOK_S = 0.05
"""How often it is looked whether a store has come as far as another."""

READ_S = 30.0
"""How long reading a stretch of a log may take, at least."""

BEHIND = "the wheel is behind the record"
MOVING = "they change all the time"


class AnotherLife(Exception):  # noqa: N818 - not an error: the look begins anew
    """The wheel has been rebuilt, or was lost, since the look began."""


class Limit(Protocol):
    """A time limit of one wait."""

    def over(self) -> bool:
        """Whether it is over."""


class Candidate(Struct, frozen=True):
    """An activity that does not agree at first sight; `placed` is its timer, if one was found."""

    activity_id: str
    placed: Placed | None = None


class Stores(Struct, frozen=True):
    """The three stores, and what holds for all looks at them.

    `limit` begins a time limit for one wait of `timeout_s`.
    """

    wheel: WheelView
    record: Record
    log: LogView
    topics: Topics
    await_ms: int
    timeout_s: float
    limit: Callable[[], Limit]
    sleep: Callable[[float], Awaitable[object]]

    @property
    def read_s(self) -> float:
        """How long reading a stretch of a log may take."""
        return max(READ_S, self.timeout_s)


class SecondLook:
    """Decides about activities of one shard, in one life of its wheel."""

    def __init__(self, shard: int, gen: str, stores: Stores, findings: Findings) -> None:
        """What is decided goes into `findings`."""
        self._shard = shard
        self._gen = gen
        self._stores = stores
        self._findings = findings
        self._stuck = False

    async def decide(self, candidates: Sequence[Candidate]) -> None:
        """Decide about all of them. Raises `AnotherLife`, and what the stores raise."""
        for start in range(0, len(candidates), AT_ONCE):
            left = candidates[start : start + AT_ONCE]
            limit = self._stores.limit()
            while left:
                if limit.over():
                    self._findings.undecided(MOVING, len(left))
                    break
                # It ends: an activity changes a few times in its life, and no more.
                left = await self._look(left)

    async def caught_up(self, marks: Mapping[str, int]) -> Mapping[str, int]:
        """Wait until the wheel has what the record had at the watermarks `marks`; returns those of
        its own watermarks that have not come as far in time."""
        inputs = self._stores.topics.inputs
        limit = self._stores.limit()
        while True:
            meta = self.same(await self._stores.wheel.meta(self._shard))
            behind = {
                topic: meta.watermarks.get(topic, -1)
                for topic in inputs
                if meta.watermarks.get(topic, -1) < marks.get(topic, -1)
            }
            if not behind:
                self._stuck = False
                return behind
            # Who has waited once for what does not move need not wait for it again.
            if self._stuck or limit.over():
                self._stuck = True
                return behind
            await self._stores.sleep(LOOK_S)

    def same(self, meta: WheelMeta) -> WheelMeta:
        """`meta`, if it is of the life that is looked at. Raises `AnotherLife`."""
        if meta.gen != self._gen:
            raise AnotherLife
        return meta

    async def _look(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """One look; returns those that have changed meanwhile."""
        stores = self._stores
        marks, rows = await self._rows(candidates)
        if await self.caught_up(marks):
            self._findings.undecided(BEHIND, len(candidates))
            return []
        asked: list[Timer] = []
        for each in candidates:
            row = rows.get(each.activity_id)
            asked += [timer_for(row)] if row else []
            asked += [each.placed.timer] if each.placed else []
        sighting = await stores.wheel.find(self._shard, asked)
        self.same(sighting.meta)
        sights = iter(sighting.sights)
        cases: list[_Case] = []
        for each in candidates:
            row = rows.get(each.activity_id)
            own = next(sights) if row else NOWHERE
            cases.append(_Case(each, row, own, next(sights) if each.placed else NOWHERE))
        known = Known(
            self._shard, stores.await_ms, sighting.now_ms, marks.get(stores.topics.pod_commands, -1)
        )
        wrong = [(case, kind) for case in cases if (kind := case.verdict(known))]
        if not wrong:
            return []
        try:
            async with asyncio.timeout(stores.read_s):
                known = await self._known(known, marks, wrong)
        except TimeoutError:
            self._findings.undecided(UNREAD, len(wrong))
            return []
        wrong = [(case, kind) for case, _ in wrong if (kind := case.verdict(known))]
        _, again = await self._rows([case.candidate for case, _ in wrong])
        moved = []
        for case, kind in wrong:
            name = case.candidate.activity_id
            if _version(case.row) != _version(again.get(name)):
                moved.append(case.candidate)
            else:
                found = told(kind, name, case.row, case.own, case.candidate.placed)
                self._findings.add(found, case.row)
        return moved

    async def _rows(
        self, candidates: Sequence[Candidate]
    ) -> tuple[Mapping[str, int], Mapping[str, Standing]]:
        async with self._stores.record.snapshot(self._shard) as snapshot:
            rows = await snapshot.standings([each.activity_id for each in candidates])
            return snapshot.watermarks, rows

    async def _known(
        self, known: Known, marks: Mapping[str, int], wrong: "Sequence[tuple[_Case, Kind]]"
    ) -> Known:
        """`known`, with what Kafka has had behind `marks` of those that it matters for."""
        log, topics = self._stores.log, self._stores.topics
        statuses, results = topics.engagement_status, topics.engagement_executed
        unsent = {case.candidate.activity_id for case, kind in wrong if kind in _SENT_MATTERS}
        unanswered = {
            case.candidate.activity_id for case, kind in wrong if kind is Kind.MISSING_DEADLINE
        }
        if not unsent and not unanswered:
            return known
        # Behind all that was committed when the wheel was looked at.
        spans = await log.spans([statuses, results], [self._shard])
        if unsent:
            start, end = marks.get(statuses, -1) + 1, spans[statuses][self._shard][1]
            sent = await dispatched(log, statuses, self._shard, start, end, unsent)
            known = replace(known, sent=sent.attempts)
        if unanswered:
            start, end = marks.get(results, -1) + 1, spans[results][self._shard][1]
            said = await reported(log, results, self._shard, start, end, unanswered)
            known = replace(known, reported=said.attempts)
        return known


_SENT_MATTERS = (Kind.MISSING_TIMER, Kind.SENT_BEFORE)


class _Case(Struct, frozen=True):
    candidate: Candidate
    row: Standing | None
    own: Sight
    seen: Sight

    def verdict(self, known: Known) -> Kind | None:
        placed = self.candidate.placed
        wrong = timer_side(placed, self.row, self.own, self.seen, known) if placed else None
        if wrong is None and self.row is not None:
            wrong = row_side(self.row, self.own, known)
        return wrong


def _version(row: Standing | None) -> int | None:
    return None if row is None else row.version
