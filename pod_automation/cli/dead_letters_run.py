"""What `pod-automation dead-letters` does, on the stores."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.cli.loop import answer
from pod_automation.cli.terminal import error, json_text, note, part, result, table
from pod_automation.dead_letters.choice import Choice
from pod_automation.dead_letters.index import Index
from pod_automation.dead_letters.letter import Letter, not_replayable
from pod_automation.dead_letters.reading import DeadLetters
from pod_automation.dead_letters.replaying import Replayed, Replayer
from pod_automation.dead_letters.showing import (
    Replays,
    entries_table,
    entry_json,
    letter_json,
    letter_lines,
)
from pod_automation.dead_letters.text import as_json as safe_json
from pod_automation.dead_letters.text import shortened
from scheduler.adapters.postgres_replays import PostgresReplays
from scheduler.errors import EngineError
from scheduler.migrations import check_schema
from scheduler.settings import Settings
from scheduler.tasks import end_if_cancelled
from schemas.printable import printable

CHUNK_LETTERS = 200
CHUNK_BYTES = 8 << 20
"""Letters that are sent and then marked together."""

MAX_NAMED = 20
"""Letters that are named in a message; the rest is counted."""


async def print_list(
    settings: Settings, choice: Choice, *, limit: int | None, not_replayed: bool, as_json: bool
) -> None:
    """Print the letters that are meant, the newest first."""
    with Index() as index:
        async with DeadLetters(settings) as letters:
            await _find(index, letters, choice, settings)
        async with _record(settings, needed=not_replayed) as record:
            if not_replayed and record is not None:
                await _drop_replayed(index, record)
            if as_json:
                await _print_json(index, record, letters.topic, limit)
            else:
                await _print_table(index, record, letters.topic, limit)


async def print_letter(
    settings: Settings, letter_id: str, *, full: bool, as_json: bool
) -> ExitCode:
    """Print one letter; `NO` where there is none with this id."""
    choice = Choice(ids=frozenset([letter_id]), prefix=settings.topic_prefix)
    found: Letter | None = None
    copies = 0
    async with DeadLetters(settings) as letters:
        async for page in letters.chosen(choice):
            copies += len(page)
            found = page[-1]
    if found is None:
        error(
            f"no dead letter {printable(letter_id)} in {letters.topic}:"
            " `pod-automation dead-letters list --all` names them all"
        )
        return ExitCode.NO
    async with _record(settings, needed=False) as record:
        replays = await _replays(record, [found.id])
    why_not = not_replayable(found, settings)
    if as_json:
        result(json_text(safe_json(letter_json(found, copies, why_not, replays))))
    else:
        for line in letter_lines(found, copies, why_not, replays, full=full):
            result(line)
    return ExitCode.OK


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be replayed. Without `ask` nobody is asked."""

    choice: Choice
    again: bool
    dry_run: bool
    ask: Callable[[str], bool] | None
    as_json: bool
    actor: str | None = None
    because: str | None = None


async def replay_letters(settings: Settings, wish: Wish) -> ExitCode:
    """Replay the letters that are meant; `NO` where one of them could not be."""
    async with _record(settings, needed=True) as record, DeadLetters(settings) as letters:
        if record is None:
            raise AssertionError("needed")
        with Index() as index:
            await _find(index, letters, wish.choice, settings)
            done = _Done(wish)
            done.missing(index)
            done.unfit(index)
            await done.leave_replayed(index, record)
            if wish.choice.ids and done.problems:
                done.report()
                return ExitCode.NO
            if wish.dry_run:
                done.would_send(index)
            elif count := index.replayable():
                if wish.ask is not None and not wish.ask(f"Replay {_letters(count)}?"):
                    note("nothing was sent")
                    return ExitCode.NO
                await _send(settings, wish, letters, record, index, done)
        return done.report()


async def _send(
    settings: Settings,
    wish: Wish,
    letters: DeadLetters,
    record: PostgresReplays,
    index: Index,
    done: "_Done",
) -> None:
    async with Replayer(settings, record, actor=wish.actor, reason=wish.because) as replayer:
        async for chunk in _chunks(letters, index):
            end_if_cancelled()
            try:
                done.add(await replayer.replay(chunk, again=wish.again))
            except EngineError as away:
                done.add(Replayed(error=away))
            if done.error is not None:
                return


async def _chunks(letters: DeadLetters, index: Index) -> AsyncIterator[Sequence[Letter]]:
    """What the index wants, in chunks."""
    chunk: list[Letter] = []
    size = 0
    async for page in letters.at(index.places()):
        for each in page:
            if not index.wants(each):
                continue
            chunk.append(each)
            size += each.size + len(each.key or b"")
            if len(chunk) >= CHUNK_LETTERS or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


