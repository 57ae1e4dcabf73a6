"""Sends dead letters through the normal door: to where they came from, as they were.

First sent and confirmed, then marked. Whoever dies between the two leaves a letter that was sent
and is not marked, and that will be sent again: the engine takes a record that comes twice for what
it is. In the other order such a letter would be marked and never have been sent.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiokafka.errors import KafkaError

from pod_automation.cli.loop import ANSWER_S, answer
from pod_automation.dead_letters.letter import Letter, not_replayable, replayed_headers
from scheduler.adapters.kafka_errors import TOO_LARGE, translated
from scheduler.adapters.kafka_producer import RenewableProducer
from scheduler.adapters.postgres_replays import PostgresReplays, Sent
from scheduler.errors import EngineError, PermanentError, StoreUnavailableError
from scheduler.outcome import plain
from scheduler.settings import Settings
from schemas.events import MAX_ID_CHARS

BATCH_BYTES = 512 * 1024
GIVE_UP_S = 30.0
"""How long Kafka may be away before letters count as not sent."""

_Result = int | BaseException


@dataclass(slots=True)
class Replayed:
    """What became of some letters.

    `sent` are in Kafka; `marked`, unless `error` says that PostgreSQL was away by then. `already`
    were replayed before and left alone; `refused` are those that cannot be sent, and why. `error`
    is what kept the rest, of which some may have been sent.
    """

    sent: list[Sent] = field(default_factory=list)
    already: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    marked: bool = False
    error: EngineError | None = None


class Replayer:
    """Sends and marks. At least once."""

    def __init__(
        self,
        settings: Settings,
        replays: PostgresReplays,
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> None:
        """`actor` and `reason` tell the audit who replays, and why."""
        self._settings = settings
        self._actor = actor
        # As PostgreSQL takes it; it is written down behind the sending.
        self._reason = plain(reason, MAX_ID_CHARS) or None
        self._replays = replays
        self._producer = RenewableProducer(
            settings.kafka, request_ms=int(GIVE_UP_S * 1000 / 2), batch_bytes=BATCH_BYTES
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._producer.close()

    async def replay(self, letters: Sequence[Letter], *, again: bool = False) -> Replayed:
        """Send `letters`, of which no id may come twice, in their order within a partition.

        One that was replayed before is left alone unless `again`. Several who replay at once take
        turns, so that none is sent by two of them. Raises `StoreUnavailableError` when PostgreSQL
        is away before anything was sent; after that nothing but a cancellation is raised.
        """
        done = Replayed()
        for each in letters:
            if (why := not_replayable(each, self._settings)) is not None:
                done.refused[each.id] = why
        due = [each for each in letters if each.id not in done.refused]
        try:
            async with self._replays.alone() as transaction:
                before = await transaction.of([each.id for each in due])
                if not again:
                    done.already = [each.id for each in due if each.id in before]
                    due = [each for each in due if each.id not in before]
                await self._send(due, done)
                if done.sent:
                    await transaction.mark(done.sent, self._actor, self._reason)
            done.marked = True
        except EngineError as error:
            if not done.sent:
                raise
            done.error = error
        return done

    async def _send(self, letters: Sequence[Letter], done: Replayed) -> None:
        results = await self._confirmed(letters)
        if any(isinstance(each, TOO_LARGE) for each in results):
            # What is refused leaves a hole in the producer's sequence, over which those behind it
            # have stumbled: once more, one by one.
            for place, result in enumerate(results):
                if isinstance(result, BaseException):
                    await self._producer.close()
                    (results[place],) = await self._confirmed([letters[place]])
        for letter, result in zip(letters, results, strict=True):
            if isinstance(result, int):
                topic, partition, _ = _source(letter)
                done.sent.append(Sent(letter.id, topic, partition, result))
            elif isinstance(result, TOO_LARGE):
                done.refused[letter.id] = "the broker finds it too large for its topic"
            elif done.error is None:
                done.error = _meant(result)
        if done.error is not None:
            await self._producer.close()

    async def _confirmed(self, letters: Sequence[Letter]) -> list[_Result]:
        """For each letter the offset it got, or why it got none."""
        sending: list[asyncio.Future[Any]] = []
        failed: BaseException | None = None
        try:
            for each in letters:
                sending.append(await self._shipped(each))  # noqa: PERF401 - kept when one fails
        except (KafkaError, OSError, TimeoutError, EngineError) as error:
            failed = error
        if sending:
            await asyncio.wait(sending, timeout=GIVE_UP_S)
        results: list[_Result] = [_result(each) for each in sending]
        late = failed or StoreUnavailableError("Kafka", "not sent")
        return results + [late] * (len(letters) - len(results))

    async def _shipped(self, letter: Letter) -> "asyncio.Future[Any]":
        producer = await answer("Kafka", self._producer.started(), ANSWER_S)
        topic, partition, _ = _source(letter)
        # A batch of one, since `send` refuses a record without key and value, which exists.
        batch = producer.create_batch()
        batch.append(
            timestamp=None, key=letter.key, value=letter.value, headers=replayed_headers(letter)
        )
        batch.close()
        # Waits while a batch of this partition is still in line.
        sent: asyncio.Future[Any] = await producer.send_batch(batch, topic, partition=partition)
        return sent


def _source(letter: Letter) -> tuple[str, int, int]:
    if letter.source is None:
        raise PermanentError(f"{letter.id} has no source")
    return letter.source


def _result(sending: "asyncio.Future[Any]") -> _Result:
    if not sending.done():
        return StoreUnavailableError("Kafka", f"no answer within {GIVE_UP_S:.0f} s")
    if sending.cancelled():
        return StoreUnavailableError("Kafka", "the producer was closed")
    error = sending.exception()
    return int(sending.result().offset) if error is None else error


def _meant(error: BaseException) -> EngineError:
    if isinstance(error, EngineError):
        return error
    try:
        with translated():
            raise error
    except EngineError as meant:
        return meant
