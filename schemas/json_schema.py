"""JSON Schema (draft 2020-12) of the events, from their types.

What it cannot say, `schemas.codec.decode` checks all the same: that a time lies between 1970 and
2200. Fields that are not described are allowed and ignored.
"""

from inspect import cleandoc
from typing import Any

import msgspec
import orjson

from schemas.codec import encode
from schemas.events import Event
from schemas.examples import EXAMPLES

Json = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
VERSION = 1


def schema_of(event_type: type[Event]) -> Json:
    """The schema of one event, with its example and without `$schema` and `$id`."""
    _, components = msgspec.json.schema_components([event_type])
    # All fields are plain: a type that holds another one would need $defs here.
    schema: Json = components[event_type.__name__]
    schema["description"] = prose(event_type)
    schema["examples"] = [example(event_type)]
    return schema


def document(event_type: type[Event], name: str) -> Json:
    """The schema of one event as a document of its own; `name` is that of its topic."""
    return {
        "$schema": DRAFT,
        # A name, not an address: there is no host to ask.
        "$id": f"urn:pod-automation:schema:{name}:{VERSION}",
        **schema_of(event_type),
    }


def example(event_type: type[Event]) -> Json:
    """The example of `event_type`, as it is on the wire."""
    wire: Json = orjson.loads(encode(EXAMPLES[event_type]))
    return wire


def prose(event_type: type[Event]) -> str:
    """The docstring of `event_type`, one line a paragraph."""
    paragraphs = cleandoc(event_type.__doc__ or "").split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)
