"""The HTTP API: routes, and nothing that the client cannot do."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.resources import files
from time import perf_counter
from typing import Annotated, Any

import msgspec
import orjson
import structlog
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.security import HTTPBearer
from msgspec import Struct
from pydantic import AwareDatetime
from starlette.exceptions import HTTPException

from pod_automation.api import letters
from pod_automation.api.access import Caller, Limiter, Role, Tokens
from pod_automation.api.bodies import (
    ActivityId,
    Cancel,
    DailyCap,
    Dispatcher,
    Forget,
    Id,
    Member,
    Policy,
    Post,
    Quiet,
    Replay,
    Reschedule,
    Stop,
)
from pod_automation.api.live import Live
from pod_automation.api.problems import (
    RESPONSES,
    SHIFT,
    Problem,
    ProblemError,
    bug,
    handled,
    problem,
)
from pod_automation.api.sight import Sight
from pod_automation.client import (
    ActivityHistory,
    ActivityPage,
    AuditEntry,
    CommandAnswer,
    ControlState,
    EngagementStats,
    ForgottenMember,
    HistoryPage,
    PlanPreview,
    PodAutomation,
    PodPage,
    PublishedEvent,
)
from pod_automation.metrics import Answering
from pod_automation.tracing import TRACEPARENT, carried
from scheduler.controls import Kind, Scope
from scheduler.errors import EngineError
from scheduler.settings import Settings

MAX_BODY_BYTES = 2 << 20
LOOKS_AT_ONCE = 2
"""Of what PostgreSQL is asked to show: fewer than the client has connections, so that whoever acts
finds one."""

ERRORS_SHOWN = 20
"""Of a request that is not as it should be."""

TURN_S = 15.0
"""How long one waits for that."""

DOCUMENT = "/v1/openapi.json"
JSON = "application/json"
TEXT = "text/plain; version=0.0.4; charset=utf-8"

ANSWERS: tuple[type[Struct], ...] = (
    ActivityHistory,
    ActivityPage,
    AuditEntry,
    CommandAnswer,
    ControlState,
    EngagementStats,
    ForgottenMember,
    HistoryPage,
    PlanPreview,
    PodPage,
    PublishedEvent,
)

log = structlog.get_logger(__name__)

_bearer = HTTPBearer(auto_error=False, description="A token of POD_AUTOMATION_API_TOKENS.")
_STATIC = files("pod_automation.api").joinpath("static")
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/dashboard.js": ("dashboard.js", "text/javascript; charset=utf-8"),
    "/dashboard.css": ("dashboard.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    # Nothing from elsewhere, no frames, no inline scripts.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self';"
    " connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}

Limit = Annotated[int, Query(ge=1, le=1000, description="How many, at most.")]
After = Annotated[str | None, Query(max_length=300, description="The `next` of the page before.")]


def an_app(settings: Settings, tokens: Tokens) -> FastAPI:
    """The app over the stores that `settings` name, for those who have one of `tokens`."""
    pods = PodAutomation(settings, actor="api")
    live = Live(settings)
    sight = Sight(settings, live)
    dead = letters.Letters(settings)
    limiter = Limiter(settings.api_requests_per_minute)
    answering = Answering()
    ending = asyncio.Event()
    looks = asyncio.Semaphore(LOOKS_AT_ONCE)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with live.running():
            yield
        await pods.close()

    app = FastAPI(
        title="pod-automation",
        version="1",
        summary="Staggered engagement: see everything, stop anything.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        # To the address that the caller thinks it has: behind a proxy that is another one.
        redirect_slashes=False,
    )
    app.state.ending = ending

    def who_asks(request: Request) -> Caller:
        """Before anything of the body is read: who may not has none of it looked at."""
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        caller = tokens.caller(shown.strip()) if scheme.lower() == "bearer" else None
        if caller is None:
            answering.refused("token")
            raise ProblemError(
                401,
                "unauthorized",
                "show a token: `Authorization: Bearer …`",
                {"WWW-Authenticate": "Bearer"},
            )
        if wait_s := limiter.wait_s(f"{caller.role}:{caller.name}"):
            answering.refused("rate")
            raise ProblemError(
                429,
                "too-many-requests",
                f"more than {settings.api_requests_per_minute} requests in a minute",
                {"Retry-After": str(wait_s)},
            )
        return caller

    def allowed(role: Role) -> Callable[..., Awaitable[Caller]]:
        async def check(request: Request, _: Any = Depends(_bearer)) -> Caller:  # noqa: B008
            caller: Caller = request.state.caller
            if not caller.may(role):
                answering.refused("role")
                raise ProblemError(403, "forbidden", f"this is for the role {role}")
            return caller

        return check

    async def in_turn() -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_S):
                await looks.acquire()
        except TimeoutError:
            raise ProblemError(
                503, "busy", "too many look at the record at the same time: ask again"
            ) from None
        try:
            yield
        finally:
            looks.release()

    viewer, operator = Depends(allowed("viewer")), Depends(allowed("operator"))
    looking = [viewer, Depends(in_turn)]

    def acting(caller: Caller) -> PodAutomation:
        """The client in the name of who asks."""
        return pods.acting_as(f"api:{caller.name}")

    @app.middleware("http")
    async def around(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        began = perf_counter()
        path = request.url.path
        try:
            if path.startswith("/v1/") and path != DOCUMENT:
                request.state.caller = who_asks(request)
            _check_body(request)
            answer = await _until(ending, go_on(request))
        except ProblemError as error:
            answer = problem(error)
        except Exception as error:
            log.exception("a request has failed", path=path)
            answer = problem(bug(error))
        for name, value in _HEADERS.items():
            answer.headers.setdefault(name, value)
        if path.startswith("/v1/"):
            answer.headers.setdefault("Cache-Control", "no-store")
        route = getattr(request.scope.get("route"), "path", "none")
        answering.answered(request.method, route, answer.status_code, perf_counter() - began)
        return answer

    app.add_exception_handler(ProblemError, handled)
    app.add_exception_handler(EngineError, handled)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        found = [
            {"at": ".".join(map(str, each["loc"])), "what": each["msg"]}
            for each in error.errors()[:ERRORS_SHOWN]
        ]
        detail = "; ".join(f"{each['at']}: {each['what']}" for each in found[:5])
        return problem(ProblemError(422, "invalid-argument", detail, errors=found))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        kind = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "bad-request")
        return problem(
            ProblemError(error.status_code, kind, str(error.detail), dict(error.headers or {}))
        )

    # For everybody who can reach it

    @app.get("/healthz", tags=["health"], responses=_answer("Health"))
    async def healthz() -> Response:
        """Whether this process answers. Asks no store."""
        return _json({"ok": True})

    @app.get(
        "/readyz",
        tags=["health"],
        responses={
            **_answer("Readiness"),
            503: {**_answer("Readiness")[200], "description": "Not ready"},
        },
    )
    async def readyz() -> Response:
        """Whether each store answers and is set up; 503 where one does not. Says no reasons: those
        are in the overview, for who has a token."""
        stores = await sight.stores()
        ready = all(stores.values())
        return _json({"ready": ready, "stores": stores}, 200 if ready else 503)

    @app.get("/metrics", tags=["health"], responses={200: {"content": {TEXT: {}}}})
    async def metrics() -> Response:
        """What this process does, for Prometheus. Names no pods, members or posts."""
        return Response(answering.text(), media_type=TEXT)

    @app.get(DOCUMENT, tags=["health"], responses=_answer("Document"))
    async def openapi() -> Response:
        """This document."""
        return _json(app.openapi())

    # For viewers

    @app.get("/v1/overview", tags=["look"], responses=_answer("Overview"), dependencies=[viewer])
    async def overview() -> Response:
        """The whole engine at a glance: stores, processes, shards, queue, activities by status,
        what is due soon by pod, and what was fired in the last minute."""
        return _json(await sight.overview())

    @app.get("/v1/pods", tags=["look"], responses=_answer("PodPage"), dependencies=looking)
    async def get_pods(limit: Limit = 100, after: Annotated[Id | None, Query()] = None) -> Response:
        """Pods that have activities, by their ids."""
        return _json(await pods.get_pods(limit=limit, after=after))

    @app.get("/v1/stats", tags=["look"], responses=_answer("EngagementStats"), dependencies=looking)
    async def get_stats(pod_id: Annotated[Id, Query()]) -> Response:
        """One pod's activities by status."""
        return _json(await pods.get_pod_engagement_stats(pod_id))

    @app.get(
        "/v1/activities", tags=["look"], responses=_answer("ActivityPage"), dependencies=looking
    )
    async def get_activities(
        pod_id: Annotated[Id | None, Query()] = None,
        post_id: Annotated[Id | None, Query()] = None,
        member_id: Annotated[Id | None, Query()] = None,
        limit: Limit = 100,
        after: After = None,
    ) -> Response:
        """Activities of a pod, a post or a member, one of which is to be given, those that are due
        last first."""
        return _json(
            await pods.get_activities(
                pod_id=pod_id, post_id=post_id, member_id=member_id, limit=limit, after=after
            )
        )

    @app.get(
        "/v1/activities/{activity_id}",
        tags=["look"],
        responses=_answer("ActivityHistory"),
        dependencies=looking,
    )
    async def get_history(activity_id: ActivityId) -> Response:
        """All that happened to an activity: by which event it was planned, who changed it and why,
        when it was sent, what came of it."""
        return _json(await pods.get_activity_history(activity_id))

    @app.get("/v1/history", tags=["look"], responses=_answer("HistoryPage"), dependencies=looking)
    async def get_histories(
        pod_id: Annotated[Id | None, Query()] = None,
        post_id: Annotated[Id | None, Query()] = None,
        member_id: Annotated[Id | None, Query()] = None,
        limit: Limit = 100,
        after: After = None,
    ) -> Response:
        """All that happened to the activities of a pod, a post or a member, one of which is to be
        given."""
        return _json(
            await pods.get_histories(
                pod_id=pod_id, post_id=post_id, member_id=member_id, limit=limit, after=after
            )
        )

    @app.get(
        "/v1/controls",
        tags=["look"],
        responses=_list("ControlState", "controls"),
        dependencies=looking,
    )
    async def get_controls(
        kind: Annotated[Kind | None, Query()] = None,
        scope: Annotated[Scope | None, Query()] = None,
        subject: Annotated[Id | None, Query()] = None,
        limit: Limit = 1000,
    ) -> Response:
        """What holds, of a kind, a scope, a pod or member where they are given, the oldest first:
        who is paused, who has opted out, and the like."""
        return _json(
            {
                "controls": await pods.get_controls(
                    kind=kind, scope=scope, subject=subject, limit=limit
                )
            }
        )

    @app.get(
        "/v1/audit", tags=["look"], responses=_list("AuditEntry", "commands"), dependencies=looking
    )
    async def get_audit(
        limit: Limit = 100,
        since: Annotated[AwareDatetime | None, Query(description="Applied since then.")] = None,
        reports: bool = False,
    ) -> Response:
        """The last commands: who asked for what, when and why, and what came of it. With `reports`
        also those of dispatchers."""
        return _json({"commands": await pods.get_audit(limit, since=since, reports=reports)})

    @app.get(
        "/v1/dead-letters", tags=["look"], responses=_answer("DeadLetters"), dependencies=[viewer]
    )
    async def get_letters(
        limit: Annotated[int, Query(ge=1, le=letters.MOST_LISTED)] = 100,
    ) -> Response:
        """The newest records that could not be applied, and how many there are."""
        return _json(await dead.listed(limit))

    @app.get(
        "/v1/dead-letter", tags=["look"], responses=_answer("DeadLetter"), dependencies=[viewer]
    )
    async def get_letter(
        letter_id: Annotated[str, Query(alias="id", min_length=1, max_length=600)],
    ) -> Response:
        """One of them, with all that it holds."""
        found = await dead.shown(letter_id)
        if found is None:
            raise ProblemError(404, "not-found", "there is no such dead letter")
        return _json(found)

    @app.post("/v1/plan", tags=["look"], responses=_answer("PlanPreview"), dependencies=looking)
    async def plan(event: Post) -> Response:
        """When each member would engage with a post. Stores and sends nothing."""
        return _json(await pods.preview_plan(event.event()))

    # For operators

    @app.post("/v1/posts", tags=["act"], responses=_answer("PublishedEvent"))
    async def publish(event: Post, request: Request, caller: Caller = operator) -> Response:
        """Publish a post-detected event. To send it again does no harm. The trace that a
        `traceparent` header names goes on with it."""
        trace = carried([(TRACEPARENT, request.headers.get(TRACEPARENT, "").encode())])
        return _json(await acting(caller).publish_post_detected(event.event(), traceparent=trace))

    @app.post("/v1/cancel", tags=["act"], responses=_answer("CommandAnswer"))
    async def cancel(body: Cancel, caller: Caller = operator) -> Response:
        """Cancel activities, or all that waits of a post, a member or a pod."""
        return _json(
            await acting(caller).cancel(
                body.activity_ids,
                post_id=body.post_id,
                member_id=body.member_id,
                pod_id=body.pod_id,
                reason=body.reason,
                wait_s=body.wait_s,
            )
        )

    @app.post(SHIFT, tags=["act"], responses=_answer("CommandAnswer"))
    async def reschedule(body: Reschedule, caller: Caller = operator) -> Response:
        """Move an activity to another time, or all that waits of a post to a later one."""
        client = acting(caller)
        if body.activity_id is not None and body.at is not None:
            answer = await client.reschedule(
                body.activity_id, body.at, reason=body.reason, wait_s=body.wait_s
            )
        else:
            by = timedelta(milliseconds=body.by_ms or 0)
            answer = await client.shift_post(
                body.post_id or "", by, reason=body.reason, wait_s=body.wait_s
            )
        return _json(answer)

    @app.post("/v1/pause", tags=["act"], responses=_answer("CommandAnswer"))
    async def pause(body: Stop, caller: Caller = operator) -> Response:
        """Let nothing of a pod, of a member, or of everybody fire."""
        return _json(
            await acting(caller).pause(
                pod_id=body.pod_id,
                member_id=body.member_id,
                reason=body.reason,
                wait_s=body.wait_s,
            )
        )

    @app.post("/v1/resume", tags=["act"], responses=_answer("CommandAnswer"))
    async def resume(body: Stop, caller: Caller = operator) -> Response:
        """Take a pause back."""
        return _json(
            await acting(caller).resume(
                pod_id=body.pod_id,
                member_id=body.member_id,
                reason=body.reason,
                wait_s=body.wait_s,
            )
        )

    @app.post("/v1/opt-out", tags=["act"], responses=_answer("CommandAnswer"))
    async def opt_out(body: Member, caller: Caller = operator) -> Response:
        """Have a member do nothing any more."""
        client = acting(caller)
        return _json(await client.opt_out(body.member_id, reason=body.reason, wait_s=body.wait_s))

    @app.post("/v1/opt-in", tags=["act"], responses=_answer("CommandAnswer"))
    async def opt_in(body: Member, caller: Caller = operator) -> Response:
        """Take an opt-out back."""
        client = acting(caller)
        return _json(await client.opt_in(body.member_id, reason=body.reason, wait_s=body.wait_s))

    @app.post("/v1/quiet-hours", tags=["act"], responses=_answer("CommandAnswer"))
    async def quiet_hours(body: Quiet, caller: Caller = operator) -> Response:
        """Set or take back hours in which nothing of a pod or a member falls due."""
        client = acting(caller)
        if body.start is not None and body.end is not None and body.zone is not None:
            answer = await client.set_quiet_hours(
                body.start,
                body.end,
                body.zone,
                pod_id=body.pod_id,
                member_id=body.member_id,
                reason=body.reason,
                wait_s=body.wait_s,
            )
        else:
            answer = await client.clear_quiet_hours(
                pod_id=body.pod_id,
                member_id=body.member_id,
                reason=body.reason,
                wait_s=body.wait_s,
            )
        return _json(answer)

    @app.post("/v1/policy", tags=["act"], responses=_answer("CommandAnswer"))
    async def policy(body: Policy, caller: Caller = operator) -> Response:
        """Give a pod a policy of its own, or take it back."""
        client, own = acting(caller), body.own()
        if own:
            return _json(
                await client.set_policy(body.pod_id, **own, reason=body.reason, wait_s=body.wait_s)
            )
        return _json(await client.clear_policy(body.pod_id, reason=body.reason, wait_s=body.wait_s))

    @app.post("/v1/daily-cap", tags=["act"], responses=_answer("CommandAnswer"))
    async def daily_cap(body: DailyCap, caller: Caller = operator) -> Response:
        """Set or take back how many engagements of a member are planned for any 24 hours."""
        client, words = acting(caller), body.reason
        if body.cap is not None:
            return _json(
                await client.set_daily_cap(
                    body.member_id, body.cap, reason=words, wait_s=body.wait_s
                )
            )
        return _json(await client.clear_daily_cap(body.member_id, reason=words, wait_s=body.wait_s))

    @app.post("/v1/drain", tags=["act"], responses=_answer("CommandAnswer"))
    async def drain(body: Dispatcher, caller: Caller = operator) -> Response:
        """Have a dispatcher give its shards to the others and take none, for maintenance."""
        client = acting(caller)
        return _json(
            await client.drain_dispatcher(body.instance_id, reason=body.reason, wait_s=body.wait_s)
        )

    @app.post("/v1/undrain", tags=["act"], responses=_answer("CommandAnswer"))
    async def undrain(body: Dispatcher, caller: Caller = operator) -> Response:
        """Let a dispatcher have shards again."""
        client = acting(caller)
        return _json(
            await client.undrain_dispatcher(
                body.instance_id, reason=body.reason, wait_s=body.wait_s
            )
        )

    @app.post("/v1/forget-member", tags=["act"], responses=_answer("ForgottenMember"))
    async def forget_member(body: Forget, caller: Caller = operator) -> Response:
        """Erase a member from the record, and keep the counts. Nothing is erased while any of its
        activities is being carried out: then `unfinished` says how many, and it is to be asked for
        again."""
        return _json(
            await acting(caller).forget_member(
                body.member_id,
                opt_out_too=body.opt_out_too,
                reason=body.reason,
                wait_s=body.wait_s,
            )
        )

    @app.post("/v1/dead-letters/replay", tags=["act"], responses=_answer("Replayed"))
    async def replay(body: Replay, caller: Caller = operator) -> Response:
        """Send dead letters through the normal door again."""
        return _json(
            await letters.replayed(
                settings,
                body.ids,
                again=body.again,
                actor=f"api:{caller.name}",
                reason=body.reason,
            )
        )

    for path, (name, media_type) in _FILES.items():
        _serve_file(app, path, name, media_type)
    _document(app)
    return app


