"""What a request may cost is bounded: whoever must act finds a connection to PostgreSQL."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from pod_automation.api import app
from pod_automation.api.access import Caller, Tokens
from pod_automation.client.stores import MAX_CONNECTIONS
from scheduler.settings import Settings, load_settings

SECRET = "s" * 16
LOOKS = (
    *("/v1/audit", "/v1/controls", "/v1/pods", "/v1/stats?pod_id=p", "/v1/activities?pod_id=p"),
    *("/v1/history?pod_id=p", "/v1/activities/00000000-0000-4000-8000-000000000000"),
)


class Client:
    """Stands in for the client, and lets nobody go on but who acts."""

    looking = most = 0
    go_on = asyncio.Event()
    asked: list[Any] = []  # noqa: RUF012 - set by each test

    def __init__(self, _: Settings, **__: Any) -> None:
        """As the client's."""

    def acting_as(self, _: str) -> "Client":
        """As the client's."""
        return self

    async def pause(self, **_: Any) -> dict[str, int]:
        """As the client's."""
        return {"shards": 4}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        assert name.startswith("get_")

        async def look(*arguments: Any, **options: Any) -> list[Any]:
            Client.asked.append((name, arguments, options))
            Client.looking += 1
            Client.most = max(Client.most, Client.looking)
            try:
                await Client.go_on.wait()
            finally:
                Client.looking -= 1
            return []

        return look


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    monkeypatch.setattr(app, "PodAutomation", Client)
    Client.looking, Client.most, Client.asked, Client.go_on = 0, 0, [], asyncio.Event()
    served = app.an_app(load_settings(), Tokens([(Caller("ann", "operator"), SECRET)]))
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(served),
        base_url="http://api",
        headers={"Authorization": f"Bearer {SECRET}"},
    )


async def test_however_many_look_who_acts_does_not_wait(api: httpx.AsyncClient) -> None:
    looks = [asyncio.create_task(api.get(path)) for path in LOOKS * 3]
    async with asyncio.timeout(10):
        assert (await api.post("/v1/pause", json={"pod_id": "p"})).status_code == 200
        Client.go_on.set()
        assert {(await each).status_code for each in looks} == {200}
    assert 1 < Client.most < MAX_CONNECTIONS
    assert {name for name, _, _ in Client.asked} == {
        *("get_audit", "get_controls", "get_pods", "get_pod_engagement_stats", "get_activities"),
        *("get_histories", "get_activity_history"),
    }


async def test_whose_turn_does_not_come_is_told(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "TURN_S", 0.05)
    looks = [asyncio.create_task(api.get("/v1/audit")) for _ in range(app.LOOKS_AT_ONCE)]
    for _ in range(200):  # turns of the loop, until they are there
        await asyncio.sleep(0)
    assert Client.looking == app.LOOKS_AT_ONCE
    async with asyncio.timeout(10):
        told = await api.get("/v1/audit")
        assert (told.status_code, told.json()["type"]) == (503, "urn:pod-automation:problem:busy")
        Client.go_on.set()
        assert {(await each).status_code for each in looks} == {200}
        assert (await api.get("/v1/audit")).status_code == 200


async def test_what_is_looked_for_is_passed_on(api: httpx.AsyncClient) -> None:
    Client.go_on.set()
    await api.get("/v1/audit", params={"since": "2026-11-28T08:00:00Z", "limit": 7})
    await api.get("/v1/controls", params={"kind": "paused", "scope": "pod", "subject": "p"})
    await api.get("/v1/controls")
    since = datetime(2026, 11, 28, 8, tzinfo=UTC)
    any_of = {"kind": None, "scope": None, "subject": None, "limit": 1000}
    assert Client.asked == [
        ("get_audit", (7,), {"since": since, "reports": False}),
        ("get_controls", (), {**any_of, "kind": "paused", "scope": "pod", "subject": "p"}),
        ("get_controls", (), any_of),
    ]
    for wrong in ("audit?since=2026-11-28T08:00:00", "controls?kind=x", "controls?limit=1001"):
        assert (await api.get(f"/v1/{wrong}")).status_code == 422


async def test_of_a_body_with_many_mistakes_some_are_told(api: httpx.AsyncClient) -> None:
    for body, errors in (
        ({str(each): each for each in range(1000)}, 1),
        ({str(each): each for each in range(50)}, 20),
        ({"activity_ids": ["x"] * 1000}, 20),
    ):
        told = await api.post("/v1/cancel", json=body)
        assert told.status_code == 422
        assert len(told.json()["errors"]) == errors
