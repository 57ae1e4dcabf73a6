"""Dead letters for the API: listed, shown, replayed."""

from collections.abc import Sequence
from typing import Any

from pod_automation.dead_letters.choice import Choice
from pod_automation.dead_letters.index import Entry, Index
from pod_automation.dead_letters.letter import Letter, not_replayable
from pod_automation.dead_letters.reading import DeadLetters
from pod_automation.dead_letters.replaying import Replayer
from pod_automation.dead_letters.showing import Replays, entry_json, letter_json
from scheduler.adapters.postgres_replays import PostgresReplays
from scheduler.settings import Settings

MOST_LISTED = 500


async def listed(settings: Settings, limit: int) -> dict[str, Any]:
    """The newest letters, each once, and how many there are. Reads the topic from its beginning."""
    with Index() as index:
        async with DeadLetters(settings) as letters:
            async for page in letters.chosen(Choice()):
                for each in page:
                    index.add(each, not_replayable(each, settings))
        found: list[Entry] = []
        for entries in index.newest(limit):
            found += entries
        total = len(index)
    replays = await _replays(settings, [each.id for each in found])
    return {"total": total, "dead_letters": [entry_json(each, replays) for each in found]}


async def shown(settings: Settings, letter_id: str) -> dict[str, Any] | None:
    """One letter with all that it holds; None where there is none with this id."""
    found, copies = None, 0
    async with DeadLetters(settings) as letters:
        async for page in letters.chosen(_choice(settings, [letter_id])):
            copies += len(page)
            found = page[-1]
    if found is None:
        return None
    replays = await _replays(settings, [found.id])
    return letter_json(found, copies, not_replayable(found, settings), replays)


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


async def _replays(settings: Settings, ids: Sequence[str]) -> Replays:
    record = await PostgresReplays.connect(settings.postgres_dsn)
    try:
        return await record.of(ids)
    finally:
        await record.close()