def _check_body(request: Request) -> None:
    length = request.headers.get("content-length", "0")
    if "transfer-encoding" in request.headers:
        raise ProblemError(411, "length-required", "say the length of the body")
    if not length.isdigit() or int(length) > MAX_BODY_BYTES:
        raise ProblemError(413, "too-large", f"a body of {MAX_BODY_BYTES:,} bytes is the most")
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if int(length) and media_type != JSON:
        raise ProblemError(415, "no-json", f"a body is JSON, and says so: `Content-Type: {JSON}`")


async def _until(ending: asyncio.Event, answering: Awaitable[Response]) -> Response:
    """What is answered; a problem where the process ends before."""
    asked = asyncio.ensure_future(answering)
    ended = asyncio.ensure_future(ending.wait())
    try:
        await asyncio.wait({asked, ended}, return_when=asyncio.FIRST_COMPLETED)
        if asked.done():
            return asked.result()
    finally:
        ended.cancel()
        asked.cancel()
    raise ProblemError(
        504, "not-applied", "the API stops; what was asked for may be in Kafka, and will be applied"
    )


def _serve_file(app: FastAPI, path: str, name: str, media_type: str) -> None:
    content = _STATIC.joinpath(name).read_bytes()
    etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'

    async def page(request: Request) -> Response:
        headers = {"ETag": etag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    app.add_api_route(path, page, include_in_schema=False)


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type=JSON)


