"""The AsyncAPI 3.0 document: topics, events, headers, and what is promised for each.

Written from the engine's side: it `receive`s what others send to it.
"""

from schemas import topics
from schemas.events import (
    EngagementExecuted,
    EngagementStatus,
    Event,
    ExecuteEngagement,
    PodCommand,
    PostDetected,
    WheelCursor,
)
from schemas.headers import CE_SOURCES, CE_TYPES, CONTENT_TYPE, SPECVERSION
from schemas.ids import dead_letter_id
from schemas.json_schema import Json, example, prose, schema_of

VERSION = "1.0.0"

EVENTS_BY_TOPIC: dict[str, type[Event]] = {
    topics.POST_DETECTED: PostDetected,
    topics.EXECUTE_ENGAGEMENT: ExecuteEngagement,
    topics.ENGAGEMENT_EXECUTED: EngagementExecuted,
    topics.ENGAGEMENT_STATUS: EngagementStatus,
    topics.POD_COMMANDS: PodCommand,
    topics.WHEEL_CURSOR: WheelCursor,
}

_ABOUT = """\
Staggered engagement on Kafka, Redis and PostgreSQL. A post that is detected becomes one like and \
one comment for each member of its pod, spread over time; when one falls due the engine asks an \
executor to do it, and records what became of it.

Names of topics are given without `TOPIC_PREFIX`. All topics have the same number of partitions. \
Values are JSON in UTF-8 with CloudEvents 1.0 headers in binary mode. Fields that are not \
described are ignored."""

_PROMISES = {
    topics.POST_DETECTED: "Send it as often as you like: a post's activities are planned once. The "
    "post's partition, from the default partitioner (murmur2 of the key), is where all that "
    "follows is sent.",
    topics.EXECUTE_ENGAGEMENT: "Exactly once for `read_committed` consumers, and never before "
    "`scheduled_for`. Answer into the partition it was read from.",
    topics.ENGAGEMENT_EXECUTED: "Send it as often as you like: a result is counted once. Best into "
    "the partition that the `execute-engagement` was read from; elsewhere it is forwarded. The "
    "engine itself reports here, as a failure, that no result has come in time.",
    topics.ENGAGEMENT_STATUS: "`dispatched` is exactly once for `read_committed` consumers, in one "
    "transaction with its `execute-engagement`. All other statuses are at least once; copies "
    "carry the same derived `event_id`.",
    topics.POD_COMMANDS: "Send it as often as you like: what is done already is not done again. A "
    "command about one post has the post's key and goes to its partition; elsewhere it is "
    "forwarded. `cancel` is written to every partition. The engine itself reports here which "
    "timers it has found overdue (`postpone`, `expire`): no key, in the shard's partition.",
    topics.WHEEL_CURSOR: "Internal and compacted: one record a shard, with the shard's number as "
    "key. Exactly once for `read_committed` consumers, in one transaction with the batch it "
    "closes. Of use to other programs only for measuring.",
    topics.DEAD_LETTER: "At least once; `ce_id`, the position of the original, tells copies apart. "
    "Key, value and headers are those of the original. What the broker refuses as too large is "
    "cut, and says so in `truncated_from`.",
}
_RECEIVED = (
    topics.POST_DETECTED,
    topics.ENGAGEMENT_EXECUTED,
    topics.POD_COMMANDS,
    topics.ENGAGEMENT_STATUS,
    topics.WHEEL_CURSOR,
)
_SENT = (
    topics.EXECUTE_ENGAGEMENT,
    topics.ENGAGEMENT_EXECUTED,
    topics.ENGAGEMENT_STATUS,
    topics.POD_COMMANDS,
    topics.WHEEL_CURSOR,
    topics.DEAD_LETTER,
)
# Sent by others, who may leave the CloudEvents headers out.
_FOREIGN = (topics.POST_DETECTED, topics.ENGAGEMENT_EXECUTED, topics.POD_COMMANDS)

_BINDING_VERSION = "0.5.0"
_CLOUD_EVENT = "CloudEventHeaders"
_OPTIONAL = "OptionalCloudEventHeaders"
_DEAD_LETTER = "DeadLetter"


