"""CloudEvents headers, and those of a dead letter."""

from typing import get_args

import pytest

from schemas.events import Event, ExecuteEngagement
from schemas.headers import CE_SOURCES, CE_TYPES, dead_letter_headers, event_headers


def test_an_event_carries_the_headers_of_a_cloud_event() -> None:
    assert dict(event_headers(ExecuteEngagement, "ünique", 1_001)) == {
        "ce_id": "ünique".encode(),
        "ce_time": b"1970-01-01T00:00:01.001Z",
        "ce_specversion": b"1.0",
        "ce_type": b"pod-automation.execute-engagement.v1",
        "ce_source": b"/pod-automation/engine",
        "content-type": b"application/json",
    }


@pytest.mark.parametrize("event_type", get_args(Event))
def test_every_event_has_a_type_and_a_source(event_type: type[Event]) -> None:
    assert CE_TYPES[event_type].startswith("pod-automation.")
    assert CE_SOURCES[event_type].startswith("/pod-automation/")
    names = [name for name, _ in event_headers(event_type, "e", 0)]
    assert len(names) == len(set(names)) == 6


def test_no_two_events_share_a_type() -> None:
    assert len(set(CE_TYPES.values())) == len(CE_TYPES)


def test_headers_may_be_added_to_without_touching_those_of_others() -> None:
    event_headers(ExecuteEngagement, "e", 0).append(("traceparent", b"00"))

    assert len(event_headers(ExecuteEngagement, "e", 0)) == 6


def test_a_dead_letter_keeps_the_original_headers_and_says_where_it_came_from() -> None:
    original = [("ce_id", b"theirs"), ("x", b"\xff"), ("x", b"twice")]

    assert dead_letter_headers(original, "post-detected", 3, 1041, "not JSON \ud800") == [
        ("original_ce_id", b"theirs"),
        ("x", b"\xff"),
        ("x", b"twice"),
        ("ce_id", b"post-detected/3/1041"),
        ("source_topic", b"post-detected"),
        ("source_partition", b"3"),
        ("source_offset", b"1041"),
        ("reason", b"not JSON \\ud800"),
    ]