class _Done:
    """What was sent, what was not and why; and the words for it."""

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self.sent: list[dict[str, Any]] = []
        self.unmarked: list[str] = []
        self.would: list[str] = []
        self.already = 0
        self.problems: dict[str, str] = {}
        self.error: EngineError | None = None

    def missing(self, index: Index) -> None:
        """Ids that no letter has."""
        there = {each for page in index.ids() for each in page} if self._wish.choice.ids else set()
        for each in sorted(self._wish.choice.ids):
            if each not in there and self._wish.choice.prefix + each not in there:
                self.problems[each] = "there is no such dead letter"

    def unfit(self, index: Index) -> None:
        """Letters that cannot be replayed at all."""
        for page in index.newest():
            self.problems |= {each.id: each.why_not for each in page if each.why_not is not None}

    async def leave_replayed(self, index: Index, record: PostgresReplays) -> None:
        """Take from the index what was replayed before, unless that is wanted."""
        if self._wish.again:
            return
        before = await _drop_replayed(index, record)
        if not self._wish.choice.ids:
            self.already += len(before)
            return
        for each in before:
            self.problems.setdefault(each, "it was replayed before: --again sends it once more")

    def would_send(self, index: Index) -> None:
        """Of a dry run."""
        for page in index.newest():
            self.would += [each.id for each in page if each.why_not is None]

    def add(self, some: Replayed) -> None:
        """What became of a chunk."""
        for each in some.sent:
            self.sent.append(
                {
                    "id": each.id,
                    "topic": each.topic,
                    "partition": each.partition,
                    "offset": each.offset,
                }
            )
        if not some.marked:
            self.unmarked += [each.id for each in some.sent]
        self.already += len(some.already)
        self.problems |= some.refused
        self.error = some.error

    def report(self) -> ExitCode:
        """Say it all. Raises the error that ended it."""
        if self._wish.as_json:
            shown = {
                "replayed": self.sent,
                "not_marked": self.unmarked,
                "would_replay": self.would,
                "already_replayed": self.already,
                "not_replayed": [{"id": name, "why": why} for name, why in self.problems.items()],
                "dry_run": self._wish.dry_run,
            }
            result(json_text(safe_json(shown)))
        else:
            self._print()
        for name, why in list(self.problems.items())[:MAX_NAMED]:
            error(f"{printable(name)}: {printable(why)}")
        if (more := len(self.problems) - MAX_NAMED) > 0:
            error(f"and {more:,} more")
        if self.unmarked:
            error(
                f"{_letters(len(self.unmarked))} sent, but not marked as replayed: "
                + shortened(", ".join(self.unmarked), 2000)
            )
        if self.error is not None:
            raise self.error
        return ExitCode.NO if self.problems else ExitCode.OK

    def _print(self) -> None:
        for each in self.sent[:MAX_NAMED]:
            result(f"{each['id']} is now {each['topic']}/{each['partition']}/{each['offset']}")
        for name in self.would[:MAX_NAMED]:
            result(f"{name} would be sent")
        if (more := len(self.sent) + len(self.would) - MAX_NAMED) > 0:
            result(f"and {more:,} more")
        if self.already:
            note(f"{_letters(self.already)} replayed before: left alone without --again")
        if self._wish.dry_run:
            result(f"{_letters(len(self.would))} would be replayed")
        elif self.sent:
            result(f"{_letters(len(self.sent))} replayed")
        else:
            result("nothing was sent")


async def _find(index: Index, letters: DeadLetters, choice: Choice, settings: Settings) -> None:
    async for page in letters.chosen(choice):
        for each in page:
            index.add(each, not_replayable(each, settings))


@asynccontextmanager
async def _record(settings: Settings, *, needed: bool) -> AsyncIterator[PostgresReplays | None]:
    """What was replayed; None where PostgreSQL is away and not `needed`."""
    record: PostgresReplays | None = None
    try:
        await answer("PostgreSQL", check_schema(settings.postgres_dsn))
        record = await PostgresReplays.connect(settings.postgres_dsn)
    except EngineError as away:
        if needed:
            raise
        note(f"what was replayed is not known: {away}")
    try:
        yield record
    finally:
        if record is not None:
            await record.close()


async def _replays(record: PostgresReplays | None, ids: Sequence[str]) -> Replays:
    return None if record is None else await answer("PostgreSQL", record.of(ids))


async def _drop_replayed(index: Index, record: PostgresReplays) -> list[str]:
    """Take from the index what was replayed before; returns the ids."""
    dropped: list[str] = []
    for page in index.ids():
        before = list(await answer("PostgreSQL", record.of(page)))
        index.drop(before)
        dropped += before
    return dropped


async def _print_table(
    index: Index, record: PostgresReplays | None, topic: str, limit: int | None
) -> None:
    count = len(index)
    if not count:
        result(f"no dead letters in {topic} that are meant")
        return
    heading = True
    for page in index.newest(limit):
        replays = await _replays(record, [each.id for each in page])
        table(entries_table(page, replays, index.widest_id(), heading=heading))
        heading = False
    if limit is not None and limit < count:
        note(f"the newest {limit:,} of {_letters(count)}; --all shows them all")


async def _print_json(
    index: Index, record: PostgresReplays | None, topic: str, limit: int | None
) -> None:
    # One line, but never all of it at once.
    head = safe_json({"topic": topic, "found": len(index), "letters": []})
    part(head.removesuffix("]}"))
    between = ""
    for page in index.newest(limit):
        replays = await _replays(record, [each.id for each in page])
        for each in page:
            part(between + json_text(safe_json(entry_json(each, replays))))
            between = ","
    result("]}")


def _letters(count: int) -> str:
    return f"{count:,} dead letter{'' if count == 1 else 's'}"
