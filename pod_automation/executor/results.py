"""Sends results, and says when each is confirmed by all replicas."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import structlog
from aiokafka.errors import KafkaError

from scheduler.adapters.kafka_producer import RenewableProducer, fetched
from scheduler.backoff import Backoff
from scheduler.kafka_servers import Kafka
from scheduler.tasks import end_if_cancelled
from schemas.codec import encode
from schemas.events import EngagementExecuted
from schemas.headers import Headers, event_headers
from schemas.times import millis

log = structlog.get_logger(__name__)

AT_ONCE = 500
"""Results on their way at a time; the next ones follow when these are confirmed, so that an error
never changes their order."""

REQUEST_MS = 10_000
"""How long one try may take."""


@dataclass(frozen=True, slots=True)
class _Result:
    partition: int
    key: bytes
    value: bytes
    headers: Headers
    confirmed: Callable[[], None]


class ResultSender:
    """Results in the order in which they come, at least once, through any absence of Kafka.

    After a failure the producer is another one.
    """

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._topic = topic
        self._queue: deque[_Result] = deque()
        self._producer = RenewableProducer(kafka, request_ms=REQUEST_MS)
        self._moved = asyncio.Event()

    def put(
        self,
        partition: int,
        result: EngagementExecuted,
        confirmed: Callable[[], None],
        extra: Headers | None = None,
    ) -> None:
        """Have `result` sent into `partition`, with `extra` headers; calls `confirmed` once Kafka
        has it for good."""
        headers = event_headers(EngagementExecuted, result.event_id, millis(result.executed_at))
        headers += extra or ()
        self._queue.append(
            _Result(partition, result.post_id.encode(), encode(result), headers, confirmed)
        )
        self._moved.set()

    async def run(self) -> None:
        """Send what comes, until cancelled; everything that may pass is waited for."""
        backoff = Backoff()
        away = False
        while True:
            await self._until(lambda: bool(self._queue))
            try:
                await self._send(list(islice(self._queue, AT_ONCE)))
            except (KafkaError, OSError, TimeoutError) as error:
                await self._producer.close()
                if not away:
                    away = True
                    log.warning("results wait", reason=str(error) or type(error).__name__)
                await backoff.wait()
            else:
                if away:
                    log.info("results are sent again")
                away = False
                backoff.reset()
            end_if_cancelled()

    async def flushed(self) -> None:
        """Wait until all that was put is confirmed; `run` must be running."""
        await self._until(lambda: not self._queue)

    async def close(self) -> None:
        """Close the producer in bounded time; what is not confirmed may or may not arrive."""
        await self._producer.close()

    async def _send(self, results: list[_Result]) -> None:
        producer = await self._producer.started()
        sent: list[asyncio.Future[object]] = []
        failure: BaseException | None = None
        try:
            for each in results:
                future = await producer.send(
                    self._topic,
                    each.value,
                    key=each.key,
                    partition=each.partition,
                    headers=each.headers,
                )
                future.add_done_callback(fetched)
                sent.append(future)
        except (KafkaError, OSError, TimeoutError) as error:
            failure = error
        # All of them, also after a failure: what has arrived need not be sent again.
        answers = await asyncio.gather(*sent, return_exceptions=True)
        for _ in results:
            self._queue.popleft()
        left = results[len(sent) :]
        for each, answer in zip(reversed(results[: len(sent)]), reversed(answers), strict=True):
            if isinstance(answer, BaseException):
                failure = answer
                left.insert(0, each)
        self._queue.extendleft(reversed(left))
        for each, answer in zip(results, answers, strict=False):
            if not isinstance(answer, BaseException):
                each.confirmed()
        self._moved.set()
        if failure is not None:
            raise failure

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._moved.clear()
            await self._moved.wait()
