"""Dead letters on real servers: what is buried is found, shown, and sent again as it was."""

import asyncio
import json
import os
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import orjson
import pytest

from pod_automation.cli.dead_letters_run import Wish, replay_letters
from pod_automation.cli.exit_codes import ExitCode
from pod_automation.cli.terminal import PIPED_COLUMNS
from pod_automation.dead_letters import Choice, DeadLetters, Letter, Replayer
from pod_automation.dead_letters.index import Index
from scheduler.adapters.kafka_outbox import KafkaOutbox
from scheduler.adapters.postgres_replays import PostgresReplays, Sent
from scheduler.errors import StoreUnavailableError
from scheduler.ports import SourceRecord
from scheduler.settings import Settings
from schemas.headers import dead_letter_headers
from tests.integration.test_cli import pod_automation, result_of
from tests.integration.worker_bench import Bench, Broken, bench, broken_records, producing, send_raw
from tests.unit.test_kafka_records import foreign

pytestmark = pytest.mark.timeout(240)

HOSTILE = b"\x1b]0;gone\x07\xc2\x9b31m\xe2\x80\xae\r\n\x00"
HISTORY = orjson.dumps(
    [
        {"attempt": 1, "at": "2026-11-24T08:00:00.000Z", "error": "first"},
        {"attempt": 2, "at": "2026-11-24T08:01:00.000Z", "error": HOSTILE.decode()},
    ]
)


@pytest.fixture
async def stores(settings: Settings) -> AsyncIterator[Bench]:
    async with bench(settings) as made:
        yield made


@pytest.fixture
async def outbox(settings: Settings) -> AsyncIterator[KafkaOutbox]:
    made = KafkaOutbox(settings.kafka_bootstrap, settings.topics)
    yield made
    await made.close()


@pytest.fixture
async def replays(settings: Settings) -> AsyncIterator[PostgresReplays]:
    made = await PostgresReplays.connect(settings.postgres_dsn)
    yield made
    await made.close()


def record(
    topic: str,
    offset: int,
    value: bytes | None = b"broken",
    *headers: tuple[str, Any],
    partition: int = 1,
    key: bytes | None = b"key",
) -> SourceRecord:
    return SourceRecord(topic, partition, offset, key, value, headers)


async def found(settings: Settings, choice: Choice | None = None) -> list[Letter]:
    async with DeadLetters(settings) as letters:
        return [each async for page in letters.chosen(choice or Choice()) for each in page]


def content(each: Any) -> Broken:
    """Key, value and headers of a record, as bytes."""
    return each.key, each.value, list(each.headers)


