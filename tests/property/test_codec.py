"""Whatever the bytes are, decode reads or refuses them; what encode writes, decode reads back."""

import json
from typing import get_args

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.codec import MAX_REASON_CHARS, InvalidEvent, decode, encode
from schemas.events import (
    MAX_SEQ,
    EngagementExecuted,
    EngagementStatus,
    EngagementType,
    Event,
    ExecuteEngagement,
    Outcome,
    PostDetected,
    StatusName,
    WheelCursor,
)
from schemas.examples import EXAMPLES
from schemas.times import LATEST_MS, moment

EVENT_TYPES: tuple[type[Event], ...] = get_args(Event)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
event_types = st.sampled_from(EVENT_TYPES)


def refused_cleanly(event_type: type[Event], data: bytes | None) -> None:
    try:
        decode(event_type, data)
    except InvalidEvent as error:
        assert 0 < len(error.reason) <= MAX_REASON_CHARS  # noqa: PT017 - it may also be read
        assert error.reason.isprintable()  # noqa: PT017


@given(event_types, st.binary())
@example(PostDetected, b"[" * 1_000_000)
def test_any_bytes_are_read_or_refused(event_type: type[Event], data: bytes) -> None:
    refused_cleanly(event_type, data)


@given(event_types, json_values)
def test_any_json_is_read_or_refused(event_type: type[Event], value: object) -> None:
    refused_cleanly(event_type, json.dumps(value).encode())


@given(event_types, st.data())
def test_any_field_may_hold_anything(event_type: type[Event], data: st.DataObject) -> None:
    wire = orjson.loads(encode(EXAMPLES[event_type]))
    names = data.draw(st.sets(st.sampled_from(sorted(wire)), min_size=1))

    wire |= {name: data.draw(json_values) for name in names}

    refused_cleanly(event_type, json.dumps(wire).encode())


@given(event_types, st.data())
def test_a_byte_that_was_changed_on_the_way(event_type: type[Event], data: st.DataObject) -> None:
    wire = bytearray(encode(EXAMPLES[event_type]))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))

    refused_cleanly(event_type, bytes(wire[: data.draw(st.integers(0, len(wire)))]))


ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=200)
texts = st.text(st.characters(exclude_categories=["Cs"]))
instants = st.integers(0, LATEST_MS).map(moment)
attempts = st.integers(1, 255)
types = st.sampled_from(get_args(EngagementType))
activity = {
    "event_id": ids,
    "activity_id": ids,
    "pod_id": ids,
    "post_id": ids,
    "member_id": ids,
    "engagement_type": types,
    "attempt": attempts,
}
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        PostDetected,
        event_id=ids,
        pod_id=ids,
        post_id=ids,
        member_ids=st.lists(ids, max_size=5).map(tuple),
        detected_at=instants,
        author_id=st.none() | ids,
        engagement_types=st.lists(types, max_size=3).map(tuple),
        post_url=st.none() | texts,
    ),
    st.builds(ExecuteEngagement, **activity, scheduled_for=instants, dispatched_at=instants),
    st.builds(
        EngagementExecuted,
        **activity,
        outcome=st.sampled_from(get_args(Outcome)),
        executed_at=instants,
        error=st.none() | texts,
        retryable=st.booleans(),
    ),
    st.builds(
        EngagementStatus,
        **activity,
        status=st.sampled_from(get_args(StatusName)),
        at=instants,
        reason=st.none() | texts,
        scheduled_for=st.none() | instants,
    ),
    st.builds(WheelCursor, seq=st.integers(0, MAX_SEQ), nonce=texts, gen=texts),
)


@given(events)
def test_what_is_written_is_read_back(event: Event) -> None:
    assert decode(type(event), encode(event)) == event
