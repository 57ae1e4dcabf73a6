"""The engagements that this process has in hand: waiting, being handled, or not yet confirmed.

Knows nothing of Kafka but partition numbers and offsets. At a rebalance a partition mostly comes
back to its owner; so handlers go on meanwhile, and a record that is read again while its handler
still runs is not handled twice.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from pod_automation.executor.attempt import Outcome
from pod_automation.executor.engagement import Engagement
from pod_automation.executor.offsets import Offsets

WINDOW = 2
"""Engagements in memory, as a multiple of the concurrency: the next one is there at once."""

ORDERED_WINDOW = 10
"""The same where one post's are done one after another: others should be found behind them."""


@dataclass(slots=True, eq=False)
class Work:
    """One engagement in hand, and the record it stands in."""

    partition: int
    offset: int
    engagement: Engagement


class InHand:
    """Runs at most `concurrency` attempts at a time, of one activity never two at once; with
    `ordered` those of one post one after another, in the order of their offsets."""

    def __init__(
        self,
        attempt: Callable[[Engagement], Awaitable[Outcome]],
        report: Callable[[Work, Outcome, Callable[[], None]], None],
        *,
        concurrency: int,
        ordered: bool = False,
    ) -> None:
        """`report` sends the result, and calls what it is given once that is confirmed."""
        self._attempt = attempt
        self._report = report
        self._concurrency = concurrency
        self._ordered = ordered
        self.window = concurrency * (ORDERED_WINDOW if ordered else WINDOW)
        self.offsets: dict[int, Offsets] = {}
        self.failure: BaseException | None = None
        """What ended an attempt that was not the engagement's own: whoever runs this must end."""
        self._feeding = True
        self._waiting: deque[Work] = deque()
        self._running: dict[asyncio.Task[None], Work] = {}
        self._busy: set[str] = set()
        self._held: dict[tuple[int, int], Work] = {}
        self._moved = asyncio.Event()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def room(self) -> int:
        """How many may be taken now."""
        return max(0, self.window - len(self._held)) if self._feeding else 0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for `condition`; it is looked at whenever anything has changed here."""
        while not condition():
            self._moved.clear()
            await self._moved.wait()

    def idle(self) -> bool:
        """Whether no attempt runs."""
        return not self._running

    def settled(self) -> bool:
        """Whether no attempt runs, and all results are confirmed."""
        return not self._running and len(self._held) == len(self._waiting)

    def take(self, partition: int, offset: int, engagement: Engagement | None) -> None:
        """A record was read. None: there is nothing to do about it."""
        offsets = self.offsets.setdefault(partition, Offsets())
        if not offsets.take(offset):
            return
        if engagement is None:
            offsets.done(offset)
            return
        if (partition, offset) in self._held or not self._feeding:
            return
        work = Work(partition, offset, engagement)
        self._supersede(work)
        self._held[partition, offset] = work
        self._waiting.append(work)
        self._start()

    def _supersede(self, work: Work) -> None:
        """End earlier attempts of the same activity. The engine has given them up, or there would
        be no later one; and a handler that hangs must not keep that from its turn."""

        def given_up(other: Work) -> bool:
            return (
                other.engagement.activity_id == work.engagement.activity_id
                and other.engagement.attempt < work.engagement.attempt
            )

        waiting = [other for other in self._waiting if given_up(other)]
        running = [other for other in self._running.values() if given_up(other)]
        self.cancel(given_up)
        for other in waiting:
            self._waiting.remove(other)
        for other in (*waiting, *running):
            # No result is owed for it.
            self._confirmed(other)

    def hold(self) -> None:
        """Begin nothing more; what has not begun is dropped, and stays uncommitted."""
        self._feeding = False
        for work in self._waiting:
            del self._held[work.partition, work.offset]
        self._waiting.clear()
        self._moved.set()

    def assigned(self, partitions: Collection[int]) -> None:
        """These partitions are read from here on, from what is committed, and no others: attempts
        of others are cancelled, unless their results are on the way."""
        for partition in list(self.offsets):
            if partition in partitions:
                self.offsets[partition].restart()
            else:
                del self.offsets[partition]
        self.cancel(lambda work: work.partition not in partitions)
        self._feeding = True
        self._moved.set()

    def cancel(self, which: Callable[[Work], bool] = lambda _: True) -> None:
        """End attempts before their time, without results."""
        for task, work in self._running.items():
            if which(work):
                # At once: read again while this one still cleans up, it is new work.
                self._drop(work)
                task.cancel()

    def _start(self) -> None:
        while self._feeding and len(self._running) < self._concurrency:
            work = next((each for each in self._waiting if self._key(each) not in self._busy), None)
            if work is None:
                return
            self._waiting.remove(work)
            self._busy.add(self._key(work))
            task = asyncio.create_task(self._run(work), name="attempt")
            self._running[task] = work
            task.add_done_callback(self._ended)

    def _key(self, work: Work) -> str:
        return work.engagement.post_id if self._ordered else work.engagement.activity_id

    async def _run(self, work: Work) -> None:
        outcome = await self._attempt(work.engagement)
        self._report(work, outcome, lambda: self._confirmed(work))

    def _ended(self, task: "asyncio.Task[None]") -> None:
        work = self._running.pop(task)
        self._busy.discard(self._key(work))
        if task.cancelled():
            self._drop(work)
        elif (error := task.exception()) is not None:
            self._drop(work)
            self.failure = self.failure or error
        self._start()
        self._moved.set()

    def _confirmed(self, work: Work) -> None:
        self._drop(work)
        if (offsets := self.offsets.get(work.partition)) is not None:
            offsets.done(work.offset)
        self._moved.set()

    def _drop(self, work: Work) -> None:
        if self._held.get((work.partition, work.offset)) is work:
            del self._held[work.partition, work.offset]
