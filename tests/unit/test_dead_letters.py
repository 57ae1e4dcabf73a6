"""Dead letters as what they were: read from their headers, chosen, shown."""

import json
import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pod_automation.dead_letters.choice import Choice, moment_of, source_of
from pod_automation.dead_letters.index import Index
from pod_automation.dead_letters.letter import (
    Failure,
    Header,
    Letter,
    letter_of,
    not_replayable,
    replayed_headers,
)
from pod_automation.dead_letters.showing import (
    entries_table,
    entry_json,
    letter_json,
    letter_lines,
)
from pod_automation.dead_letters.text import as_json, content
from scheduler.adapters.postgres_replays import Replay
from scheduler.settings import load_settings
from schemas.headers import dead_letter_headers
from schemas.printable import printable

NOW_MS = 1_795_507_200_000
HOSTILE = "\x1b]0;gone\x07\x9b31m\u202e[bold]\r\n\x7f"


def buried(
    *original: Header,
    topic: str = "post-detected",
    partition: int = 3,
    offset: int = 17,
    reason: str = "not JSON",
    key: bytes | None = b"key",
    value: bytes | None = b"value",
    extra: Sequence[tuple[str, bytes]] = (),
    at_ms: int = NOW_MS,
    place: int = 0,
) -> Letter:
    """What the outbox makes of a record."""
    headers: list[Header] = [
        *dead_letter_headers([*original, *extra], topic, partition, offset, reason)  # type: ignore[list-item] # null values exist
    ]
    return letter_of("dead-letter", partition, place, at_ms, key, value, headers)


headers = st.lists(
    st.tuples(
        st.sampled_from(
            ["ce_id", "ce_type", "reason", "source_topic", "source_offset", "history", "", "ü"]
        ),
        st.none() | st.binary(max_size=8),
    ),
    max_size=8,
)


@given(headers)
def test_the_original_headers_come_back(original: list[Header]) -> None:
    letter = buried(*original)
    assert letter.headers == original
    assert letter.source == ("post-detected", 3, 17)
    assert (letter.id, letter.reason) == ("post-detected/3/17", "not JSON")


def test_a_replayed_record_says_whence_once() -> None:
    letter = buried(("ce_id", b"e"), ("replayed_from", b"post-detected/3/4"), ("a", None))
    assert replayed_headers(letter) == [
        *(("ce_id", b"e"), ("a", None), ("replayed_from", b"post-detected/3/17"))
    ]


HISTORY = b'[{"attempt":1,"at":"t1","error":"e1"},{"attempt":2,"at":"t2","error":"e2"}]'


@pytest.mark.parametrize("reason", ["failed after 2 attempts: e2", "failed, not retryable: e2"])
def test_the_history_of_a_failed_engagement_is_taken_off(reason: str) -> None:
    letter = buried(
        ("ce_id", b"e"),
        topic="engagement-executed",
        reason=reason,
        extra=[("history", HISTORY)],
    )
    assert letter.history == [Failure(1, "t1", "e1"), Failure(2, "t2", "e2")]
    assert letter.headers == [("ce_id", b"e")]


def test_a_history_of_the_sender_stays() -> None:
    """Only what the engine has added is taken off."""
    assert buried(("history", HISTORY)).headers == [("history", HISTORY)]
    odd = buried(("history", b"[1"), reason="failed after 2 attempts: e2")
    assert (odd.headers, odd.history) == ([("history", b"[1")], ())


def test_what_was_cut_is_known() -> None:
    cut = buried(value=b"v" * 10, extra=[("truncated_from", b"90")])
    assert (cut.truncated_from, cut.headers) == (90, [])
    gone = buried(key=None, value=None, extra=[("truncated_from", b"0")])
    assert gone.truncated_from == 0
    theirs = buried(("truncated_from", b"2"), value=b"abc")
    assert (theirs.truncated_from, theirs.headers) == (None, [("truncated_from", b"2")])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("ce_id", b"post-detected/3/17"), ("reason", b"why\xff")],
        [(name, b"post-detected/3/18") for name in ("ce_id", "source_topic", "reason")],
        [
            *(("ce_id", b"post-detected/3/18"), ("source_topic", b"post-detected")),
            *(("source_partition", b"3"), ("source_offset", b"17"), ("reason", b"why")),
        ],
        [
            *(("ce_id", b"\x1b[2J/3/17"), ("source_topic", b"\x1b[2J")),
            *(("source_partition", b"3"), ("source_offset", b"17"), ("reason", b"why")),
        ],
        [
            *(("ce_id", b"a/-3/17"), ("source_topic", b"a")),
            *(("source_partition", b"-3"), ("source_offset", b"17"), ("reason", None)),
        ],
    ],
)
def test_a_foreign_record_is_no_letter_of_ours(headers: list[Header]) -> None:
    letter = letter_of("p.dead-letter", 1, 5, NOW_MS, None, None, headers)
    assert letter.id == "p.dead-letter/1/5"
    assert (letter.source, letter.headers) == (None, headers)
    assert "no dead letter of the engine" in str(not_replayable(letter, load_settings()))


