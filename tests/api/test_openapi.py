"""The description is true: schemathesis calls everything it describes, and looks for answers it does not describe."""

import re
import warnings
from typing import Any

import pytest

from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from tests.api.live import client_of
from tests.fakes import FakeService, tone

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import hypothesis
    import schemathesis
    from schemathesis.checks import CHECKS

APP = create_api(FakeService(samples=tone(2_400)), ApiConfig())
NAMES = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", APP)


@SCHEMA.parametrize()
@hypothesis.settings(max_examples=12, deadline=None, derandomize=True, database=None)
@pytest.mark.filterwarnings("ignore")
def test_every_operation_keeps_its_word(case: schemathesis.Case[Any]) -> None:
    wanted: Any = CHECKS.get_by_names(NAMES)
    case.call_and_validate(checks=wanted)


async def test_description_names_every_route() -> None:
    async with client_of(FakeService()) as client:
        described = set((await client.get("/openapi.json")).json()["paths"])
    undescribed = {"/", "/docs", "/openapi.json", "/studio/{name}", "/inference_instruct"}
    sockets = {"/v1/audio/speech/stream", "/api-ws/v1/inference"}
    served = {re.sub(r":\w+}", "}", route.path) for route in APP.routes}  # type: ignore[attr-defined]
    assert described == served - undescribed - sockets


async def test_docs_need_no_other_host() -> None:
    async with client_of(FakeService()) as client:
        page = await client.get("/docs")
    assert page.status_code == 200
    assert "POST /v1/audio/speech" in page.text
    assert not re.search(r"(src|href)=.?(https?:)?//", page.text)
    assert "<script" not in page.text
