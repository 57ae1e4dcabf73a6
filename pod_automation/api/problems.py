"""Errors as RFC 9457 problem details: one shape for all, with a type that programs can act on."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Request, Response
from pydantic import BaseModel, Field

from pod_automation.client import (
    InvalidArgumentError,
    NotAppliedError,
    NotFoundError,
    NotReadyError,
    StoreAwayError,
    WrongSettingError,
)
from pod_automation.client.errors import translated
from scheduler.errors import EngineError

MEDIA_TYPE = "application/problem+json"
SHIFT = "/v1/reschedule"


class Problem(BaseModel):
    """What went wrong."""

    type: str = Field(description="What kind of problem: a URN that stays the same.")
    title: str = Field(description="The kind in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong with this very request, and what to do.")
    errors: list[dict[str, Any]] | None = Field(
        default=None, description="Of a request that is not as it should be: where it is not."
    )


class ProblemError(Exception):
    """Becomes a problem."""

    def __init__(
        self,
        status: int,
        kind: str,
        detail: str,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more


KINDS = {
    InvalidArgumentError: (422, "invalid-argument"),
    NotFoundError: (404, "not-found"),
    NotAppliedError: (504, "not-applied"),
    StoreAwayError: (503, "store-away"),
    NotReadyError: (503, "not-ready"),
    WrongSettingError: (503, "not-ready"),
}
"""By the client's errors: status, and kind. `not-applied` is in Kafka for certain, and will be."""


def problem(error: ProblemError) -> Response:
    """The answer for `error`."""
    body = {
        "type": f"urn:pod-automation:problem:{error.kind}",
        "title": HTTPStatus(error.status).phrase,
        "status": error.status,
        "detail": error.detail,
        **error.more,
    }
    return Response(orjson.dumps(body), error.status, error.headers, MEDIA_TYPE)


def _of(error: EngineError, *, again: bool) -> ProblemError:
    """An error of the engine or of its client. `again`: whether the same may be asked for once
    more."""
    try:
        with translated():
            raise error
    except EngineError as meant:
        error = meant
    for kind, (status, name) in KINDS.items():
        if isinstance(error, kind):
            later = again and status == HTTPStatus.SERVICE_UNAVAILABLE
            headers = {"Retry-After": "5"} if later else None
            return ProblemError(status, name, str(error), headers)
    return bug(error)


def bug(error: Exception) -> ProblemError:
    """Whatever nobody expects."""
    return ProblemError(500, "bug", f"this is a bug, please report it: {type(error).__name__}")


async def handled(request: Request, error: Exception) -> Response:
    """FastAPI's handler for `ProblemError` and errors of the engine, whoever raises them."""
    if isinstance(error, EngineError):
        # A shift may have been sent, though the answer is that Kafka is away; another one would
        # come on top of it.
        error = _of(error, again=request.url.path != SHIFT)
    return problem(error if isinstance(error, ProblemError) else bug(error))


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status in (400, 401, 403, 404, 405, 411, 413, 415, 422, 429, 500, 503, 504)
}
"""What every operation may answer beside what it is asked for."""
