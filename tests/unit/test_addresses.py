"""An address that a driver would choke on is refused at the start, and by name."""

from pathlib import Path

import pytest

from scheduler.adapters.postgres_pool import open_pool
from scheduler.adapters.redis_client import client
from scheduler.adapters.redis_view import RedisWheelView
from scheduler.errors import SettingsError, StoreUnavailableError
from scheduler.migrations import migrate, schema_version
from scheduler.settings import load_settings


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ":9092",
        "h:",
        "h:x",
        "h:0",
        "h:70000",
        "h:٣",
        "h:1,",
        "h h:1",
        "x://h:1",
        "::1",
        "a..b:1",
        "a" * 64,
        "a:1,.b",
    ],
)
def test_brokers_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SettingsError, match=r"^POD_AUTOMATION_KAFKA_BOOTSTRAP: "):
        load_settings(kafka_bootstrap=text)


@pytest.mark.parametrize("text", ["h", "h:9092", "a:1,b:2", "[::1]:9092", "[::1]", "10.0.0.1:9092"])
def test_brokers_that_can(text: str) -> None:
    assert load_settings(kafka_bootstrap=text).kafka_bootstrap == text


def test_blanks_between_brokers_are_dropped() -> None:
    assert load_settings(kafka_bootstrap="a:1, b:2 ").kafka_bootstrap == "a:1,b:2"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("redis_url", "redis://h:x/0"),
        ("redis_url", "redis://h:70000/0"),
        ("redis_url", "redis://[::1/0"),
        ("redis_url", "redis://h/0\n"),
        ("postgres_dsn", "postgresql://h:x/y"),
        ("postgres_dsn", "postgresql://a:1,b:x/y"),
        ("postgres_dsn", "postgresql://[::1/y"),
        ("postgres_dsn", "postgresql://h/a b"),
        ("postgres_dsn", "postgresql://h/y?sslmode=require&"),
        ("redis_url", "redis://h/0?db"),
        ("redis_url", "redis://a..b/0"),
        ("redis_url", f"redis://:x@{'a' * 64}:6379/0"),
        ("postgres_dsn", "postgresql://a..b/y"),
        ("postgres_dsn", "postgresql://a:1,b..c:2/y"),
        ("postgres_dsn", "postgresql://a%2E.b/y"),
    ],
)
def test_urls_that_cannot_be_read(name: str, text: str) -> None:
    with pytest.raises(SettingsError, match=f"^POD_AUTOMATION_{name.upper()}: ") as refused:
        load_settings(**{name: text})
    assert text not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("redis_url", "redis://"),
        ("redis_url", "rediss://user:p%40ss@h:6380/3"),
        ("redis_url", "redis://[::1]:6379/0"),
        ("redis_url", "unix:///tmp/redis.sock?db=2"),
        ("redis_url", "redis://müller.example/0"),
        ("postgres_dsn", f"postgresql://u@%2Ftmp%2F{'a' * 64}/y"),
        ("postgres_dsn", "postgresql:///y"),
        ("postgres_dsn", "postgres://u:p@a:1,b:2,[::1]:3/y?target_session_attrs=read-write"),
    ],
)
def test_urls_that_can(name: str, text: str) -> None:
    assert getattr(load_settings(**{name: text}), name) == text


@pytest.mark.parametrize("name", ["api_host", "metrics_host"])
def test_where_nobody_can_listen(name: str) -> None:
    for text in ("", "a..b", "a" * 64, "a b", "h\0"):
        with pytest.raises(SettingsError, match=f"^POD_AUTOMATION_{name.upper()}: "):
            load_settings(**{name: text})
    for text in ("localhost", "::", "fe80::1%eth0", "a_b.example."):
        assert getattr(load_settings(**{name: text}), name) == text


@pytest.mark.parametrize("name", ["kafka_bootstrap", "redis_url", "postgres_dsn"])
@pytest.mark.parametrize(
    "rest",
    ["u:s3cret℀@h/0", ":[s3cret]word@h/0", "u:x[s3cret@h/0", ":[s3cret@h", ":/s3cret@h/0",
     ":x/s3cret@h/0", ":x#s3cret@h/0", ":x?s3cret@h/0", ":s3cret word@h", ":s3cret\0@h",
     ":s3cret@h:s3cret/0"],
)  # fmt: skip
def test_a_password_is_not_repeated(name: str, rest: str) -> None:
    scheme = "redis://" if name == "redis_url" else "postgresql://"
    with pytest.raises(SettingsError, match=f"^POD_AUTOMATION_{name.upper()}: ") as refused:
        load_settings(**{name: scheme + rest})
    assert "s3cret" not in str(refused.value)


def test_it_is_said_how_to_write_it() -> None:
    for text in ("redis://:a[b]c@h", "redis://:a/b@h", "redis://:a#b@h", "redis://:a?b@h"):
        with pytest.raises(SettingsError, match="quote what is special"):
            load_settings(redis_url=text)


@pytest.mark.parametrize(
    "url",
    ["redis://:secret@h/x", "redis://:secret@h/0?no_such_option=1", "redis://:secret@h?db=x",
     "redis://:secret@h?max_connections=-1", "redis://:secret@h?protocol=9",
     "rediss://:secret@h?ssl_cert_reqs=foo", "rediss://:secret@h?ssl_ca_certs=/nowhere.pem",
     "rediss://:secret@h?ssl_certfile=/dev/null", "rediss://:secret@h?ssl_ciphers=none"],
)  # fmt: skip
async def test_what_redis_cannot_read_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^POD_AUTOMATION_REDIS_URL: ") as refused:
        client(url, 1.0)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "options",
    ["host=127.0.0.1:secret", "port=secret", "sslmode=foo", "ssl_min_protocol_version=x",
     "sslmode=verify-ca&sslrootcert=/nowhere.pem", "sslmode=verify-ca&sslrootcert=/dev/null",
     "sslmode=require&sslcert=/nowhere.pem", "sslmode=require&sslcert=/dev/null"],
)  # fmt: skip
async def test_what_postgresql_cannot_read_is_a_wrong_setting(options: str) -> None:
    address = f"postgresql://:secret@/d?{options}"
    for ask in (open_pool(address, most=1), schema_version(address), migrate(address)):
        with pytest.raises(SettingsError, match=r"^POD_AUTOMATION_POSTGRES_DSN: ") as refused:
            await ask
        assert "secret" not in str(refused.value)


async def test_a_socket_that_is_not_there_yet_is_of_a_server_that_is_away(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        await schema_version(f"postgresql:///d?host={tmp_path}&port=1")
    wheel = RedisWheelView(f"unix://{tmp_path}/redis.sock")
    with pytest.raises(StoreUnavailableError):
        await wheel.now_ms()


@pytest.mark.parametrize(
    "name",
    ["like_max_delay_ms", "like_cap_window_ms", "backoff_initial_delay_ms", "session_timeout_ms",
     "completed_job_age_days", "failed_job_keep_count", "sweep_interval_ms", "stall_timeout_ms"],
)  # fmt: skip
def test_numbers_that_lead_out_of_every_calendar(name: str) -> None:
    with pytest.raises(SettingsError, match=f"POD_AUTOMATION_{name.upper()}"):
        load_settings(**{name: 10**18})