def asyncapi() -> Json:
    """The whole document."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:pod-automation:engine",
        "info": {
            "title": "Pod automation engine",
            "version": VERSION,
            "description": _ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "channels": {_camel(topic): _channel(topic) for topic in _PROMISES},
        "operations": {
            **{f"receive{_pascal(topic)}": _operation("receive", topic) for topic in _RECEIVED},
            **{f"send{_pascal(topic)}": _operation("send", topic) for topic in _SENT},
        },
        "components": {
            "messages": {
                **{_pascal(topic): _message(topic) for topic in EVENTS_BY_TOPIC},
                _DEAD_LETTER: _dead_letter(),
            },
            "schemas": {
                **{event.__name__: schema_of(event) for event in EVENTS_BY_TOPIC.values()},
                _CLOUD_EVENT: {**_ce_headers(), "required": list(_ce_headers()["properties"])},
                _OPTIONAL: _ce_headers(),
                "DeadLetterHeaders": _dead_letter_headers(),
            },
        },
    }


def _channel(topic: str) -> Json:
    name = _pascal(topic)
    kafka: Json = {"topic": topic, "bindingVersion": _BINDING_VERSION}
    if topic == topics.WHEEL_CURSOR:
        kafka["topicConfiguration"] = {"cleanup.policy": ["compact"]}
    return {
        "address": topic,
        "title": topic,
        "description": _PROMISES[topic],
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"kafka": kafka},
    }


def _operation(action: str, topic: str) -> Json:
    channel = _camel(topic)
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "description": _PROMISES[topic],
        "messages": [{"$ref": f"#/channels/{channel}/messages/{_pascal(topic)}"}],
    }


def _message(topic: str) -> Json:
    event_type = EVENTS_BY_TOPIC[topic]
    ours: list[Json] = [
        {"$ref": f"#/components/schemas/{_CLOUD_EVENT}"},
        {"properties": {"ce_type": {"const": CE_TYPES[event_type]}}},
    ]
    foreign: Json = {"$ref": f"#/components/schemas/{_OPTIONAL}"}
    key = "The shard's number." if event_type is WheelCursor else "`post_id`."
    return {
        "name": CE_TYPES[event_type],
        "title": topic,
        "summary": prose(event_type).split("\n\n", maxsplit=1)[0],
        "description": prose(event_type),
        "contentType": CONTENT_TYPE,
        "headers": foreign if topic in _FOREIGN else {"allOf": ours},
        "payload": {"$ref": f"#/components/schemas/{event_type.__name__}"},
        "bindings": {"kafka": _key({"type": "string", "description": key})},
        "examples": [{"headers": _example_headers(event_type), "payload": example(event_type)}],
    }


def _dead_letter() -> Json:
    return {
        "name": topics.DEAD_LETTER,
        "title": topics.DEAD_LETTER,
        "summary": "A record that can never be applied, with the reason.",
        "description": _PROMISES[topics.DEAD_LETTER],
        "contentType": "application/octet-stream",
        "headers": {"$ref": "#/components/schemas/DeadLetterHeaders"},
        "payload": {"description": "The bytes of the original, whatever they are."},
        "bindings": {"kafka": _key({"description": "The key of the original."})},
    }


def _key(schema: Json) -> Json:
    return {"key": schema, "bindingVersion": _BINDING_VERSION}


def _ce_headers() -> Json:
    """CloudEvents 1.0, Kafka Protocol Binding 1.0.2, section 3.2."""
    return {
        "type": "object",
        "description": "CloudEvents 1.0 in binary mode; every header is text in UTF-8.",
        "properties": {
            "ce_id": {"type": "string", "minLength": 1, "description": "`event_id`, or alike."},
            "ce_time": {"type": "string", "format": "date-time"},
            "ce_specversion": {"const": SPECVERSION},
            "ce_type": {"type": "string", "minLength": 1},
            "ce_source": {"type": "string", "format": "uri-reference", "minLength": 1},
            "content-type": {"const": CONTENT_TYPE},
        },
    }


def _dead_letter_headers() -> Json:
    number = {"type": "string", "pattern": "^(0|[1-9][0-9]*)$"}
    properties: dict[str, Json] = {
        "ce_id": {
            "type": "string",
            "description": "`<topic>/<partition>/<offset>` of the original.",
            "examples": [dead_letter_id(topics.POST_DETECTED, 3, 1041)],
        },
        "source_topic": {"type": "string"},
        "source_partition": number,
        "source_offset": number,
        "reason": {"type": "string", "description": "Why it can never be applied, in one line."},
    }
    return {
        "type": "object",
        "description": "The headers of the original and these; numbers are decimal text.",
        "required": list(properties),
        "properties": {
            **properties,
            "original_ce_id": {"type": "string", "description": "The original's `ce_id`."},
            "truncated_from": {
                **number,
                "description": "Size of the original value in bytes; only where it was cut.",
            },
        },
    }


def _example_headers(event_type: type[Event]) -> Json:
    payload = example(event_type)
    return {
        "ce_id": payload.get("event_id", "3:9f86d081884c7d65"),
        "ce_time": next((value for name, value in payload.items() if name in _WHEN), _CURSOR_TIME),
        "ce_specversion": SPECVERSION,
        "ce_type": CE_TYPES[event_type],
        "ce_source": CE_SOURCES[event_type],
        "content-type": CONTENT_TYPE,
    }


_WHEN = ("detected_at", "dispatched_at", "executed_at", "at", "issued_at")
_CURSOR_TIME = "2026-11-24T08:05:00.012Z"


def _pascal(topic: str) -> str:
    return topic.title().replace("-", "")


def _camel(topic: str) -> str:
    return topic[0] + _pascal(topic)[1:]
