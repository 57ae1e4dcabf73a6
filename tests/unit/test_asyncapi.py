"""The AsyncAPI document: whole by the rules of AsyncAPI 3.0, and true of what is sent."""

import json
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from schemas import generate
from schemas.asyncapi import EVENTS_BY_TOPIC
from schemas.codec import encode
from schemas.events import Event
from schemas.examples import EXAMPLES
from schemas.headers import dead_letter_headers, event_headers
from schemas.topics import Topics
from tests.fixtures.json_validator import validator

ASYNCAPI = json.loads((generate.FOLDER / "asyncapi.json").read_bytes())


def everything(node: object) -> Iterator[object]:
    yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from everything(child)


def resolved(ref: str) -> Any:
    assert ref.startswith("#/"), f"{ref} leaves the document"
    node: Any = ASYNCAPI
    for part in ref[2:].split("/"):
        node = node[part]
    return node


def test_all_references_resolve() -> None:
    refs = [
        node["$ref"] for node in everything(ASYNCAPI) if isinstance(node, dict) if "$ref" in node
    ]

    assert refs
    assert all(resolved(ref) for ref in refs)


def test_what_asyncapi_requires_is_there() -> None:
    assert ASYNCAPI["asyncapi"] == "3.0.0"
    assert ASYNCAPI["info"]["title"]
    assert ASYNCAPI["info"]["version"]
    for name, channel in ASYNCAPI["channels"].items():
        assert re.fullmatch(r"[A-Za-z0-9_-]+", name)
        assert channel["address"] == channel["title"]
        assert channel["messages"]
    for operation in ASYNCAPI["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert operation["description"]
        channel = operation["channel"]["$ref"]
        assert all(
            message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"]
        )
    used = {operation["channel"]["$ref"] for operation in ASYNCAPI["operations"].values()}
    assert used == {f"#/channels/{name}" for name in ASYNCAPI["channels"]}


def test_every_topic_that_has_an_event_has_a_channel() -> None:
    addresses = {channel["address"] for channel in ASYNCAPI["channels"].values()}

    assert addresses == set(Topics.prefixed())


@pytest.mark.parametrize(("topic", "event_type"), EVENTS_BY_TOPIC.items())
def test_what_we_send_is_valid_by_its_message(topic: str, event_type: type[Event]) -> None:
    (message,) = (m for m in ASYNCAPI["components"]["messages"].values() if m["title"] == topic)
    headers = validator(message["headers"] | {"components": ASYNCAPI["components"]})
    payload = validator(message["payload"] | {"components": ASYNCAPI["components"]})

    headers.validate({k: v.decode() for k, v in event_headers(event_type, "id", 1_001)})
    payload.validate(orjson.loads(encode(EXAMPLES[event_type])))

    for example in message["examples"]:
        headers.validate(example["headers"])
        payload.validate(example["payload"])


def test_headers_are_required_on_what_we_send_and_optional_on_what_we_receive() -> None:
    def bare_is_valid(name: str) -> bool:
        headers = ASYNCAPI["components"]["messages"][name]["headers"]
        return validator(headers | {"components": ASYNCAPI["components"]}).is_valid({})

    assert {name for name in ASYNCAPI["components"]["messages"] if bare_is_valid(name)} == {
        "PostDetected",
        "EngagementExecuted",
        "PodCommands",
    }


def test_a_dead_letter_has_the_headers_that_are_promised() -> None:
    sent = dead_letter_headers([("ce_id", b"theirs")], "post-detected", 3, 1041, "not JSON")
    schema = ASYNCAPI["components"]["schemas"]["DeadLetterHeaders"]

    validator(schema).validate({name: value.decode() for name, value in sent})

    assert {name for name, _ in sent} <= schema["properties"].keys()
