"""The HTTP API does what its OpenAPI document says, whatever it is asked for."""

import asyncio
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.integration.test_api import OPERATOR, served
from tests.integration.test_client import engine

CHECKED = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def address(environment: dict[str, str], settings: Any) -> Any:
    many = "1000000"
    async with (
        engine(environment),
        served(environment, POD_AUTOMATION_API_REQUESTS_PER_MINUTE=many) as found,
    ):
        yield found


async def test_answers_are_those_of_the_document(address: str) -> None:
    async with httpx.AsyncClient(base_url=address) as api:
        document = (await api.get("/v1/openapi.json")).json()
    seen = await asyncio.to_thread(lambda: list(_tried(document, address)))
    assert len(seen) == sum(len(operations) for operations in document["paths"].values())


def _tried(document: Any, address: str) -> Iterator[str]:
    schema = schemathesis.openapi.from_dict(document)
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()

        @given(case=operation.as_strategy())
        @settings(
            max_examples=20,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def try_it(case: Any) -> None:
            if isinstance(case.body, dict) and case.body.get("wait_s"):
                case.body["wait_s"] = 5.0
            answer = case.call(
                base_url=address.rstrip("/"), headers={"Authorization": f"Bearer {OPERATOR}"}
            )
            assert answer.status_code != HTTPStatus.INTERNAL_SERVER_ERROR, answer.text
            case.validate_response(answer, checks=CHECKED)

        try_it()
        yield operation.label
