"""Whatever stands in the environment: settings that work, or an error that names its variable."""

import os
from datetime import timedelta
from inspect import signature
from random import Random
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from aiokafka.conn import collect_hosts
from asyncpg import connect_utils

from scheduler.activity import PostPlan
from scheduler.adapters.postgres_errors import translated
from scheduler.adapters.redis_client import client
from scheduler.errors import SettingsError
from scheduler.outcome import retry_delay_ms
from scheduler.planner import plan
from scheduler.settings import ENV_PREFIX, Settings, load_settings
from schemas.codec import decode, encode
from schemas.events import PostDetected
from schemas.examples import EXAMPLES
from schemas.times import LATEST_MS, moment, rfc3339
from tests.fuzz.size import RECORDS, randomness, told

# A night's records take their time.
pytestmark = pytest.mark.timeout(120 + RECORDS // 200)

NAMES = tuple(Settings.model_fields)

VALUES = (
    "", " ", "0", "1", "-1", "+1", "01", "1.0", "1.5", "1e3", "1e400", "-0", "0x10", "1_000", "٣",
    "2147483648", "9223372036854775807", "9223372036854775808", "18446744073709551616", "9" * 400,
    "nan", "inf", "-inf", "true", "None", "null", "[]", "{}", '"1"', "1;2", "1 ", " 1", "1\n",
    "info", "INFO", "debug", "x", "\N{SNOWMAN}", "\ud800", "x" * 5000, "a.b-c_d", "../x", "a" * 101,
    "redis://", "redis://:@/", "redis://h:99999999/0", "redis://h:x/0", "redis://h/x", "rediss://h",
    "redis://[::1", "unix://", "unix:///tmp/x?db=y", "http://x", "redis://u:p@h:1/0?x=y",
    "redis://h?socket_timeout=x", "redis://h?db=x", "redis://h?max_connections=-1",
    "postgres://", "postgresql://", "postgresql://h:x/y", "postgresql://[::1/y", "postgresql:///",
    "postgresql://h/y?sslmode=maybe", "postgresql://u:p%@h/y", "postgresql://h:1,i:2/y",
    "postgresql://h/y?application_name=z&foo=bar", "postgresql://h:70000/y", "host=h dbname=y",
    ",", ":", "h:", ":9092", "h:x", "h:99999999", "h:-1", "h:1,", "h:1,,i:2", "[::1]:9092", "h h:1",
    "PLAINTEXT://h:9092", "::1",
)  # fmt: skip


def environment(rng: Random) -> dict[str, str]:
    """One to four variables, of which the operating system can hold each."""
    made = {}
    for name in rng.sample(NAMES, rng.randint(1, 4)):
        chance = rng.random()
        if chance < 0.7:
            text = rng.choice(VALUES)
        elif chance < 0.9:
            text = str(rng.randint(-5, 10 ** rng.randint(1, 8)))
        else:
            text = rng.randbytes(rng.randint(1, 20)).decode("utf-8", "surrogateescape")
        # Bytes that are not UTF-8 arrive as lone surrogates; NUL cannot be in an environment.
        text = text.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
        made[ENV_PREFIX + name.upper()] = text.replace("\x00", "")
    return made


def test_settings_work_or_name_themselves() -> None:
    good = 0
    for number in range(RECORDS // 5):
        rng = randomness("settings", number)
        made = environment(rng)
        with (
            told("settings", number, repr(made).encode()),
            patch.dict(os.environ, made, clear=True),
        ):
            try:
                settings = load_settings()
            except SettingsError as error:
                named(str(error), made)
            else:
                good += 1
                works(settings)
    assert 0.02 < good / (RECORDS // 5) < 0.6


def named(message: str, made: dict[str, str]) -> None:
    """Each line names one of the variables that are set, and none repeats a value."""
    for line in message.splitlines():
        assert any(name in line for name in made), line
        assert line.isprintable()
        assert len(line) < 300
    for name in ("REDIS_URL", "POSTGRES_DSN"):
        given = made.get(ENV_PREFIX + name, "")
        # It may carry a password.
        assert len(given) < 6 or given not in message


def works(settings: Settings) -> None:
    """What every process does with them before it asks a store."""
    assert settings.topics.inputs
    event = decode(PostDetected, encode(EXAMPLES[PostDetected]))
    crowd = msgspec.structs.replace(
        event, member_ids=tuple(f"m{n}" for n in range(50)), detected_at=moment(LATEST_MS)
    )
    for each in plan(crowd, settings.policy, PostPlan(), 0):
        # Who announces it must find words for the time, and PostgreSQL must have it.
        assert rfc3339(each.scheduled_for_ms)
    for attempt in (1, settings.retries.attempts):
        assert 0 <= retry_delay_ms(settings.retries, "a", attempt) <= LATEST_MS
    assert collect_hosts(settings.kafka_bootstrap)
    assert min(settings.result_timeout_ms, settings.session_timeout_ms) > 0
    timedelta(days=settings.completed_job_age_days + settings.failed_job_age_days)
    for made, name in ((_redis, "REDIS_URL"), (_postgres, "POSTGRES_DSN")):
        try:
            made(settings)
        except SettingsError as error:
            assert str(error).startswith(ENV_PREFIX + name)  # noqa: PT017 - either is right


def _redis(settings: Settings) -> None:
    client(settings.redis_url, 1.0)


def _postgres(settings: Settings) -> None:
    with translated():
        # Reads the address as it would for a connection, and makes none.
        parse: Any = vars(connect_utils)["_parse_connect_dsn_and_args"]
        names = set(signature(parse).parameters) - {"dsn"}
        parse(dsn=settings.postgres_dsn, **dict.fromkeys(names))