def test_what_cannot_be_replayed_says_why() -> None:
    settings = load_settings(partitions=4, topic_prefix="p.")
    assert not_replayable(buried(topic="p.post-detected"), settings) is None
    assert not_replayable(buried(topic="p.engagement-executed"), settings) is None
    assert not_replayable(buried(topic="p.pod-commands"), settings) is None
    for letter, why in (
        (buried(topic="post-detected"), "came from post-detected, and the engine reads p.post"),
        (buried(topic="p.execute-engagement"), "came from p.execute-engagement"),
        (buried(topic="p.post-detected", partition=4), "partition 4, and there are 4"),
        (buried(topic="p.post-detected", extra=[("truncated_from", b"9000")]), "9,000 bytes"),
    ):
        assert why in str(not_replayable(letter, settings))


def test_letters_are_chosen() -> None:
    letter = buried(topic="p.post-detected", reason="Object missing required field `post_id`")
    for given_, matches in (
        ({}, True),
        ({"reason": "MISSING required"}, True),
        ({"reason": "missing*post_id"}, True),
        ({"reason": "post_id*missing"}, False),
        ({"reason": "m.ssing"}, False),
        ({"topic": "post-detected"}, True),
        ({"topic": "p.post-detected", "partition": 3}, True),
        ({"topic": "post-detected", "partition": 0}, False),
        ({"topic": "detected"}, False),
        ({"since_ms": NOW_MS}, True),
        ({"since_ms": NOW_MS + 1}, False),
        ({"until_ms": NOW_MS}, False),
        ({"until_ms": NOW_MS + 1}, True),
        ({"ids": {"p.post-detected/3/17"}}, True),
        ({"ids": {"post-detected/3/17"}}, True),
        ({"ids": {"post-detected/3/1"}}, False),
    ):
        assert Choice(prefix="p.", **given_).matches(letter) is matches, given_


def test_only_partitions_that_matter_are_read() -> None:
    assert Choice().partitions(3) == [0, 1, 2]
    assert Choice(topic="a", partition=2).partitions(3) == [2]
    assert Choice(topic="a", partition=3).partitions(3) == []
    assert Choice(ids={"a/1/7", "b/1/8", "b/2/1", "odd", "a/9/1"}).partitions(3) == [1, 2]


def test_times_and_sources_are_read() -> None:
    for text, at_ms in (
        ("2026-11-24T08:00:00Z", 1_795_507_200_000),
        ("2026-11-24T08:00:00+01:00", 1_795_503_600_000),
        ("90s", NOW_MS - 90_000),
        ("2h", NOW_MS - 7_200_000),
        ("3d", NOW_MS - 259_200_000),
        ("999999999w", 0),
        ("1900-01-01T00:00:00Z", 0),
    ):
        assert moment_of(text, NOW_MS) == at_ms
    for text in ("", "2h ", "-2h", "h", "2026-11-24T08:00:00", "yesterday", "\u0662h"):
        with pytest.raises(ValueError, match="neither a time"):
            moment_of(text, NOW_MS)
    assert source_of("p.post-detected/3") == ("p.post-detected", 3)
    assert source_of("post-detected") == ("post-detected", None)
    for text in ("", "/3", "a/", "a/b", "a/-1", "a/1/2", "a b", "a/\u0663"):
        with pytest.raises(ValueError, match="a topic"):
            source_of(text)


