"""Events as bytes: what is read, what is refused and why, what is written."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import codec
from schemas.codec import MAX_REASON_CHARS, InvalidEvent, decode, encode
from schemas.events import (
    EngagementExecuted,
    EngagementStatus,
    Event,
    ExecuteEngagement,
    PodCommand,
    PostDetected,
    WheelCursor,
)
from schemas.examples import EXAMPLES
from schemas.ids import execute_event_id, status_event_id
from schemas.times import millis, moment, rfc3339

EVENT_TYPES: tuple[type[Event], ...] = get_args(Event)
POST: dict[str, Any] = {
    "event_id": "event",
    "pod_id": "pod",
    "post_id": "post",
    "member_ids": ["ann", "bob"],
    "detected_at": "2026-11-24T08:00:00.000Z",
}
RESULT = json.loads(encode(EXAMPLES[EngagementExecuted]))


def test_a_post_is_read_with_its_defaults() -> None:
    assert decode(PostDetected, orjson.dumps(POST)) == PostDetected(
        event_id="event",
        pod_id="pod",
        post_id="post",
        member_ids=("ann", "bob"),
        detected_at=datetime(2026, 11, 24, 8, tzinfo=UTC),
        author_id=None,
        engagement_types=("like", "comment"),
        post_url=None,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"new": {"of": ["a", {"later": "version"}]}},
        {"author_id": None},
        {"member_ids": []},
        {"engagement_types": []},
        {"pod_id": "p" * 200},
        {"pod_id": "ünï\N{COMBINING DIAERESIS} \N{PILE OF POO} \u2028"},
        {"event_id": "e" * 256},
        {"detected_at": "2026-11-24T09:00:00+01:00"},
        {"detected_at": "1970-01-01T00:00:00Z"},
        {"detected_at": "1969-12-31T23:00:00-01:00"},
        {"detected_at": "2200-01-01T00:00:00Z"},
    ],
)
def test_it_is_read(changes: dict[str, object]) -> None:
    decode(PostDetected, orjson.dumps(POST | changes))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "no value (a tombstone)"),
        (b"", "the value is empty"),
        (b" ", "not JSON: input data is empty: line 1 column 1 (char 0)"),
        (b"\xff{}", "not UTF-8: invalid start byte at byte 0"),
        ('{"a": "ä"}'.encode("latin-1"), "not UTF-8: invalid continuation byte at byte 7"),
        (b"\xef\xbb\xbf{}", "not JSON: "),
        (b"{", "not JSON: "),
        (b"{'a': 1}", "not JSON: "),
        (b'{"pod_id": "\\ud800"}', "not JSON: no low surrogate in string"),
        (b'{"pod_id": NaN}', "not JSON: "),
        (b'{"pod_id": 1e999}', "not JSON: "),
        (b'{"pod_id": %s}' % (b"9" * 5000), "not JSON: "),
        (b"[" * 100_000 + b"]" * 100_000, "not JSON: "),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "not JSON: "),
        (b"null", "Expected `object`, got `null`"),
        (b"[]", "Expected `object`, got `array`"),
        (b"12", "Expected `object`, got `int`"),
        (b"{}", "Object missing required field `event_id`"),
    ],
)
def test_what_is_no_event_is_refused(data: bytes | None, reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(PostDetected, data)

    assert caught.value.reason.startswith(reason)
    assert str(caught.value) == caught.value.reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pod_id": 7}, "Expected `str`, got `int` - at `$.pod_id`"),
        ({"pod_id": None}, "Expected `str`, got `null` - at `$.pod_id`"),
        ({"pod_id": ""}, "Expected `str` of length >= 1 - at `$.pod_id`"),
        ({"pod_id": "p" * 201}, "Expected `str` of length <= 200 - at `$.pod_id`"),
        ({"pod_id": "p" * 10_000_000}, "Expected `str` of length <= 200 - at `$.pod_id`"),
        ({"event_id": "e" * 257}, "Expected `str` of length <= 256 - at `$.event_id`"),
        ({"pod_id": "a\0"}, "a control character in an id - at `$.pod_id`"),
        ({"pod_id": "a\n"}, "a control character in an id - at `$.pod_id`"),
        ({"pod_id": "a\x1fb"}, "a control character in an id - at `$.pod_id`"),
        ({"author_id": "a\x7f"}, "a control character in an id - at `$.author_id`"),
        ({"member_ids": ["a", "\x9b"]}, "a control character in an id - at `$.member_ids[1]`"),
        ({"member_ids": ["a", 3]}, "Expected `str`, got `int` - at `$.member_ids[1]`"),
        ({"member_ids": "ann"}, "Expected `array`, got `str` - at `$.member_ids`"),
        ({"member_ids": ["a"] * 10_001}, "Expected `array` of length <= 10000"),
        ({"engagement_types": ["share"]}, "Invalid enum value 'share' - at `$.engagement_types["),
        ({"engagement_types": ["like"] * 17}, "Expected `array` of length <= 16"),
        ({"post_url": "u" * 4097}, "Expected `str` of length <= 4096 - at `$.post_url`"),
        ({"detected_at": 1795500000}, "Expected `datetime`, got `int` - at `$.detected_at`"),
        ({"detected_at": "1795500000"}, "Invalid RFC3339 encoded datetime - at `$.detected_at`"),
        ({"detected_at": "2026-02-30T00:00:00Z"}, "Invalid RFC3339 encoded datetime"),
        ({"detected_at": "2026-11-24T08:00:00"}, "Expected `datetime` with a timezone component"),
        ({"detected_at": "1969-12-31T23:59:59.999Z"}, "a time outside of 1970 to 2200 - at `$.d"),
        ({"detected_at": "2200-01-01T00:00:00.001Z"}, "a time outside of 1970 to 2200 - at `$.d"),
        ({"detected_at": "2200-01-01T00:00:00-00:01"}, "a time outside of 1970 to 2200"),
        ({"detected_at": "0001-01-01T00:00:00+23:59"}, "a time outside of 1970 to 2200"),
        ({"detected_at": "9999-12-31T23:59:59.999999-23:59"}, "a time outside of 1970 to 2200"),
    ],
)
def test_a_post_with_a_wrong_field_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(PostDetected, orjson.dumps(POST | changes))

    assert caught.value.reason.startswith(reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"attempt": "1"}, "Expected `int`, got `str` - at `$.attempt`"),
        ({"attempt": 1.0}, "Expected `int`, got `float` - at `$.attempt`"),
        ({"attempt": True}, "Expected `int`, got `bool` - at `$.attempt`"),
        ({"attempt": 0}, "Expected `int` >= 1 - at `$.attempt`"),
        ({"attempt": 256}, "Expected `int` <= 255 - at `$.attempt`"),
        ({"outcome": "done"}, "Invalid enum value 'done' - at `$.outcome`"),
        ({"retryable": "yes"}, "Expected `bool`, got `str` - at `$.retryable`"),
    ],
)
def test_a_result_with_a_wrong_field_is_refused(changes: dict[str, object], reason: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        decode(EngagementExecuted, orjson.dumps(RESULT | changes))

    assert caught.value.reason == reason


@pytest.mark.parametrize("event_type", EVENT_TYPES)
def test_every_field_without_a_default_is_required(event_type: type[Event]) -> None:
    wire = orjson.loads(encode(EXAMPLES[event_type]))
    for field in msgspec.structs.fields(event_type):
        if field.required:
            rest = {name: value for name, value in wire.items() if name != field.name}
            with pytest.raises(InvalidEvent, match=f"missing required field `{field.name}`"):
                decode(event_type, orjson.dumps(rest))


def test_a_reason_is_one_short_printable_line_that_still_says_where() -> None:
    wild = "\x1b[2J\r\n\N{RIGHT-TO-LEFT OVERRIDE}\N{PILE OF POO}" * 1000

    reason = InvalidEvent(f"cannot be {wild} - at `$.here`").reason

    assert reason.startswith(r"cannot be \x1b[2J\r\n\u202e" + "\N{PILE OF POO}")
    assert reason.endswith(" - at `$.here`")
    assert len(reason) == MAX_REASON_CHARS
    assert reason.isprintable()


# What is written


@pytest.mark.parametrize("clock", ["25:00", "9pm", "22:00\n", ""])
def test_a_time_of_day_that_is_none_is_told_as_such(clock: str) -> None:
    command = {
        "event_id": "e",
        "command": "quiet_hours",
        "issued_at": "2026-11-24T08:00:00Z",
        "quiet_from": clock,
    }
    with pytest.raises(InvalidEvent, match=r"^not a time of day like 22:00 - at `\$.quiet_from`$"):
        decode(PodCommand, orjson.dumps(command))


def test_times_are_written_in_utc_with_milliseconds_and_none_is_left_out() -> None:
    berlin = timezone(timedelta(hours=1))
    event = EngagementStatus(
        event_id="e",
        activity_id="a",
        pod_id="p",
        post_id="q",
        member_id="m",
        engagement_type="like",
        status="scheduled",
        attempt=1,
        at=datetime(2026, 11, 24, 9, 0, 0, 1_999, tzinfo=berlin),
    )

    assert encode(event) == (
        b'{"event_id":"e","activity_id":"a","pod_id":"p","post_id":"q","member_id":"m",'
        b'"engagement_type":"like","status":"scheduled","attempt":1,'
        b'"at":"2026-11-24T08:00:00.001Z"}'
    )


def test_defaults_are_written_out() -> None:
    wire = orjson.loads(encode(decode(PostDetected, orjson.dumps(POST))))

    assert wire == POST | {"engagement_types": ["like", "comment"]}


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(WheelCursor(seq=1, nonce="\ud800", gen="g"), id="a lone surrogate"),
        pytest.param(
            msgspec.structs.replace(
                EXAMPLES[PostDetected],
                detected_at=datetime(2026, 1, 1),  # noqa: DTZ001 - the mistake in question
            ),
            id="a time without a zone",
        ),
    ],
)
def test_what_has_no_bytes_is_refused(event: Event) -> None:
    with pytest.raises(InvalidEvent, match="cannot be written as JSON"):
        encode(event)


def test_an_execute_engagement_by_its_values() -> None:
    event = decode(
        ExecuteEngagement,
        codec.fired("a", "p", "q", 'm"ü', "comment", 2, 1_000, 61_001)[0],
    )

    assert event == ExecuteEngagement(
        event_id=execute_event_id("a", 2),
        activity_id="a",
        pod_id="p",
        post_id="q",
        member_id='m"ü',
        engagement_type="comment",
        attempt=2,
        scheduled_for=moment(1_000),
        dispatched_at=moment(61_001),
    )


def test_an_engagement_status_by_its_values() -> None:
    bare = codec.engagement_status("a", "p", "q", "m", "like", "failed", 3, 5_000)
    full = codec.engagement_status(
        "a", "p", "q", "m", "like", "failed", 3, 5_000, scheduled_for_ms=4_000, reason="gone"
    )

    assert decode(EngagementStatus, bare) == EngagementStatus(
        event_id=status_event_id("a", "failed", 3),
        activity_id="a",
        pod_id="p",
        post_id="q",
        member_id="m",
        engagement_type="like",
        status="failed",
        attempt=3,
        at=moment(5_000),
    )
    assert orjson.loads(full) == orjson.loads(bare) | {
        "scheduled_for": rfc3339(4_000),
        "reason": "gone",
    }


@pytest.mark.parametrize("event_type", [ExecuteEngagement, EngagementStatus])
def test_the_short_way_writes_the_same_bytes_as_the_types(event_type: type[Event]) -> None:
    event = EXAMPLES[event_type]
    if isinstance(event, ExecuteEngagement):
        short = codec.fired(
            event.activity_id,
            event.pod_id,
            event.post_id,
            event.member_id,
            event.engagement_type,
            event.attempt,
            millis(event.scheduled_for),
            millis(event.dispatched_at),
        )[0]
    else:
        assert isinstance(event, EngagementStatus)
        assert event.scheduled_for is not None
        short = codec.engagement_status(
            event.activity_id,
            event.pod_id,
            event.post_id,
            event.member_id,
            event.engagement_type,
            event.status,
            event.attempt,
            millis(event.at),
            millis(event.scheduled_for),
        )

    assert short == encode(event)


TEXTS = st.text(
    st.one_of(
        st.sampled_from('"\\/{}%\x00\x1f\x7f\u2028\ufeffü😀'),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=12,
)


@given(TEXTS, TEXTS, TEXTS, TEXTS, st.none() | TEXTS, st.none() | TEXTS)
def test_whatever_the_text_the_short_way_writes_what_orjson_does(
    activity: str, pod: str, post: str, member: str, reason: str | None, event_id: str | None
) -> None:
    ids = {"activity_id": activity, "pod_id": pod, "post_id": post, "member_id": member}
    execute, status = codec.fired(activity, pod, post, member, "like", 3, 1_000, 61_001)
    assert execute == orjson.dumps(
        {
            "event_id": f"{activity}:execute:3",
            **ids,
            "engagement_type": "like",
            "attempt": 3,
            "scheduled_for": rfc3339(1_000),
            "dispatched_at": rfc3339(61_001),
        }
    )
    assert status == codec.engagement_status(
        activity, pod, post, member, "like", "dispatched", 3, 61_001, 1_000
    )
    assert codec.engagement_status(
        activity, pod, post, member, "comment", "failed", 2, 5_000, 7_000, reason, event_id
    ) == orjson.dumps(
        {
            "event_id": f"{activity}:failed:2" if event_id is None else event_id,
            **ids,
            "engagement_type": "comment",
            "status": "failed",
            "attempt": 2,
            "at": rfc3339(5_000),
            "scheduled_for": rfc3339(7_000),
            **({} if reason is None else {"reason": reason}),
        }
    )


def test_text_that_is_not_unicode_has_no_bytes() -> None:
    for ids in (("\ud800", "p", "q", "m"), ("a", "\ud800", "q", "m")):
        with pytest.raises(orjson.JSONEncodeError):
            codec.fired(*ids, "like", 1, 0, 0)