def _answer(name: str) -> dict[int | str, dict[str, Any]]:
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {200: {"description": "OK", "content": {JSON: {"schema": schema}}}}


def _list(name: str, field: str) -> dict[int | str, dict[str, Any]]:
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}}
    schema = {"type": "object", "required": [field], "properties": {field: items}}
    return {200: {"description": "OK", "content": {JSON: {"schema": schema}}}}


_BOOL = {"type": "boolean"}
_OBJECT: dict[str, Any] = {"type": "object"}
_PLAIN: dict[str, Any] = {
    "Health": {"type": "object", "required": ["ok"], "properties": {"ok": _BOOL}},
    "Readiness": {
        "type": "object",
        "required": ["ready", "stores"],
        "properties": {
            "ready": _BOOL,
            "stores": {"type": "object", "additionalProperties": _BOOL},
        },
    },
    "Document": _OBJECT,
    "Overview": {
        "type": "object",
        "required": ["stores", "workers", "dispatchers", "shards", "queue", "activities", "live"],
        "properties": {"stores": _OBJECT, "shards": {"type": "array", "items": _OBJECT}},
    },
    "DeadLetter": {"type": "object", "required": ["id", "reason", "replayable"]},
    "DeadLetters": {
        "type": "object",
        "required": ["total", "dead_letters"],
        "properties": {
            "total": {"type": "integer"},
            "dead_letters": {
                "type": "array",
                "items": {"$ref": "#/components/schemas/DeadLetter"},
            },
        },
    },
    "Replayed": {
        "type": "object",
        "required": ["answers"],
        "properties": {"answers": {"type": "array", "items": _OBJECT}},
    },
}


