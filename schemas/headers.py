"""CloudEvents 1.0 headers, binary mode (Kafka Protocol Binding 1.0.2): on everything we send.

`ce_source` and `ce_id` together name an event; both are the same in every copy of it, so that a
consumer may tell doubles apart by the headers alone.
"""

from collections.abc import Iterable

from schemas.events import (
    EngagementExecuted,
    EngagementStatus,
    Event,
    ExecuteEngagement,
    PodCommand,
    PostDetected,
    WheelCursor,
)
from schemas.ids import dead_letter_id
from schemas.times import rfc3339

Headers = list[tuple[str, bytes]]

SPECVERSION = "1.0"

# On dead letters, beside what `dead_letter_headers` adds.
HISTORY = "history"
"""Of a failed engagement: its failed attempts, as JSON."""
REPLAYED_FROM = "replayed_from"
"""On a record that is a dead letter sent again: the id of the dead letter."""

CONTENT_TYPE = "application/json"

CE_TYPES: dict[type[Event], str] = {
    PostDetected: "pod-automation.post-detected.v1",
    ExecuteEngagement: "pod-automation.execute-engagement.v1",
    EngagementExecuted: "pod-automation.engagement-executed.v1",
    EngagementStatus: "pod-automation.engagement-status.v1",
    PodCommand: "pod-automation.pod-command.v1",
    WheelCursor: "pod-automation.wheel-cursor.v1",
}

# Our own senders; an upstream system or a foreign executor names itself.
CE_SOURCES: dict[type[Event], str] = {
    PostDetected: "/pod-automation/client",
    ExecuteEngagement: "/pod-automation/engine",
    EngagementExecuted: "/pod-automation/executor",
    EngagementStatus: "/pod-automation/engine",
    PodCommand: "/pod-automation/client",
    WheelCursor: "/pod-automation/engine",
}


def _constant(event_type: type[Event], source: str) -> tuple[tuple[str, bytes], ...]:
    return (
        ("ce_specversion", SPECVERSION.encode()),
        ("ce_type", CE_TYPES[event_type].encode()),
        ("ce_source", source.encode()),
        ("content-type", CONTENT_TYPE.encode()),
    )


_CONSTANT = {event_type: _constant(event_type, CE_SOURCES[event_type]) for event_type in CE_TYPES}
_OVERDUE = _constant(PodCommand, CE_SOURCES[ExecuteEngagement])
_TIMEOUT = _constant(EngagementExecuted, CE_SOURCES[ExecuteEngagement])


def event_headers(event_type: type[Event], event_id: str, at_ms: int) -> Headers:
    """The headers of an event of `event_type`, with `event_id` as `ce_id`.

    `at_ms` is when it happened, in milliseconds UTC.
    """
    return [("ce_id", event_id.encode()), *headers_behind_id(event_type, at_ms)]


def headers_behind_id(event_type: type[Event], at_ms: int) -> Headers:
    """All headers of `event_headers` but `ce_id`: the same for every event of a batch."""
    return [("ce_time", rfc3339(at_ms).encode()), *_CONSTANT[event_type]]


def timeout_headers_behind_id(at_ms: int) -> Headers:
    """The same, for the results by which the engine itself gives attempts up."""
    return [("ce_time", rfc3339(at_ms).encode()), *_TIMEOUT]


def overdue_headers_behind_id(at_ms: int) -> Headers:
    """The same, for the commands by which the engine itself reports overdue timers."""
    return [("ce_time", rfc3339(at_ms).encode()), *_OVERDUE]


def dead_letter_headers(
    original: Iterable[tuple[str, bytes]], topic: str, partition: int, offset: int, reason: str
) -> Headers:
    """The headers of a dead letter: the `original` ones, then where it came from and why.

    Readers differ in which of two `ce_id` they take, so an original one becomes `original_ce_id`.
    A `reason` that is not Unicode is escaped.
    """
    return [
        *(("original_ce_id" if name == "ce_id" else name, value) for name, value in original),
        ("ce_id", dead_letter_id(topic, partition, offset).encode()),
        ("source_topic", topic.encode()),
        ("source_partition", b"%d" % partition),
        ("source_offset", b"%d" % offset),
        ("reason", reason.encode(errors="backslashreplace")),
    ]
