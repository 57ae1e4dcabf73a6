"""`publish` checks everything before it sends anything."""

import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pod_automation.cli.event_lines import MAX_LINE_BYTES, MAX_PROBLEMS, Event, Problem, check, read
from pod_automation.cli.exit_codes import ExitCode
from schemas.codec import InvalidEvent, decode
from schemas.events import PostDetected
from tests.unit.program import call

GOOD = (
    b'{"event_id": "e1", "pod_id": "p", "post_id": "x", "member_ids": ["ann", "bob"],'
    b' "detected_at": "2026-11-24T08:00:00Z", "colour": "green"}'
)
BAD = b'{"event_id": "e2", "pod_id": "p"}'

OPTIONS = ("publish", "--pod", "p", "--post", "x", "--members", "ann,bob", "--dry-run")


def test_options_make_an_event() -> None:
    outcome = call(*OPTIONS, "--author", "ann", "--type", "like", "--url", "https://example.org/x")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out == "1 event is valid, none was sent\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--pod", "p", "--member", "m"), "--post"),
        (("--post", "x", "--member", "m"), "--pod"),
        (("--pod", "p", "--post", "x"), "--member"),
        (("--pod", "p", "--post", "x", "--members", ",,"), "--member"),
        (("--pod", "p", "--post", "x", "--member", "m", "--type", "share"), "share"),
        (("--pod", "p", "--post", "x", "--member", "m", "--detected-at", "now"), "detected_at"),
        (("--pod", "p", "--post", "x", "--member", "m", "--url", "u" * 5000), "post_url"),
        (("--pod", "a\tb", "--post", "x", "--member", "m"), "pod_id"),
        (("--pod", "p", "--post", "x\udcff", "--member", "m"), "UTF-8"),
        (("--pod", "p", "--file", "events.ndjson"), "--file"),
        # As a script gives them whose variables are not set.
        (("--pod", "", "--post", "", "--members", ""), "--member"),
        (("--pod", "p", "--post", "x", "--members", " , "), "--member"),
        (("--pod", "", "--post", "x", "--members", "m"), "pod_id"),
    ],
)
def test_wrong_options(arguments: tuple[str, ...], named: str) -> None:
    outcome = call("publish", *arguments)
    assert outcome.code == ExitCode.USAGE
    assert outcome.shows_no_traceback()
    assert named in outcome.err


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.ndjson", tmp_path):
        outcome = call("publish", "--file", str(path))
        assert outcome.code == ExitCode.USAGE
        assert path.name[:8] in re.sub(r"[\s│]", "", outcome.err)


@pytest.mark.parametrize("through", ["file", "standard input", "dash"])
def test_one_bad_line_holds_everything_back(through: str, tmp_path: Path) -> None:
    lines = b"\n".join([GOOD, b"", BAD, GOOD, b"no json"])
    arguments, stdin = ["publish", "--json"], b""
    if through == "file":
        (tmp_path / "events").write_bytes(lines)
        arguments += ["--file", str(tmp_path / "events")]
    else:
        stdin = lines
        arguments += ["--file", "-"] if through == "dash" else []
    outcome = call(*arguments, stdin=stdin)
    # Kafka is away: had anything been sent, this would be another code.
    assert outcome.code == ExitCode.USAGE
    result = json.loads(outcome.out)
    assert (result["published"], result["valid"], result["invalid"]) == (0, 2, 2)
    assert [each["line"] for each in result["problems"]] == [3, 5]
    assert "line 3: Object missing required field `post_id`" in outcome.err
    assert "line 5: not JSON" in outcome.err
    assert "--skip-invalid" in outcome.err


def test_bad_lines_may_be_skipped() -> None:
    outcome = call("publish", "--skip-invalid", "--dry-run", stdin=b"\n".join([BAD, GOOD]))
    assert outcome.code == 0
    assert "line 1: " in outcome.err
    assert outcome.out == "1 event is valid, none was sent; 1 line is no event and skipped\n"


