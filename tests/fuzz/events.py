"""Events that are almost right: a good one with something wrong, as JSON text that no encoder of
ours would write.

All of it comes from the `Random` that is given. Ids begin with `fuzz`, so that whatever happens to
be valid is about activities of its own.
"""

from random import Random
from typing import Any, get_args

import orjson

from schemas.events import (
    EngagementExecuted,
    EngagementStatus,
    Event,
    ExecuteEngagement,
    PodCommand,
    PostDetected,
    WheelCursor,
)

EVENT_TYPES: tuple[type[Event], ...] = get_args(Event)

UUID = "0f8fad5b-d9cb-469f-a165-70867728950e"

# On both sides of every bound that there is: of the calendar, of the contract, of RFC 3339.
TIMES = (
    "1970-01-01T00:00:00Z",
    "1969-12-31T23:59:59.999Z",
    "1970-01-01T01:00:00+01:00",
    "1970-01-01T00:59:59+01:00",
    "2200-01-01T00:00:00Z",
    "2200-01-01T00:00:00.001Z",
    "2199-12-31T23:59:59.999999999Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999-23:59",
    "9999-12-31T23:59:59Z",
    "10000-01-01T00:00:00Z",
    "2026-02-29T00:00:00Z",
    "2024-02-29T12:00:00Z",
    "2026-06-30T23:59:60Z",
    "2026-11-24T24:00:00Z",
    "2026-11-24T08:00:00",
    "2026-11-24",
    "2026-11-24 08:00:00Z",
    "2026-11-24t08:00:00z",
    "2026-11-24T08:00:00+24:00",
    "2026-11-24T08:00:00-00:00",
    "2026-11-24T08:00:00.Z",
    "2026-11-24T08:00:00,5Z",
    "2026-11-24T08:00Z",
    "-2026-11-24T08:00:00Z",
    "1795507200",
    "",
)

# As JSON text, since no encoder writes most of these.
NASTY = (
    "null", "true", "false", "0", "-0", "-1", "1", "255", "256", "1.0", "1e0", "1.5", "-0.0",
    "2147483647", "2147483648", "4503599627370496", "9007199254740993", "9223372036854775807",
    "9223372036854775808", "18446744073709551615", "18446744073709551616", "-9223372036854775809",
    "1e308", "1e309", "-1e400", "1e-400", "9" * 400, "NaN", "Infinity", "0x10", "01", "+1", "1_0",
    '""', '" "', '"\\u0000"', '"fuzz\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\ud83d\\ude00"',
    '"\\n"', '"\\u001f"', '"\\u007f"', '"\\u0085"', '"\\u2028"', '"\\u202e"', '"\\ufeff"', '"\\x"',
    '"fuzz\n"', "[]", "{}", "[[]]", '[""]', "[null]", '{"a":1}', '["fuzz",1]', "'fuzz'",
    "undefined",
    '"like"', '"comment"', '"share"', '["like"]', '["like","like"]', '["comment"]', '"LIKE"',
    '"executed"', '"failed"', '"dispatched"', '"schedule"', '"dispatch"', "604800000", "604800001",
    f'"{UUID}"', f'"{UUID.upper()}"', f'"{{{UUID}}}"', f'"{UUID[:-1]}"', f'"{UUID},{UUID}"',
)  # fmt: skip


def _id(rng: Random, kind: str, most: int = 200) -> str:
    chance = rng.random()
    if chance < 0.6:
        return f"fuzz-{kind}-{rng.randrange(50)}"
    if chance < 0.7:
        return f"{rng.getrandbits(128):032x}"
    if chance < 0.8:
        bits = f"{rng.getrandbits(128):032x}"
        return "-".join((bits[:8], bits[8:12], bits[12:16], bits[16:20], bits[20:]))
    # At their limit, in characters of one to four bytes.
    text = "fuzz" + rng.choice("aé\N{SNOWMAN}\N{GRINNING FACE}") * most
    return text[: rng.choice((5, most - 1, most, most + 1))]


def _activity(rng: Random) -> dict[str, Any]:
    return {
        "event_id": _id(rng, "event", 256),
        "activity_id": _id(rng, "activity"),
        "pod_id": _id(rng, "pod"),
        "post_id": _id(rng, "post"),
        "member_id": _id(rng, "member"),
        "engagement_type": rng.choice(("like", "comment")),
        "attempt": rng.choice((1, 1, 2, 3, 254, 255, 256, 0)),
    }


def _time(rng: Random) -> str:
    return rng.choice(TIMES) if rng.random() < 0.3 else "2026-11-24T08:00:00.000Z"


