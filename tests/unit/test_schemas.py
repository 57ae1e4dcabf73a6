"""The JSON Schema files: fresh, and of one mind with the codec."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest

from schemas import generate, topics
from schemas.asyncapi import EVENTS_BY_TOPIC
from schemas.codec import InvalidEvent, decode, encode
from schemas.events import Event, PostDetected
from schemas.examples import EXAMPLES
from tests.fixtures.json_validator import validator

FOLDER = generate.FOLDER


def committed(topic: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((FOLDER / f"json/{topic}.schema.json").read_bytes())
    return schema


def test_the_committed_files_are_what_the_types_say() -> None:
    assert generate.stale() == [], f"run: {generate.COMMAND}"


def test_stale_missing_and_surplus_files_are_named_and_renewed(tmp_path: Path) -> None:
    assert len(generate.write(tmp_path)) == len(EVENTS_BY_TOPIC) + 1
    assert generate.stale(tmp_path) == []

    (tmp_path / "asyncapi.json").write_text("{}")
    (tmp_path / "json/post-detected.schema.json").unlink()
    (tmp_path / "json/gone.schema.json").write_text("{}")

    changed = ["asyncapi.json", "json/gone.schema.json", "json/post-detected.schema.json"]
    assert generate.stale(tmp_path) == changed
    assert generate.write(tmp_path) == changed
    assert generate.write(tmp_path) == []


def test_the_check_fails_with_the_names_and_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "stale", lambda: ["json/wheel-cursor.schema.json"])

    assert generate.main(["--check"]) == 1

    told = capsys.readouterr().err
    assert "schemas/json/wheel-cursor.schema.json" in told
    assert "python -m schemas.generate" in told


def test_the_check_passes_as_a_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "schemas.generate", "--check"],
        cwd=FOLDER.parent,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# JSON Schema


@pytest.mark.parametrize(("topic", "event_type"), EVENTS_BY_TOPIC.items())
def test_an_encoded_event_is_valid(topic: str, event_type: type[Event]) -> None:
    schema = committed(topic)
    check = validator(schema)

    check.validate(orjson.loads(encode(EXAMPLES[event_type])))

    for example in schema["examples"]:
        check.validate(example)
        assert decode(event_type, orjson.dumps(example)) == EXAMPLES[event_type]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:pod-automation:schema:{topic}:1"


def test_every_event_has_a_schema() -> None:
    assert set(EVENTS_BY_TOPIC.values()) == set(get_args(Event)) == set(EXAMPLES)


@pytest.mark.parametrize("topic", EVENTS_BY_TOPIC)
def test_everything_is_described_and_unknown_fields_are_allowed(topic: str) -> None:
    schema = committed(topic)

    assert schema["description"]
    assert schema.get("additionalProperties", True) is True
    for name, field in schema["properties"].items():
        assert field.get("description"), name


GOOD: dict[str, Any] = orjson.loads(encode(EXAMPLES[PostDetected]))
POSTS_TO_READ: list[dict[str, object]] = [
    {},
    {"unknown": [1, {"deep": None}]},
    {"author_id": None, "post_url": None},
    {"member_ids": []},
    {"engagement_types": ["like", "like"]},
    {"event_id": "e" * 256},
    {"pod_id": "p" * 200},
    {"pod_id": "\N{PILE OF POO}" * 200},
    {"pod_id": "with space, ü and \u2028"},
    {"detected_at": "2026-11-24T09:00:00.5+01:00"},
]
POSTS_TO_REFUSE: list[object] = [
    None,
    [],
    "text",
    *({name: value for name, value in GOOD.items() if name != gone} for gone in list(GOOD)[:5]),
    GOOD | {"event_id": ""},
    GOOD | {"event_id": "e" * 257},
    GOOD | {"pod_id": 7},
    GOOD | {"pod_id": None},
    GOOD | {"pod_id": ""},
    GOOD | {"pod_id": "p" * 201},
    GOOD | {"pod_id": "a\0"},
    GOOD | {"pod_id": "a\n"},
    GOOD | {"pod_id": "\n"},
    GOOD | {"pod_id": "\x1ba"},
    GOOD | {"post_id": "a\x7fb"},
    GOOD | {"author_id": "\x85"},
    GOOD | {"author_id": 1},
    GOOD | {"member_ids": None},
    GOOD | {"member_ids": "ann"},
    GOOD | {"member_ids": ["ann", 2]},
    GOOD | {"member_ids": ["ann", ""]},
    GOOD | {"member_ids": ["a"] * 10_001},
    GOOD | {"engagement_types": None},
    GOOD | {"engagement_types": ["share"]},
    GOOD | {"engagement_types": ["like"] * 17},
    GOOD | {"post_url": "u" * 4097},
    GOOD | {"detected_at": None},
    GOOD | {"detected_at": 1795500000},
    GOOD | {"detected_at": "yesterday"},
    GOOD | {"detected_at": "2026-11-24T08:00:00"},
    GOOD | {"detected_at": "2026-02-30T08:00:00Z"},
]


@pytest.mark.parametrize("changes", POSTS_TO_READ)
def test_schema_and_codec_both_accept(changes: dict[str, object]) -> None:
    value = GOOD | changes

    assert validator(committed(topics.POST_DETECTED)).is_valid(value)
    decode(PostDetected, orjson.dumps(value))


@pytest.mark.parametrize("value", POSTS_TO_REFUSE)
def test_schema_and_codec_both_refuse(value: object) -> None:
    assert not validator(committed(topics.POST_DETECTED)).is_valid(value)
    with pytest.raises(InvalidEvent):
        decode(PostDetected, orjson.dumps(value))


def test_no_document_names_a_host_that_must_be_asked() -> None:
    for path, content in generate.documents().items():
        hosts = set(re.findall(rb"https?://([^/\"]+)", content))
        assert hosts <= {b"json-schema.org", b"social.example"}, path