def test_what_is_sent_is_what_was_given() -> None:
    (event,) = read(io.BytesIO(b"\xef\xbb\xbf  " + GOOD + b" \r\n\r\n"))
    assert isinstance(event, Event)
    assert event.value == GOOD
    assert event.fields == decode(PostDetected, GOOD)


def test_what_was_read_before_is_neither_checked_nor_sent() -> None:
    file = io.BytesIO(b"read by somebody else\n" + GOOD + b"\n")
    file.readline()
    assert (check(file).valid, check(file).invalid) == (1, 0)
    assert [each.value for each in read(file) if isinstance(each, Event)] == [GOOD]


def test_a_line_too_long_is_not_read_into_memory() -> None:
    lines = list(read(io.BytesIO(b"[" * (3 * MAX_LINE_BYTES) + b"\n" + GOOD)))
    assert lines[0] == Problem(1, f"longer than {MAX_LINE_BYTES:,} bytes")
    assert isinstance(lines[1], Event)


def test_a_mark_before_a_line_too_long_changes_nothing() -> None:
    line = b"\xef\xbb\xbf" + b"[" * (MAX_LINE_BYTES - 1)
    assert len(list(read(io.BytesIO(line + b"[" * 10 + b"\n")))) == 1


def test_a_line_of_the_longest_length_is_read() -> None:
    padding = b" " * (MAX_LINE_BYTES - len(GOOD))
    for end in (b"", b"\n", b"\n" + GOOD):
        first, *_ = read(io.BytesIO(GOOD + padding + end))
        assert isinstance(first, Event)


def test_problems_are_counted_beyond_those_kept() -> None:
    found = check(io.BytesIO(b"?\n" * (MAX_PROBLEMS + 5)))
    assert found.invalid == MAX_PROBLEMS + 5
    assert len(found.problems) == MAX_PROBLEMS
    outcome = call("publish", stdin=b"?\n" * (MAX_PROBLEMS + 5))
    assert "... and 85 more" in outcome.err


def mangled(line: bytes) -> st.SearchStrategy[bytes]:
    """`line` with something cut out and something put in."""
    cuts = st.tuples(st.integers(0, len(line)), st.integers(0, len(line)), st.binary(max_size=6))
    return cuts.map(lambda cut: line[: min(cut[:2])] + cut[2] + line[max(cut[:2]) :])


NASTY = st.sampled_from(
    [GOOD, BAD, b"", b"null", b"[]", b"\x00", b"\xff\xfe", b"[" * 2000, b"1e999", b'"\\ud800"']
)
LINES = st.lists(st.one_of(NASTY, mangled(GOOD), st.binary(max_size=40)), max_size=8)


def is_event(line: bytes) -> bool:
    try:
        decode(PostDetected, line.strip())
    except InvalidEvent:
        return False
    return True


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(LINES, st.booleans())
@example([b"\r", GOOD], False)
@example([b"\xef\xbb\xbf" + GOOD], False)
def test_whatever_the_input_is(pieces: list[bytes], skip: bool) -> None:
    """No traceback, the right lines are named, and Kafka is asked only if all is well."""
    text = b"\n".join(pieces)
    lines = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    bad = [n for n, line in enumerate(lines, 1) if line.strip() and not is_event(line)]
    good = sum(map(is_event, lines))
    outcome = call("publish", "--json", *["--skip-invalid"] * skip, stdin=text)
    assert outcome.shows_no_traceback()
    named = [int(each) for each in re.findall(r"^line (\d+): ", outcome.err, re.MULTILINE)]
    assert named == bad
    if bad and not skip:
        assert outcome.code == ExitCode.USAGE
    elif good:
        assert outcome.code == ExitCode.STORE_AWAY
        return
    else:
        assert outcome.code == ExitCode.OK
    result = json.loads(outcome.out)
    assert (result["published"], result["valid"], result["invalid"]) == (0, good, len(bad))