def hostile_letter() -> Letter:
    return buried(
        (HOSTILE, HOSTILE.encode() + b"\xff"),
        ("null", None),
        topic="engagement-executed",
        reason="failed after 1 attempt: " + HOSTILE,
        key=b"\xff" + HOSTILE.encode(),
        value=b"\xff\x9b" + HOSTILE.encode(),
        extra=[("history", json.dumps([{"attempt": 1, "at": HOSTILE, "error": HOSTILE}]).encode())],
    )


def test_nothing_in_a_letter_disturbs_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    from pod_automation.cli.terminal import table

    letter = hostile_letter()
    assert letter.history
    for line in letter_lines(letter, 1, None, {}, full=True):
        assert line.isprintable()
    with Index() as index:
        index.add(letter)
        (entries,) = index.newest()
    assert as_json(letter_json(letter, 1, None, None)).isprintable()
    assert as_json(entry_json(entries[0], None)).isprintable()
    table(entries_table(entries, {}, index_width := 10, heading=True))
    assert index_width
    shown = capsys.readouterr().out
    assert all(line.isprintable() for line in shown.split("\n"))
    # Nor is it taken for markup of ours.
    assert "[bold]" in re.sub(r"\s", "", shown)


@given(st.text())
def test_json_is_printable_and_says_the_same(text: str) -> None:
    line = as_json({"text": text})
    assert line.isprintable()
    assert json.loads(line) == {"text": text}


@given(st.binary(max_size=200), st.none() | st.integers(0, 100))
def test_any_value_is_shown_safely(value: bytes, limit: int | None) -> None:
    _, lines = content(value, limit)
    assert all(line.isprintable() for line in lines)


def test_values_are_shown_as_what_they_are() -> None:
    assert [(what, list(lines)) for what, lines in [content(b'{"a":[1]}', None)]] == [
        ("JSON", ["{", '  "a": [', "    1", "  ]", "}"])
    ]
    what, lines = content("a\nü\x07".encode(), None)
    assert (what, list(lines)) == ("text", ["a", r"ü\x07"])
    what, lines = content(b"\xff\x00A", None)
    assert what == "not UTF-8 (byte 0)"
    assert next(lines).split() == ["00000000", "ff", "00", "41", "..A"]
    what, lines = content(b"x" * 100, 10)
    assert list(lines) == ["x" * 10, "... and 90 characters more (--full)"]
    what, lines = content(b"\xff" * 100, 64)
    assert list(lines)[-1] == "... and 84 bytes more (--full)"
    assert content(b"[" * 200_000, 10)[0] == "text"


def test_safe_leaves_what_can_be_printed() -> None:
    assert printable("grün [x] \N{SNOWMAN}") == "grün [x] \N{SNOWMAN}"
    assert printable("\ud800") == r"\ud800"


def test_a_letter_that_stands_there_twice_is_one() -> None:
    with Index() as index:
        for place in (4, 9):
            index.add(buried(place=place, at_ms=NOW_MS + place))
        index.add(buried(offset=18, at_ms=NOW_MS + 5), why_not="no")
        ((first, second),) = index.newest()
        assert (first.id, first.copies, first.offset) == ("post-detected/3/17", 2, 9)
        assert (second.id, second.copies) == ("post-detected/3/18", 1)
        assert [len(page) for page in index.newest(1)] == [1]
        assert (len(index), index.replayable(), index.places()) == (2, 1, {3: (9, 9)})
        assert index.wants(buried(place=9))
        assert not index.wants(buried(place=4))
        assert not index.wants(buried(offset=18))
        index.drop([first.id])
        assert list(index.ids()) == [[second.id]]


def test_whether_it_was_replayed_is_shown() -> None:
    letter = buried()
    where = Replay(NOW_MS, "post-detected", 3, 40, 2)
    for replays, text in (
        (None, "? (PostgreSQL"),
        ({}, "never"),
        ({letter.id: where}, "2 times, the last time at 2026-11-24T08:00:00.000Z"),
    ):
        lines = list(letter_lines(letter, 1, None, replays, full=False))
        assert any(line.startswith(f"replayed    {text}") for line in lines)
    assert letter_json(letter, 1, None, {letter.id: where})["replayed"]["times"] == 2
    assert letter_json(letter, 1, None, {})["replayed"] is False
    assert letter_json(letter, 1, None, None)["replayed"] is None