def fields(rng: Random, event_type: type[Event]) -> dict[str, Any]:
    """The fields of an event of `event_type`, mostly right."""
    if event_type is PostDetected:
        made: dict[str, Any] = {
            "event_id": _id(rng, "event", 256),
            "pod_id": _id(rng, "pod"),
            "post_id": _id(rng, "post"),
            "member_ids": [_id(rng, "member") for _ in range(rng.randrange(5))],
            "detected_at": _time(rng),
        }
        if rng.random() < 0.3:
            made["engagement_types"] = rng.choices(("like", "comment"), k=rng.randrange(4))
        if rng.random() < 0.3:
            made["author_id"] = _id(rng, "member")
        if rng.random() < 0.3:
            made["post_url"] = "u" * rng.choice((0, 10, 4096, 4097))
        return made
    if event_type is ExecuteEngagement:
        return _activity(rng) | {"scheduled_for": _time(rng), "dispatched_at": _time(rng)}
    if event_type is EngagementExecuted:
        made = _activity(rng) | {
            "outcome": rng.choice(("executed", "failed")),
            "executed_at": _time(rng),
        }
        if rng.random() < 0.5:
            made["error"] = "e" * rng.choice((0, 10, 5000))
            made["retryable"] = rng.random() < 0.5
            made["retry_after_ms"] = rng.choice((0, 1, 604_800_000, 604_800_001, -1))
        return made
    if event_type is EngagementStatus:
        statuses = ("dispatched", "dispatched", "scheduled", "executed", "lost")
        return _activity(rng) | {"status": rng.choice(statuses), "at": _time(rng)}
    if event_type is PodCommand:
        made = {
            "event_id": _id(rng, "event", 256),
            "command": rng.choice(("schedule", "dispatch", "dispatch", "stop")),
            "issued_at": _time(rng),
            "post_id": _id(rng, "post"),
            "activity_ids": [_id(rng, "activity") for _ in range(rng.randrange(5))],
        }
        if rng.random() < 0.3:
            made["like_cap"] = rng.choice((1, 0, -1, 2**31, 2**63))
        if rng.random() < 0.05:
            # Of a pod that nobody has: what it would cancel of others is theirs.
            made |= {"command": "cancel", "pod_id": "fuzz-nobody"}
        return made
    assert event_type is WheelCursor
    return {
        "seq": rng.choice((0, 1, 7, 2**31, 2**52, 2**53, 2**63, 2**64 - 1, -1)),
        "nonce": _id(rng, "nonce"),
        "gen": _id(rng, "gen"),
    }


def almost(rng: Random, event_type: type[Event]) -> bytes:
    """An event of `event_type` as JSON, with up to three things wrong."""
    parts = {name: orjson.dumps(value) for name, value in fields(rng, event_type).items()}
    extra: list[tuple[str, bytes]] = []
    for _ in range(rng.randrange(4)):
        name = rng.choice(tuple(parts)) if parts else "event_id"
        match rng.randrange(9):
            case 0:
                parts.pop(name, None)
            case 1 | 2 | 3:
                parts[name] = rng.choice(NASTY).encode()
            case 4:
                # Which of two the reader takes must not matter to anybody.
                extra.append((name, rng.choice(NASTY).encode()))
            case 5:
                extra.append(
                    (rng.choice(("", "x", "Event_id", "\x7f")), rng.choice(NASTY).encode())
                )
            case 6:
                parts[name] = _large(rng)
            case 7:
                parts[name] = b"[" + parts.get(name, b"1") + b"]"
            case 8:
                parts[name] = b'"%b"' % rng.choice(TIMES).encode()
    text = b",".join(orjson.dumps(name) + b":" + part for name, part in [*parts.items(), *extra])
    return b"{" + text + b"}"


def _large(rng: Random) -> bytes:
    match rng.randrange(40):
        case 0:
            return b'"%b"' % (b"m" * rng.choice((999_000, 500_000)))
        case 1:
            depth = rng.choice((500, 1023, 1024, 1025, 100_000))
            return b"[" * depth + b"]" * depth
        case 2:
            depth = rng.choice((500, 1024, 50_000))
            return b'{"a":' * depth + b"1" + b"}" * depth
        case 3:
            return (
                b"[" + b",".join(b'"fuzz-m%d"' % n for n in range(rng.choice((99, 10_001)))) + b"]"
            )
        case 4:
            return b"-" + b"9" * 200_000
        case 5:
            return b'"' + b"\\ud83d\\ude00" * 20_000 + b'"'
        case _:
            return b'"' + b"l" * rng.choice((199, 200, 201, 256, 257, 4096, 4097)) + b'"'