async def test_what_is_broken_comes_back_byte_for_byte(
    environment: dict[str, str], settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    """Fifty records that are no event, each in its own way: sent, buried, listed, replayed."""
    topic = settings.topics.post_detected
    broken = broken_records()
    async with producing(settings) as producer:
        for number, each in enumerate(broken):
            await send_raw(producer, topic, number % settings.partitions, each)
    ends = await stores.ends(topic)
    originals = {
        f"{topic}/{each.partition}/{each.offset}": each for each in await stores.read(topic)
    }
    for each in originals.values():
        await outbox.dead_letter(
            SourceRecord(topic, each.partition, each.offset, each.key, each.value, each.headers),
            "not JSON: " + HOSTILE.decode(),
        )

    listed = await result_of(environment, "dead-letters", "list")
    assert listed["found"] == 50
    assert {each["id"] for each in listed["letters"]} == set(originals)
    assert not any(each["replayed"] for each in listed["letters"])
    for letter_id, original in list(originals.items())[:5]:
        shown = await result_of(environment, "dead-letters", "show", letter_id)
        assert [header["name"] for header in shown["headers"]] == [
            name for name, _ in original.headers
        ]
        assert shown["size"] == len(original.value or b"")

    done = await result_of(environment, "dead-letters", "replay", "--all", "--yes")
    assert {each["id"] for each in done["replayed"]} == set(originals)
    again = [each for each in await stores.read(topic) if each.offset >= ends[each.partition]]
    assert len(again) == 50
    places = {(each["partition"], each["offset"]): each["id"] for each in done["replayed"]}
    for each in again:
        letter_id = places[each.partition, each.offset]
        original = originals[letter_id]
        key, value, headers = content(original)
        assert content(each) == (key, value, [*headers, ("replayed_from", letter_id.encode())])
        assert each.partition == original.partition

    listed = await result_of(environment, "dead-letters", "list", "--limit", "3")
    assert (listed["found"], len(listed["letters"])) == (50, 3)
    assert all(each["replayed"]["times"] == 1 for each in listed["letters"])
    assert (await result_of(environment, "dead-letters", "list", "--not-replayed"))["found"] == 0


async def test_nothing_in_a_letter_disturbs_a_terminal(
    environment: dict[str, str], settings: Settings, outbox: KafkaOutbox
) -> None:
    topic = settings.topics.engagement_executed
    await outbox.dead_letter(
        record(topic, 5, HOSTILE + b"\xff", (HOSTILE.decode(), HOSTILE), key=HOSTILE),
        "failed after 2 attempts: [red]" + HOSTILE.decode(),
        extra=[("history", HISTORY)],
    )
    for arguments in (
        ("list",),
        ("list", "--json"),
        ("show", f"{topic}/1/5"),
        ("show", f"{topic}/1/5", "--json"),
        ("replay", f"{topic}/1/5", "--dry-run"),
        ("show", "\x1b[2J"),
    ):
        outcome = await pod_automation(environment, "dead-letters", *arguments)
        assert outcome.code == (ExitCode.NO if "\x1b[2J" in arguments else ExitCode.OK)
        assert outcome.shows_no_traceback()
        for line in (outcome.out + outcome.err).split("\n"):
            assert line.isprintable()
            assert len(line) <= PIPED_COLUMNS or arguments != ("list",)
    outcome = await pod_automation(environment, "dead-letters", "show", f"{topic}/1/5")
    assert "attempt 1  2026-11-24T08:00:00.000Z  first" in outcome.out
    assert "not UTF-8" in outcome.out
    assert "failed after 2 attempts: [red]" in outcome.out


async def test_filters(
    environment: dict[str, str], settings: Settings, outbox: KafkaOutbox
) -> None:
    posts, results = settings.topics.post_detected, settings.topics.engagement_executed
    await outbox.dead_letter(record(posts, 1, partition=0), "not JSON: eof")
    await outbox.dead_letter(record(posts, 2, partition=3), "not UTF-8")
    before = {each.id: each for each in await found(settings)}
    await outbox.dead_letter(record(results, 1, partition=3), "failed after 3 attempts: eof")
    await outbox.dead_letter(record(results, 1, partition=3), "failed after 3 attempts: eof")
    last = max(each.at_ms for each in await found(settings))

    async def ids(*arguments: str) -> list[str]:
        listed = await result_of(environment, "dead-letters", "list", *arguments)
        assert listed["found"] == len(listed["letters"])
        return sorted(
            f"{each['id'].removeprefix(settings.topic_prefix)} x{each['copies']}"
            for each in listed["letters"]
        )

    first, second, third = "post-detected/0/1 x1", "post-detected/3/2 x1", "engagement-executed/3/1"
    assert len(before) == 2
    assert await ids() == [third + " x2", first, second]
    assert await ids("--reason", "EOF") == [third + " x2", first]
    assert await ids("--reason", "not*8") == [second]
    assert await ids("--source", "post-detected") == [first, second]
    assert await ids("--source", f"{posts}/3") == [second]
    assert await ids("--source", "post-detected/77") == []
    assert await ids("--since", "1h", "--reason", "failed") == [third + " x2"]
    assert await ids("--until", "1h") == []
    assert await ids("--since", "2100-01-01T00:00:00Z") == []
    assert await found(settings, Choice(since_ms=last + 1)) == []
    assert {each.id for each in await found(settings, Choice(since_ms=last))} >= {f"{results}/3/1"}
    outcome = await pod_automation(environment, "dead-letters", "list", "--source", "nowhere")
    assert (outcome.code, outcome.err) == (ExitCode.OK, "")
    assert "no dead letters" in outcome.out


async def test_an_empty_topic_says_so(environment: dict[str, str], settings: Settings) -> None:
    outcome = await pod_automation(environment, "dead-letters", "list")
    assert (outcome.code, outcome.err) == (ExitCode.OK, "")
    assert f"no dead letters in {settings.topics.dead_letter}" in outcome.out
    assert (await result_of(environment, "dead-letters", "list"))["letters"] == []
    outcome = await pod_automation(environment, "dead-letters", "replay", "--all", "--yes")
    assert (outcome.code, outcome.out) == (ExitCode.OK, "nothing was sent\n")
    outcome = await pod_automation(environment, "dead-letters", "show", "post-detected/0/1")
    assert (outcome.code, outcome.out) == (ExitCode.NO, "")
    assert "no dead letter post-detected/0/1" in outcome.err


async def test_a_letter_is_replayed_once_unless_again_is_said(
    environment: dict[str, str], settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    topic = settings.topics.engagement_executed
    original = record(topic, 7, b"{}", ("ce_id", b"e"), partition=2)
    reason = "failed, not retryable: gone"
    await outbox.dead_letter(original, reason, extra=[("history", HISTORY)])
    await outbox.dead_letter(original, reason, extra=[("history", HISTORY)])
    letter_id = f"{topic}/2/7"

    outcome = await pod_automation(
        environment, "dead-letters", "replay", "engagement-executed/2/7", "--dry-run"
    )
    assert outcome.code == ExitCode.OK
    assert "1 dead letter would be replayed" in outcome.out
    assert await stores.read(topic) == []

    for number, more in enumerate(((), ("--again", "--because", "it is mended"))):
        done = await result_of(environment, "dead-letters", "replay", letter_id, *more)
        expected = {"id": letter_id, "topic": topic, "partition": 2, "offset": number}
        assert done["replayed"] == [expected]
        refused = await pod_automation(environment, "dead-letters", "replay", letter_id)
        assert refused.code == ExitCode.NO
        assert "replayed before: --again" in refused.err
        left = await pod_automation(environment, "dead-letters", "replay", "--all", "--yes")
        assert (left.code, left.out) == (ExitCode.OK, "nothing was sent\n")
        assert "1 dead letter replayed before" in left.err
    sent = await stores.read(topic)
    assert [content(each) for each in sent] == [
        (b"key", b"{}", [("ce_id", b"e"), ("replayed_from", letter_id.encode())])
    ] * 2
    row = await stores.database.fetchrow("select * from dead_letter_replays")
    assert row is not None
    assert (row["dead_letter_id"], row["topic"], row["partition"]) == (letter_id, topic, 2)
    assert (row["last_offset"], row["replays"]) == (1, 2)
    told = await pod_automation(environment, "audit", "--ndjson")
    (entry,) = (json.loads(line) for line in told.out.splitlines())
    assert (entry["command"], entry["subject"]) == ("replay", letter_id)
    assert entry["outcome"] == {"replayed": 2}
    assert entry["actor"] == row["actor"]
    assert "@" in entry["actor"]
    assert entry["reason"] == "it is mended"
    outcome = await pod_automation(environment, "dead-letters", "show", letter_id)
    assert "2 copies" in outcome.out
    assert "2 times, the last time at" in outcome.out


async def test_whoever_says_no_sends_nothing(
    settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    topic = settings.topics.pod_commands
    for offset in range(3):
        await outbox.dead_letter(record(topic, offset), "why")
    asked: list[str] = []

    def says(answer: bool) -> Wish:
        def ask(question: str) -> bool:
            asked.append(question)
            return answer

        return Wish(Choice(reason="why"), again=False, dry_run=False, ask=ask, as_json=False)

    assert await replay_letters(settings, says(False)) is ExitCode.NO
    assert await stores.read(topic) == []
    assert await replay_letters(settings, says(True)) is ExitCode.OK
    assert len(await stores.read(topic)) == 3
    # Nothing is left to ask about.
    assert await replay_letters(settings, says(True)) is ExitCode.OK
    assert asked == ["Replay 3 dead letters?"] * 2


async def test_what_cannot_be_replayed_is_refused(
    environment: dict[str, str], settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    topic = settings.topics.post_detected
    await outbox.dead_letter(record(topic, 1), "good")
    await outbox.dead_letter(record(topic, 2, b"v", ("truncated_from", b"2000")), "cut")
    await outbox.dead_letter(record(settings.topics.engagement_status, 3), "another topic")
    await outbox.dead_letter(record("post-detected", 4), "another engine's")
    async with producing(settings) as producer:
        theirs: Broken = (None, b"?", [("ce_id", HOSTILE), ("reason", b"theirs")])
        offset = await send_raw(producer, settings.topics.dead_letter, 1, theirs)
    foreign_id = f"{settings.topics.dead_letter}/1/{offset}"

    for letter_id, why in (
        (f"{topic}/1/2", "its value had 2,000 bytes"),
        (f"{settings.topics.engagement_status}/1/3", "and the engine reads"),
        ("post-detected/1/4", "came from post-detected, and the engine reads"),
        (foreign_id, "no dead letter of the engine"),
        (f"{topic}/1/99", "there is no such dead letter"),
        ("nonsense", "there is no such dead letter"),
    ):
        # Together with one that could be: all or nothing.
        outcome = await pod_automation(
            environment, "dead-letters", "replay", letter_id, f"{topic}/1/1", "--yes"
        )
        assert outcome.code == ExitCode.NO
        assert outcome.shows_no_traceback()
        assert why in outcome.err
        assert outcome.out == "nothing was sent\n"
    assert await stores.read(topic) == []
    assert (await pod_automation(environment, "dead-letters", "show", foreign_id)).code == 0

    # By a filter the others are left, and said.
    outcome = await pod_automation(environment, "dead-letters", "replay", "--all", "--yes")
    assert outcome.code == ExitCode.NO
    assert "1 dead letter replayed" in outcome.out
    assert len(outcome.err.splitlines()) == 4
    assert len(await stores.read(topic)) == 1


async def test_header_names_that_are_not_text_stop_nothing(
    environment: dict[str, str], settings: Settings, outbox: KafkaOutbox
) -> None:
    """aiokafka alone would stop for ever at such a record."""
    letter_topic = settings.topics.dead_letter
    async with producing(settings) as producer:
        batch = producer.create_batch()
        batch.append(timestamp=None, key=None, value=b"v", headers=[("bad", b"h")])
        batch.close()
        batch._buffer = foreign(batch._build())
        await (await producer.send_batch(batch, letter_topic, partition=1))
    await outbox.dead_letter(record(settings.topics.post_detected, 1), "behind it")
    assert (await result_of(environment, "dead-letters", "list"))["found"] == 2
    shown = await result_of(environment, "dead-letters", "show", f"{letter_topic}/1/0")
    assert shown["headers"] == [{"name": r"\xff\xfeZ", "value": "h"}]


async def test_postgresql_away(
    environment: dict[str, str], settings: Settings, stores: Bench, outbox: KafkaOutbox
) -> None:
    """The list is there without it; a replay sends nothing."""
    topic = settings.topics.post_detected
    await outbox.dead_letter(record(topic, 1), "why")
    away = {**environment, "POD_AUTOMATION_POSTGRES_DSN": "postgresql://nobody@127.0.0.1:1/none"}
    outcome = await pod_automation(away, "dead-letters", "list")
    assert outcome.code == ExitCode.OK
    assert outcome.out.split()[-1] == "?"
    assert "what was replayed is not known: PostgreSQL is not available" in outcome.err
    outcome = await pod_automation(away, "dead-letters", "show", f"{topic}/1/1", "--json")
    assert (outcome.code, json.loads(outcome.out)["replayed"]) == (ExitCode.OK, None)
    for arguments in (
        ("replay", f"{topic}/1/1"),
        ("replay", "--all", "--yes"),
        ("list", "--not-replayed"),
    ):
        outcome = await pod_automation(away, "dead-letters", *arguments)
        assert (outcome.code, outcome.out) == (ExitCode.STORE_AWAY, "")
        assert len(outcome.err.splitlines()) == 1
    assert await stores.read(topic) == []


async def test_whoever_replays_at_once_takes_turns(
    settings: Settings, stores: Bench, outbox: KafkaOutbox, replays: PostgresReplays
) -> None:
    topic = settings.topics.post_detected
    for offset in range(20):
        await outbox.dead_letter(record(topic, offset), "why")
    letters = await found(settings)

    async def one() -> int:
        async with Replayer(settings, replays) as replayer:
            done = await replayer.replay(letters)
            assert done.marked
            assert len(done.sent) + len(done.already) == 20
            return len(done.sent)

    assert sorted(await asyncio.gather(one(), one())) == [0, 20]
    assert len(await stores.read(topic)) == 20


async def test_what_was_sent_and_cannot_be_marked_is_said(
    settings: Settings, stores: Bench, outbox: KafkaOutbox, replays: PostgresReplays
) -> None:
    topic = settings.topics.post_detected
    await outbox.dead_letter(record(topic, 1), "why")
    (letter,) = await found(settings)

    # Its connection is cut behind the lock, when it asks what was replayed: nothing is sent.
    await stores.database.execute("alter table dead_letter_replays rename to gone")
    async with Replayer(settings, replays) as replayer:
        with pytest.raises(asyncpg.UndefinedTableError):
            await replayer.replay([letter])
        assert await stores.read(topic) == []
        await stores.database.execute("alter table gone rename to dead_letter_replays")
        # And here when it marks.
        await stores.database.execute(
            "create function cut() returns trigger language plpgsql as"
            " $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;"
            " create trigger cut before insert on dead_letter_replays"
            " for each row execute function cut()"
        )
        done = await replayer.replay([letter])
        assert isinstance(done.error, StoreUnavailableError)
        assert ([each.id for each in done.sent], done.marked) == ([letter.id], False)
        assert len(await stores.read(topic)) == 1
        # At least once: it is not marked, and is sent again.
        await stores.database.execute("drop trigger cut on dead_letter_replays")
        done = await replayer.replay([letter])
        assert (len(done.sent), done.marked, done.error) == (1, True, None)
    assert len(await stores.read(topic)) == 2


async def test_one_that_is_too_large_keeps_none_of_its_neighbours(
    settings: Settings, stores: Bench, outbox: KafkaOutbox, replays: PostgresReplays
) -> None:
    """Its topic took it once, and takes less now."""
    topic = settings.topics.post_detected
    for offset, size in enumerate((10, 2_000_000, 20, 2_000_000, 30)):
        await outbox.dead_letter(record(topic, offset, b"v" * size), "why")
    letters = await found(settings)
    async with Replayer(settings, replays) as replayer:
        done = await replayer.replay(letters)
    assert done.error is None
    assert sorted(done.refused) == [f"{topic}/1/1", f"{topic}/1/3"]
    assert [each.id for each in done.sent] == [f"{topic}/1/{offset}" for offset in (0, 2, 4)]
    kept = [(each.offset, len(each.value)) for each in await stores.read(topic)]
    where = {each.offset: each.id for each in done.sent}
    # In their order; what came behind the large one may be there twice.
    assert sorted(where) == list(where)
    assert {size for _, size in kept} == {10, 20, 30}


async def test_kafka_goes_away_before_the_sending(
    settings: Settings, outbox: KafkaOutbox, replays: PostgresReplays
) -> None:
    await outbox.dead_letter(record(settings.topics.post_detected, 1), "why")
    letters = await found(settings)
    nowhere = settings.model_copy(update={"kafka_bootstrap": "127.0.0.1:1"})
    async with Replayer(nowhere, replays) as replayer:
        done = await replayer.replay(letters)
    assert isinstance(done.error, StoreUnavailableError)
    assert done.sent == []
    assert await replays.of([letters[0].id]) == {}


async def test_marks_are_counted_and_taken_back_with_their_transaction(
    replays: PostgresReplays,
) -> None:
    sent = [Sent("a/1/2", "a", 1, 30), Sent("b/1/2", "b", 1, 31)]

    async def taken_back() -> None:
        async with replays.alone() as transaction:
            await transaction.mark(sent)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await taken_back()
    assert await replays.of(["a/1/2", "b/1/2", "c\x00"]) == {}
    for times in (1, 2):
        async with replays.alone() as transaction:
            await transaction.mark(sent[:times])
    marked = await replays.of(["a/1/2", "b/1/2"])
    assert {name: each.replays for name, each in marked.items()} == {"a/1/2": 2, "b/1/2": 1}
    assert marked["b/1/2"].offset == 31


async def test_thousands_are_listed_in_bounded_memory(
    environment: dict[str, str], settings: Settings, stores: Bench
) -> None:
    """5,000 letters of 20 kB: 100 MB in the topic, a fraction of that here."""
    topic, total, each_bytes = settings.topics.post_detected, 5000, 20_000
    async with producing(settings) as producer:
        for partition in range(settings.partitions):
            sending = []
            batch = producer.create_batch()
            for offset in range(total // settings.partitions):
                one: dict[str, Any] = {
                    "timestamp": None,
                    "key": b"k",
                    "value": os.urandom(each_bytes // 2).hex().encode(),
                    "headers": dead_letter_headers([], topic, partition, offset, "why"),
                }
                if batch.append(**one) is None:
                    sending.append(
                        await producer.send_batch(
                            batch, settings.topics.dead_letter, partition=partition
                        )
                    )
                    batch = producer.create_batch()
                    batch.append(**one)
            sending.append(
                await producer.send_batch(batch, settings.topics.dead_letter, partition=partition)
            )
            await asyncio.gather(*sending)
    tracemalloc.start()
    try:
        with Index() as index:
            async with DeadLetters(settings) as letters:
                async for page in letters.chosen(Choice()):
                    for each in page:
                        index.add(each)
            assert len(index) == total
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < total * each_bytes // 4
    listed = await result_of(environment, "dead-letters", "list", "--all")
    assert len({each["id"] for each in listed["letters"]}) == total
    outcome = await pod_automation(environment, "dead-letters", "list")
    assert len(outcome.out.splitlines()) == 51
    assert "the newest 50 of 5,000 dead letters" in outcome.err
