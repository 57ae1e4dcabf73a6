"""The HTTP API on real stores, as a process of the command line."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from pod_automation.cli.exit_codes import ExitCode
from scheduler.adapters.kafka_consumer import reading
from scheduler.settings import Settings
from schemas.ids import activity_id
from tests.integration.test_cli import pod_automation, running
from tests.integration.test_client import engine, rows, until
from tests.integration.worker_bench import send_raw

pytestmark = pytest.mark.timeout(240)

NOBODYS = "00000000-0000-4000-8000-000000000000"
VIEWER, OPERATOR = "v" * 32, "o" * 32
TOKENS = f"viewer:vera:{VIEWER} operator:otto:{OPERATOR}"
QUIET = {"pod_id": "p", "from": "22:00", "until": "07:00"}


@asynccontextmanager
async def served(environment: Mapping[str, str], **more: str) -> AsyncIterator[str]:
    """The address of an API that is up."""
    settings = {
        "POD_AUTOMATION_API_PORT": "0",
        "POD_AUTOMATION_API_TOKENS": TOKENS,
        "POD_AUTOMATION_LOG_LEVEL": "info",
        **more,
    }
    async with running({**environment, **settings}, "api") as process:
        assert process.stderr is not None
        async with asyncio.timeout(30):
            while b"address=" not in (line := await process.stderr.readline()):
                assert line, "it has ended"
        address = line.decode().split("address=")[1].split()[0].strip("'\"")
        # Read on, or it would wait for somebody who reads.
        reading = asyncio.create_task(process.stderr.read())
        try:
            yield address
        finally:
            process.terminate()
            assert await process.wait() == ExitCode.OK
            await reading


@asynccontextmanager
async def asked(address: str, token: str | None = OPERATOR) -> AsyncIterator[httpx.AsyncClient]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as client:
        yield client


def an_event(post: str, members: list[str], **fields: Any) -> dict[str, Any]:
    return {
        "event_id": str(uuid4()),
        "pod_id": "p",
        "post_id": post,
        "member_ids": members,
        "detected_at": datetime.now(UTC).isoformat(),
        "engagement_types": ["comment"],
        **fields,
    }


LARGE = an_event("x", [f"{number:0200d}" for number in range(10_000)])


async def test_all_of_it_by_http(environment: dict[str, str], settings: Settings) -> None:
    async with engine(environment), served(environment) as address, asked(address) as api:
        previewed = (await api.post("/v1/plan", json=an_event("x", ["a", "b"]))).json()
        assert [each["member_id"] for each in previewed["engagements"]] == ["a", "b"]
        assert await rows(settings) == {}
        sent = await api.post("/v1/posts", json=an_event("x", ["a", "b", "c"]))
        assert sent.status_code == 200
        assert sent.json()["topic"] == settings.topics.post_detected

        async def planned() -> bool:
            return len(await rows(settings)) == 3

        await until(planned)
        assert (await api.get("/v1/pods")).json() == {"pods": ["p"], "next": None}
        assert (await api.get("/v1/stats", params={"pod_id": "p"})).json()["scheduled"] == 3
        first = (await api.get("/v1/activities", params={"pod_id": "p", "limit": 2})).json()
        more = {"pod_id": "p", "limit": 2, "after": first["next"]}
        second = (await api.get("/v1/activities", params=more)).json()
        for limit, is_last in ((2, False), (3, True), (4, True)):
            page = (await api.get("/v1/activities", params={"pod_id": "p", "limit": limit})).json()
            assert (page["next"] is None) == is_last
        assert (await api.get("/v1/pods", params={"limit": 1})).json()["next"] is None
        listed = [each["activity_id"] for each in first["activities"] + second["activities"]]
        assert sorted(listed) == sorted(await rows(settings))
        assert second["next"] is None

        paused = await api.post("/v1/pause", json={"pod_id": "p", "reason": "why not"})
        assert (paused.status_code, paused.json()["shards"]) == (200, settings.partitions)
        (control,) = (await api.get("/v1/controls")).json()["controls"]
        assert (control["actor"], control["reason"]) == ("api:otto", "why not")
        await api.post("/v1/resume", json={"pod_id": "p"})
        name = activity_id("p", "x", "a", "comment")
        at = "2031-05-06T07:08:09.000Z"
        moved = await api.post("/v1/reschedule", json={"activity_id": name, "at": at})
        assert moved.json()["rescheduled"] == 1
        out = await api.post("/v1/opt-out", json={"member_id": "b"})
        assert out.json()["cancelled"] == 1
        cancelled = await api.post("/v1/cancel", json={"post_id": "x"})
        assert (cancelled.json()["cancelled"], cancelled.json()["final"]) == (2, 1)
        history = (await api.get(f"/v1/activities/{name}")).json()
        page = (await api.get("/v1/history", params={"post_id": "x", "limit": 1})).json()
        found = list(page["histories"])
        while page["next"]:
            params = {"post_id": "x", "limit": 1, "after": page["next"]}
            page = (await api.get("/v1/history", params=params)).json()
            found += page["histories"]
        assert history in found
        assert len({each["activity_id"] for each in found}) == len(found) == 3
        assert [step["what"] for step in history["steps"]] == [
            "planned",
            "rescheduled",
            "cancelled",
        ]
        audit = (await api.get("/v1/audit")).json()["commands"]
        assert [each["command"] for each in audit] == [
            "cancel",
            "opt_out",
            "reschedule",
            "resume",
            "pause",
        ]
        seen = (await api.get("/v1/overview")).json()
        assert seen["workers"] == seen["dispatchers"] == 1
        assert seen["activities"]["cancelled"] == 3
        assert len(seen["live"]["series"]) == 60


async def test_a_dispatcher_is_drained_and_a_member_forgotten_by_http(
    environment: dict[str, str], settings: Settings
) -> None:
    async with engine(environment), served(environment) as address, asked(address) as api:
        assert (await api.post("/v1/posts", json=an_event("x", ["a", "b"]))).status_code == 200

        async def planned() -> bool:
            return len(await rows(settings)) == 2

        await until(planned)
        why = {"instance_id": "host-7", "reason": "new kernel"}
        drained = await api.post("/v1/drain", json=why)
        assert (drained.status_code, drained.json()["shards"]) == (200, 1)
        (control,) = (await api.get("/v1/controls")).json()["controls"]
        assert (control["kind"], control["subject"]) == ("drained", "host-7")
        assert (await api.post("/v1/undrain", json=why)).status_code == 200
        assert (await api.get("/v1/controls")).json() == {"controls": []}

        named = await api.post("/v1/forget-member", json={"member_id": "a", "reason": "a asked"})
        assert (named.status_code, "must not name" in named.text) == (422, True)
        done = (
            await api.post("/v1/forget-member", json={"member_id": "a", "reason": "by mail"})
        ).json()
        assert (done["activities"], done["unfinished"]) == (1, 0)
        assert {row["member_id"] for row in (await rows(settings)).values()} == {"b", done["name"]}
        (control,) = (await api.get("/v1/controls")).json()["controls"]
        assert (control["kind"], control["subject"]) == ("opted_out", "a")
        audit = (await api.get("/v1/audit")).json()["commands"]
        assert [(each["command"], each["subject"], each["reason"]) for each in audit] == [
            ("forget_member", done["name"], "by mail"),
            ("opt_out", done["name"], None),
            ("undrain", "host-7", "new kernel"),
            ("drain", "host-7", "new kernel"),
        ]
        assert {each["actor"] for each in audit} == {"api:otto"}


async def test_dead_letters_by_http(environment: dict[str, str], settings: Settings) -> None:
    async with engine(environment), served(environment) as address, asked(address) as api:
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
            topic = settings.topics.post_detected
            place = await send_raw(producer, topic, 1, (b"key", b"nonsense", []))
        name = f"{settings.topics.post_detected}/1/{place}"

        async def buried() -> bool:
            return int((await api.get("/v1/dead-letters")).json()["total"]) == 1

        await until(buried)
        (letter,) = (await api.get("/v1/dead-letters")).json()["dead_letters"]
        assert (letter["id"], letter["replayable"]) == (name, True)
        shown = (await api.get("/v1/dead-letter", params={"id": name})).json()
        assert shown["value"] == "nonsense"
        missing = await api.get("/v1/dead-letter", params={"id": "a/1/2"})
        assert missing.status_code == 404
        done = await api.post("/v1/dead-letters/replay", json={"ids": [name, "a/1/2"]})
        assert {each["id"]: each["answer"] for each in done.json()["answers"]} == {
            name: "replayed",
            "a/1/2": "there is no such dead letter",
        }


@pytest.mark.usefixtures("settings")
async def test_who_may_not_is_told_so(environment: dict[str, str]) -> None:
    async with served(environment, POD_AUTOMATION_API_REQUESTS_PER_MINUTE="5") as address:
        for token in (None, "x", VIEWER[:-1]):
            async with asked(address, token) as api:
                answer = await api.get("/v1/controls")
                assert answer.status_code == 401
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.headers["www-authenticate"] == "Bearer"
        async with asked(address, VIEWER) as api:
            assert (await api.get("/v1/controls")).status_code == 200
            answer = await api.post("/v1/pause", json={"everybody": True})
            assert (answer.status_code, answer.json()["type"]) == (
                403,
                "urn:pod-automation:problem:forbidden",
            )
            answers = [await api.get("/v1/controls") for _ in range(5)]
            assert answers[-1].status_code == 429
            assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        async with asked(address, None) as api:
            assert (await api.get("/healthz")).json() == {"ok": True}
            assert (await api.get("/readyz")).json()["ready"] is True
            assert "pod_automation_api_refused_total" in (await api.get("/metrics")).text
            page = await api.get("/")
            assert "default-src 'none'" in page.headers["content-security-policy"]
            again = await api.get("/", headers={"If-None-Match": page.headers["etag"]})
            assert again.status_code == 304


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/cancel", {}, 422),
        ("POST", "/v1/cancel", {"pod_id": "p", "member_id": "m"}, 422),
        ("POST", "/v1/cancel", {"activity_ids": ["nonsense"]}, 422),
        ("POST", "/v1/cancel", {"activity_ids": [NOBODYS]}, 404),
        ("POST", "/v1/cancel", {"post_id": "nobody's"}, 404),
        ("POST", "/v1/pause", {"pod_id": "p", "unknown": 1}, 422),
        ("POST", "/v1/pause", {"pod_id": "p\n"}, 422),
        ("POST", "/v1/reschedule", {"post_id": "x"}, 422),
        ("POST", "/v1/posts", {"event_id": "e"}, 422),
        ("POST", "/v1/drain", {}, 422),
        ("POST", "/v1/forget-member", {"pod_id": "p"}, 422),
        ("GET", f"/v1/activities/{NOBODYS}", None, 404),
        ("GET", "/v1/activities?pod_id=p&after=nonsense", None, 422),
        ("GET", "/v1/activities", None, 422),
        ("GET", f"/v1/activities?pod_id=p&after={10**30}_{NOBODYS}", None, 422),
        ("GET", f"/v1/activities/{NOBODYS.upper()}", None, 404),
        ("POST", "/v1/quiet-hours", {**QUIET, "zone": "localtime"}, 422),
        ("POST", "/v1/posts", LARGE, 422),
        ("POST", "/v1/dead-letters/replay", {"ids": ["x"], "reason": "a\0b"}, 200),
        ("GET", "/v1/pods/", None, 404),
        ("GET", "/nowhere", None, 404),
        ("DELETE", "/v1/controls", None, 405),
    ],
)
async def test_nonsense_is_a_problem(
    api_address: str, method: str, path: str, body: Any, status: int
) -> None:
    async with asked(api_address) as api:
        answer = await api.request(method, path, json=body)
        assert answer.status_code == status
        if answer.is_success:
            return
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem["status"] == status
        assert problem["detail"]


@pytest.fixture
async def api_address(environment: dict[str, str], settings: Settings) -> AsyncIterator[str]:
    assert settings.partitions == 4  # its topics are there
    async with served(environment) as address:
        yield address


async def test_a_body_that_is_too_large_is_not_read(api_address: str) -> None:
    async with asked(api_address) as api:
        answer = await api.post("/v1/posts", content=b"x" * (3 << 20))
        assert answer.status_code == 413

        async def chunks() -> AsyncIterator[bytes]:
            yield b"{}"

        answer = await api.post("/v1/posts", content=chunks())
        assert answer.status_code == 411
        answer = await api.post("/v1/pause", content=b'{"pod_id":"p"}')
        assert (answer.status_code, answer.json()["type"][-8:]) == (415, ":no-json")


async def test_nothing_of_a_body_is_looked_at_for_who_may_not(api_address: str) -> None:
    headers = {"content-type": "application/json"}
    async with asked(api_address, "x" * 32) as api:
        for path in ("/v1/pause", "/v1/nowhere"):
            answer = await api.post(path, content=b'{"pod_id":', headers=headers)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-content-type-options"] == "nosniff"


async def test_what_waits_is_answered_when_the_api_stops(
    environment: dict[str, str], settings: Settings
) -> None:
    async with AsyncExitStack() as asking:
        async with served(environment) as address:
            api = await asking.enter_async_context(asked(address))
            # No worker runs.
            waiting = asyncio.create_task(api.post("/v1/pause", json={"pod_id": "p", "wait_s": 60}))

            async def sent() -> bool:
                return await _commands(settings) > 0

            await until(sent)
        answer = await waiting
    assert answer.status_code == 504
    assert answer.json()["type"].endswith("not-applied")
    assert "the API stops" in answer.json()["detail"]


async def _commands(settings: Settings) -> int:
    topic = settings.topics.pod_commands
    partitions = [TopicPartition(topic, shard) for shard in range(settings.partitions)]
    async with reading(settings.kafka) as consumer:
        return sum((await consumer.end_offsets(partitions)).values())


async def test_an_api_before_init_makes_no_topics(environment: dict[str, str]) -> None:
    async with served(environment) as address, asked(address) as api:
        assert (await api.get("/readyz")).status_code == 503
        answer = await api.get("/v1/dead-letters")
        assert (answer.status_code, answer.json()["type"][-9:]) == (503, "not-ready")
    lost = {"POD_AUTOMATION_POSTGRES_DSN": environment["POD_AUTOMATION_POSTGRES_DSN"] + "nowhere"}
    async with served({**environment, **lost}) as address, asked(address) as api:
        answer = await api.get("/v1/pods")
        assert (answer.status_code, answer.json()["type"][-9:]) == (503, "not-ready")


@pytest.mark.usefixtures("settings")
async def test_a_store_that_is_away_is_told(environment: dict[str, str]) -> None:
    away = {"POD_AUTOMATION_REDIS_URL": "redis://127.0.0.1:1/0"}
    async with served({**environment, **away}) as address, asked(address) as api:
        ready = await api.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["stores"] == {"Kafka": True, "Redis": False, "PostgreSQL": True}
        seen = (await api.get("/v1/overview")).json()
        assert seen["stores"]["Redis"]["ok"] is False
        assert seen["due_soon"] is None
        late = await api.post("/v1/pause", json={"pod_id": "p", "wait_s": 0})
        assert late.status_code == 504
        assert late.json()["type"].endswith("not-applied")
    nobody = {"POD_AUTOMATION_POSTGRES_DSN": "postgresql://u@127.0.0.1:1/d"}
    async with served({**environment, **nobody}) as address, asked(address) as api:
        answer = await api.get("/v1/controls")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"


async def test_it_does_not_start_without_anybody_to_serve(environment: dict[str, str]) -> None:
    outcome = await pod_automation(environment, "api")
    assert outcome.code == ExitCode.USAGE
    assert "API_TOKENS" in outcome.err
    bad = {**environment, "POD_AUTOMATION_API_TOKENS": "root:x:" + "t" * 20}
    outcome = await pod_automation(bad, "api")
    assert outcome.code == ExitCode.USAGE
    assert "t" * 20 not in outcome.err
