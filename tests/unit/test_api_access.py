"""Who may use the API, and how often, and where."""

import asyncio

import pytest

from pod_automation.api.access import Caller, Limiter, Tokens
from pod_automation.api.serving import serve
from scheduler.errors import SettingsError
from scheduler.settings import load_settings

SECRET, OTHER = "s" * 32, "o" * 16


def test_a_token_is_somebodys() -> None:
    tokens = Tokens.parsed(f"operator:ann:{SECRET},\n viewer:bob@home:{OTHER}\n")
    assert len(tokens) == 2
    assert tokens.caller(SECRET) == Caller("ann", "operator")
    assert tokens.caller(OTHER) == Caller("bob@home", "viewer")
    for nobody in ("", "x", SECRET[:-1], SECRET + "s", "ünïcode"):
        assert tokens.caller(nobody) is None


def test_without_tokens_there_is_nobody() -> None:
    assert len(Tokens.parsed("")) == len(Tokens.parsed(" \n, ")) == 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (SECRET, "entry 1 is not role:name:token"),
        (f"operator:ann:{SECRET} viewer:{OTHER}", "entry 2 is not role:name:token"),
        (f"admin:ann:{SECRET}", "has the role admin: viewer or operator is meant"),
        ("viewer:ann:short", "less than 16 characters"),
        (f"viewer:ann:{SECRET} operator:bob:{SECRET}", "entry 2 has a token that another entry"),
        ("viewer:ann:" + "ü" * 16, "entry 1 is not role:name:token, in ASCII"),
        ("viewer:ann:" + "\udcff" * 16, "entry 1 is not role:name:token, in ASCII"),
    ],
)
def test_what_is_no_token_is_said_without_it(text: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as raised:
        Tokens.parsed(text)
    for secret in (SECRET, OTHER, "short"):
        assert secret not in str(raised.value)


def test_operators_may_what_viewers_may() -> None:
    viewer, operator = Caller("v", "viewer"), Caller("o", "operator")
    assert viewer.may("viewer")
    assert operator.may("viewer")
    assert operator.may("operator")
    assert not viewer.may("operator")


def test_each_has_so_many_requests_a_minute() -> None:
    limiter = Limiter(3)
    assert [limiter.wait_s("a") for _ in range(3)] == [0, 0, 0]
    assert 0 < limiter.wait_s("a") <= 60
    assert limiter.wait_s("b") == 0


async def test_a_host_that_nobody_can_look_up_is_a_wrong_setting() -> None:
    settings = load_settings().model_copy(update={"api_host": "a..b"})
    with pytest.raises(SettingsError, match="POD_AUTOMATION_API_HOST"):
        await serve(settings, Tokens([]), asyncio.Event())
