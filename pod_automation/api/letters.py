"""Dead letters for the API: listed, shown, replayed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from pod_automation.api.kept import Kept
from pod_automation.api.problems import ProblemError
from pod_automation.cli.loop import answer
from pod_automation.dead_letters.choice import Choice
from pod_automation.dead_letters.index import Entry, Index
from pod_automation.dead_letters.letter import Letter, not_replayable
from pod_automation.dead_letters.reading import DeadLetters
from pod_automation.dead_letters.replaying import Replayer
from pod_automation.dead_letters.showing import Replays, entry_json, letter_json
from scheduler.adapters.postgres_replays import PostgresReplays
from scheduler.errors import StoreUnavailableError
from scheduler.settings import Settings

MOST_LISTED = 500

AT_ONCE = 2
"""Readings of the topic for those who look: each takes all of it, from its beginning."""

READ_S = 30.0
"""How long one may take, and the wait for its turn."""

_T = TypeVar("_T")


class Letters:
    """Dead letters for those who look at them, however many do."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._newest = Kept(self._read)

    async def listed(self, limit: int) -> dict[str, Any]:
        """The newest letters, each once, and how many there are."""
        async with _in_time():
            total, newest = await self._newest.value()
        found = newest[:limit]
        replays = await self._replays([each.id for each in found])
        return {"total": total, "dead_letters": [entry_json(each, replays) for each in found]}

    async def shown(self, letter_id: str) -> dict[str, Any] | None:
        """One letter with all that it holds; None where there is none with this id."""
        settings = self._settings
        found, copies = None, 0
        async with _in_time(), self._turns, DeadLetters(settings) as letters:
            async for page in letters.chosen(_choice(settings, [letter_id])):
                copies += len(page)
                found = page[-1]
        if found is None:
            return None
        replays = await self._replays([found.id])
        return letter_json(found, copies, not_replayable(found, settings), replays)

    async def _read(self) -> tuple[int, list[Entry]]:
        settings = self._settings
        with Index() as index:

            def add(page: Sequence[Letter]) -> None:
                for each in page:
                    index.add(each, not_replayable(each, settings))

            def newest() -> list[Entry]:
                return [each for page in index.newest(MOST_LISTED) for each in page]

            async with self._turns, DeadLetters(settings) as letters:
                async for page in letters.chosen(Choice()):
                    await _aside(partial(add, page))
            return len(index), await _aside(newest)

    async def _replays(self, ids: Sequence[str]) -> Replays:
        """None where PostgreSQL is away: the letters can be looked at all the same."""
        record = await PostgresReplays.connect(self._settings.postgres_dsn)
        try:
            return await answer("PostgreSQL", record.of(ids))
        except StoreUnavailableError:
            return None
        finally:
            await record.close()


async def replayed(
    settings: Settings, ids: Sequence[str], *, again: bool, actor: str, reason: str | None
) -> dict[str, Any]:
    """Send these letters through the normal door again, in the name of `actor`; says of each what
    became of it."""
    letters: dict[str, Letter] = {}
    async with DeadLetters(settings) as reading:
        async for page in reading.chosen(_choice(settings, ids)):
            letters |= {each.id: each for each in page}
    record = await PostgresReplays.connect(settings.postgres_dsn)
    try:
        async with Replayer(settings, record, actor=actor, reason=reason) as replayer:
            done = await replayer.replay(list(letters.values()), again=again)
    finally:
        await record.close()
    if done.error is not None and not done.sent:
        raise done.error
    # What was sent is told, whatever has failed behind it: else it would be sent again.
    sent = "replayed" if done.marked else f"replayed, but that is not on record: {done.error}"
    answers = dict.fromkeys(letters, f"perhaps not replayed: {done.error}")
    answers |= {each.id: sent for each in done.sent}
    answers |= dict.fromkeys(done.already, "replayed before")
    answers |= {name: f"cannot be replayed: {why}" for name, why in done.refused.items()}
    missing = {each for each in ids if not {each, settings.topic_prefix + each} & letters.keys()}
    answers |= dict.fromkeys(missing, "there is no such dead letter")
    return {"answers": [{"id": name, "answer": answer} for name, answer in answers.items()]}


def _choice(settings: Settings, ids: Sequence[str]) -> Choice:
    return Choice(ids=frozenset(ids), prefix=settings.topic_prefix)


@asynccontextmanager
async def _in_time() -> AsyncIterator[None]:
    limit = asyncio.timeout(READ_S)
    try:
        async with limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise ProblemError(
            503,
            "busy",
            f"the dead letters could not be read within {READ_S:.0f} s: there are many, or others"
            " read them; `pod-automation dead-letters` takes all the time that it needs",
        ) from None


async def _aside(call: Callable[[], _T]) -> _T:
    """What `call` gives, while the loop goes on. It has ended, whatever becomes of its caller."""
    calling = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(calling)
    finally:
        await asyncio.wait({calling})