def _document(app: FastAPI) -> None:
    """The OpenAPI document: FastAPI's of what is asked for, ours of what is answered."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        made = get_openapi(
            title=app.title, version=app.version, summary=app.summary, routes=app.routes
        )
        _, answers = msgspec.json.schema_components(
            ANSWERS, ref_template="#/components/schemas/{name}"
        )
        components = made.setdefault("components", {}).setdefault("schemas", {})
        for needless in ("HTTPValidationError", "ValidationError"):
            components.pop(needless, None)
        components |= {**answers, **_PLAIN, "Problem": Problem.model_json_schema()}
        for path, operations in made["paths"].items():
            for operation in operations.values():
                found: dict[str, Any] = operation["responses"]
                found.pop("422", None)
                if path.startswith("/v1/") and path != DOCUMENT:
                    for status, answer in RESPONSES.items():
                        found.setdefault(str(status), answer)
                else:
                    found.setdefault("413", RESPONSES[413])
        app.openapi_schema = made
        return made

    app.openapi = openapi  # type: ignore[method-assign]


def document(settings: Settings) -> bytes:
    """The OpenAPI document, as it is in docs/."""
    app = an_app(settings, Tokens([]))
    return orjson.dumps(app.openapi(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


__all__: Sequence[str] = ("an_app", "document")
