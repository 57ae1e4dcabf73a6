"""The executor: reads what is due, has it handled, reports the results, and commits behind them."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from pod_automation.executor.attempt import Attempts, Outcome, now
from pod_automation.executor.checks import check_handler, check_store, seconds
from pod_automation.executor.done import DoneStore
from pod_automation.executor.engagement import Engagement, Handler
from pod_automation.executor.in_hand import InHand, Work
from pod_automation.executor.results import ResultSender
from pod_automation.tracing.carried import carried, header_of
from scheduler.adapters.kafka_consumer import stop as stop_consumer
from scheduler.adapters.kafka_member import check_alive, check_replaced, member, rejoining
from scheduler.adapters.kafka_records import read_foreign_headers
from scheduler.backoff import Backoff
from scheduler.errors import EngineError
from scheduler.settings import Settings
from scheduler.tasks import ended
from schemas.codec import InvalidEvent, decode
from schemas.events import ExecuteEngagement

if TYPE_CHECKING:
    from pod_automation.tracing.spans import Tracing

log = structlog.get_logger(__name__)

POLL_MS = 500
COMMIT_S = 0.5

COMMIT_LIMIT_S = 10.0
"""How long one commit may take: aiokafka tries for ever, also for a consumer that was closed."""

COUNTS_S = 10.0

FETCH_BYTES = 128 * 1024
"""Of one partition at a time: some hundred engagements, beside those that are in hand."""

MAX_AHEAD = 1000
"""Results confirmed behind an engagement that is still in hand. More, and its partition pauses:
after a crash all of them would come again."""

REVOKED_S = 0.4
"""How long a rebalance may wait for what is being handled here, and as long again for the offsets:
until all members have let go, nobody gets what one that has stopped has left behind."""

CLEANUP_S = 3.0
"""Of the grace of a stop: for the results, the offsets and the leave, after the handlers."""


class StuckHandlersError(EngineError):
    """As many handlers as may run at once were given up and go on all the same: the process must
    end, and be started again."""


class Executor:
    """Handles what is on `execute-engagement` with `handle`, and reports on `engagement-executed`.

    At least once: an offset is committed only when the results of it and of all before it in its
    partition are confirmed by Kafka. So a crash at any point has some engagements come again, here
    or elsewhere, with the same idempotency key; with `done`, those it knows are reported as
    executed without another call of the handler.

    A store that is away, Kafka too, is waited for. Everything is bounded: attempts by
    `time_limit_s`, what is in memory by twice the concurrency (ten times with `ordered`) and one
    fetch of each partition.
    """

    def __init__(
        self,
        settings: Settings,
        handle: Handler,
        *,
        concurrency: int | None = None,
        ordered: bool = False,
        done: DoneStore | None = None,
        time_limit_s: float | timedelta | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        """`concurrency`: handlers at a time, by default `settings.queue_concurrency`. `ordered`:
        engagements of one post one after another. `time_limit_s`: after it an attempt counts as
        failed, by default `settings.result_timeout_ms`. `tracing`: makes a span of each attempt.

        Raises `TypeError` for a handler or a store that is not async, and for a time limit that is
        neither a number nor a `timedelta`; `ValueError` for one that is not above 0."""
        check_handler(handle)
        if done is not None:
            check_store(done)
        self._settings = settings
        self._tracing = tracing
        self._concurrency = settings.queue_concurrency if concurrency is None else concurrency
        if self._concurrency < 1:
            raise ValueError("an executor handles at least one engagement at a time")
        self._attempts = Attempts(
            handle,
            time_limit_s=settings.result_timeout_ms / 1000
            if time_limit_s is None
            else seconds(time_limit_s),
            done=done,
        )
        self._in_hand = InHand(
            self._attempt, self._report, concurrency=self._concurrency, ordered=ordered
        )
        topics = settings.topics
        self._topic = topics.execute_engagement
        self._sender = ResultSender(settings.kafka, topics.engagement_executed)
        self._consumer: AIOKafkaConsumer | None = None
        self._committing = asyncio.Lock()
        self._committed: dict[int, int] = {}
        self._commits_wait = False
        self._draining = False
        self.counts: Counter[str] = Counter()
        """Since the start: `executed`, `retryable`, `permanent` (failures), `skipped` (of the
        executed ones, those known as done) and `unreadable` records."""

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set; then finish what is being handled, within the grace of the
        settings, and return. To be called once.

        Raises `StuckHandlersError`, what a handler raises that is no `Exception`, and the engine's
        permanent errors of a store of what is done that refuses; what was done by then has been
        reported.
        """
        read_foreign_headers()
        loops = [
            asyncio.create_task(loop, name=name)
            for name, loop in (
                ("results", self._sender.run()),
                ("intake", self._consume()),
                ("commits", self._commit_now_and_then()),
                ("counts", self._log_counts()),
                ("failure", self._in_hand.until(lambda: self._in_hand.failure is not None)),
            )
        ]
        stopping = asyncio.create_task(_wait(stop), name="stop")
        try:
            await asyncio.wait([stopping, *loops], return_when=asyncio.FIRST_COMPLETED)
            grace_s = self._settings.shutdown_grace_ms / 1000 if stop.is_set() else CLEANUP_S
            await self._drain(grace_s)
            if self._in_hand.failure is not None:
                raise self._in_hand.failure
            for loop in loops:
                if loop.done():
                    loop.result()
        finally:
            self._draining = True
            self._in_hand.hold()
            self._in_hand.cancel()
            await ended(stopping, *loops)
            await self._sender.close()
            log.info("handled in all", **self.counts)

    # What becomes of one engagement.

    async def _attempt(self, engagement: Engagement) -> Outcome:
        if self._tracing is None:
            return await self._attempted(engagement)
        with self._tracing.engaging(engagement) as attempt:
            outcome = await self._attempted(engagement)
            attempt.came_to(outcome.executed)
        return replace(outcome, traceparent=attempt.context)

    async def _attempted(self, engagement: Engagement) -> Outcome:
        outcome = await self._attempts(engagement)
        if len(self._attempts.stuck) >= self._concurrency:
            self._in_hand.failure = self._in_hand.failure or StuckHandlersError(
                f"{len(self._attempts.stuck)} handlers go on after they were cancelled: a handler"
                " must let asyncio.CancelledError through"
            )
        return outcome

    def _report(self, work: Work, outcome: Outcome, confirmed: Callable[[], None]) -> None:
        result = outcome.result(work.engagement, now())
        trace = header_of(outcome.traceparent or work.engagement.traceparent)
        self._sender.put(work.partition, result, confirmed, trace)
        kind = "permanent" if not outcome.retryable else "retryable"
        self.counts["executed" if outcome.executed else kind] += 1
        if outcome.skipped:
            self.counts["skipped"] += 1
        log.debug(
            "handled",
            event_id=result.event_id,
            partition=work.partition,
            offset=work.offset,
            skipped=outcome.skipped,
            error=outcome.error,
            exc_info=outcome.cause,
        )

    # Reading.

    async def _consume(self) -> None:
        backoff = Backoff()
        away = False
        while True:
            consumer = self._new_consumer()
            try:
                await consumer.start()
                self._consumer = consumer
                if away:
                    log.info("reading again")
                away = False
                await self._read(consumer, backoff)
            except (KafkaError, OSError, TimeoutError) as error:
                check_replaced(consumer)
                if not away:
                    log.warning("reading waits", reason=str(error) or type(error).__name__)
                away = True
            finally:
                self._consumer = None
                self._in_hand.hold()
                await stop_consumer(consumer)
            if _cancelling():
                raise asyncio.CancelledError  # a driver has swallowed it
            await backoff.wait()

    def _new_consumer(self) -> AIOKafkaConsumer:
        consumer = member(
            self._settings.kafka,
            self._settings.executor_group,
            self._settings.session_timeout_ms,
            self._settings.instance_of("executor"),
            isolation_level="read_committed",
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        consumer.subscribe([self._topic], listener=_Listener(self._revoked, self._assigned))
        return consumer

    async def _read(self, consumer: AIOKafkaConsumer, backoff: Backoff) -> None:
        while not _cancelling():
            await self._in_hand.until(lambda: self._in_hand.room > 0)
            self._pause(consumer)
            check_alive(consumer)
            found = await consumer.getmany(timeout_ms=POLL_MS, max_records=self._in_hand.room)
            backoff.reset()
            # Nothing is awaited between: the group may take a partition away at every await.
            for tp, records in found.items():
                for record in records:
                    self._in_hand.take(tp.partition, record.offset, self._engagement(record))

    def _pause(self, consumer: AIOKafkaConsumer) -> None:
        paused = consumer.paused()
        for tp in consumer.assignment():
            offsets = self._in_hand.offsets.get(tp.partition)
            ahead = 0 if offsets is None else offsets.ahead
            if ahead >= MAX_AHEAD and tp not in paused:
                consumer.pause(tp)
            elif ahead < MAX_AHEAD // 2 and tp in paused:
                consumer.resume(tp)

    def _engagement(self, record: ConsumerRecord) -> Engagement | None:
        try:
            return Engagement.of(decode(ExecuteEngagement, record.value), carried(record.headers))
        except InvalidEvent as error:
            # The engine alone writes here, so whoever else did is not waiting for a result.
            self.counts["unreadable"] += 1
            log.warning(
                "passed over a record that is no engagement",
                partition=record.partition,
                offset=record.offset,
                reason=error.reason,
            )
            return None

    # The group.

    async def _revoked(self) -> None:
        """A rebalance begins. Handlers go on, for the partition may come back; those that end soon
        are waited for, for it may not. Both together must fit into the rebalance's time."""
        self._in_hand.hold()
        share_s = min(REVOKED_S, self._settings.session_timeout_ms / 1000 / 4)
        await _within(share_s, self._in_hand.until(self._in_hand.settled))
        await _within(share_s, self._commit())

    def _assigned(self, partitions: Collection[int]) -> None:
        self._committed.clear()
        self._in_hand.assigned(partitions)
        log.info("partitions assigned", partitions=sorted(partitions))
        if self._draining:
            self._in_hand.hold()

    # Committing.

    async def _commit_now_and_then(self) -> None:
        while not _cancelling():
            await asyncio.sleep(COMMIT_S)
            # The broker answers a member's requests in turn: behind a join, which waits for all
            # others, it takes this for a commit of the generation before, and the member has to
            # join once more. What could be committed has been (`_revoked`).
            if self._consumer is not None and not rejoining(self._consumer):
                await self._commit()

    async def _commit(self) -> None:
        async with self._committing:
            if (consumer := self._consumer) is None:
                return
            try:
                upto = await self._committable(consumer)
                if upto:
                    await _commit_once(
                        consumer,
                        {TopicPartition(self._topic, each): at for each, at in upto.items()},
                    )
            except (CommitFailedError, IllegalStateError) as error:
                # The group has moved on; what is not committed comes again, wherever that is.
                log.debug("not committed", reason=str(error))
            except (KafkaError, OSError, TimeoutError) as error:
                if not self._commits_wait:
                    log.warning("commits wait", reason=str(error) or type(error).__name__)
                self._commits_wait = True
            else:
                self._commits_wait = False
                self._committed.update(upto)
                for partition, at in upto.items():
                    # It may have been given away while the broker answered.
                    if (offsets := self._in_hand.offsets.get(partition)) is not None:
                        offsets.committed(at)

    async def _committable(self, consumer: AIOKafkaConsumer) -> dict[int, int]:
        found = {}
        assigned = consumer.assignment()
        for partition, offsets in list(self._in_hand.offsets.items()):
            tp = TopicPartition(self._topic, partition)
            if offsets.upto is None or tp not in assigned:
                continue
            at = offsets.upto
            if not offsets.waits():
                # Transactions end in a marker, which is no record: without this a lag of one would
                # be seen for ever.
                position = await consumer.position(tp)
                at = offsets.upto if offsets.waits() else max(at, position)
            if self._committed.get(partition) != at:
                found[partition] = at
        return found

    # The end.

    async def _drain(self, grace_s: float) -> None:
        self._draining = True
        self._in_hand.hold()
        log.info("stopping", in_hand=len(self._in_hand))
        cleanup_s = min(CLEANUP_S, grace_s / 2)
        await _within(grace_s - cleanup_s, self._in_hand.until(self._in_hand.idle))
        if not self._in_hand.idle():
            log.warning("handlers are cancelled; what they did not finish comes again")
            self._in_hand.cancel()
            await _within(cleanup_s / 3, self._in_hand.until(self._in_hand.idle))
        await _within(cleanup_s / 3, self._sender.flushed())
        await _within(cleanup_s / 3, self._commit())

    async def _log_counts(self) -> None:
        known: Counter[str] = Counter()
        while not _cancelling():
            await asyncio.sleep(COUNTS_S)
            if self.counts != known:
                since = self.counts - known
                known = self.counts.copy()
                log.info("handled", in_hand=len(self._in_hand), **since)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka is untyped here
    def __init__(
        self,
        revoked: Callable[[], Awaitable[None]],
        assigned: Callable[[Collection[int]], None],
    ) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """All of them, at each rebalance."""
        await self._revoked()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """What this process has from here on."""
        self._assigned({tp.partition for tp in assigned})


async def _commit_once(consumer: AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    committing = asyncio.create_task(consumer.commit(offsets), name="commit")
    try:
        await asyncio.wait([committing], timeout=COMMIT_LIMIT_S)
    finally:
        if not committing.done():
            committing.cancel()
    if not committing.done():
        await ended(committing)
        raise TimeoutError("Kafka does not take the offsets")
    committing.result()


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


async def _within(seconds: float, work: Awaitable[None]) -> None:
    """Do `work`, and leave it where it takes longer; its errors are ours."""
    task = asyncio.ensure_future(work)
    try:
        # Not wait_for: in Python 3.11 that one can swallow a cancellation.
        await asyncio.wait([task], timeout=max(0.0, seconds))
    finally:
        if not task.done():
            task.cancel()
    if task.done():
        with contextlib.suppress(asyncio.CancelledError):
            task.result()


def _cancelling() -> bool:
    # Drivers use asyncio.wait_for, which in Python 3.11 can swallow a cancellation (gh-86296).
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
