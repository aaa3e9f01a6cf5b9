"""Everything around the endpoints: error shapes of the framework, bodies that are too big or too slow, request ids."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from tests.api.live import assert_error, client_of, listening
from tests.fakes import FakeService

SPEECH = "/v1/audio/speech"


@pytest.mark.parametrize("path", ["/nothing", "/v1/readyz", "/v1/test", "/v1/models/", "/v1/audio/speech/"])
async def test_unknown_routes(path: str) -> None:
    async with client_of(FakeService()) as client:
        response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_wrong_method() -> None:
    async with client_of(FakeService()) as client:
        response = await client.get(SPEECH)
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"


async def test_allow_names_the_methods_of_all_routes_of_a_path() -> None:
    async with client_of(FakeService()) as client:
        response = await client.put("/v1/audio/voices")
    assert_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_body_that_is_not_json(content_type: str) -> None:
    async with client_of(FakeService()) as client:
        response = await client.post(SPEECH, content=b'{"input":"x"}', headers={"content-type": content_type})
    assert_error(response, 415, "unsupported_media_type")


async def test_json_needs_no_content_type() -> None:
    async with client_of(FakeService()) as client:
        response = await client.post(SPEECH, content=b'{"input":"x","response_format":"pcm"}')
    assert response.status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_body_too_large(declared: bool) -> None:
    config = ApiConfig(max_body_bytes=1024, max_reference_bytes=1024)

    async def stream() -> AsyncGenerator[bytes, None]:
        for _ in range(64):
            yield b" " * 1024

    async with client_of(FakeService(), config) as client:
        response = await client.post(SPEECH, content=b" " * 65_536 if declared else stream())
    assert_error(response, 413, "request_too_large")


async def test_body_too_slow() -> None:
    async with listening(create_api(FakeService(), ApiConfig(body_timeout_s=0.1))) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()


async def test_client_that_leaves_while_sending_its_body() -> None:
    service = FakeService()
    async with listening(create_api(service, ApiConfig())) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/audio/speech HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        await writer.drain()
        writer.transport.abort()
    assert not service.requests


@pytest.mark.parametrize("offered", ["abc-123", "a" * 128])
async def test_sane_request_id_is_echoed(offered: str) -> None:
    async with client_of(FakeService()) as client:
        for path in ("/health", "/nothing"):
            response = await client.get(path, headers={"x-request-id": offered})
            assert response.headers.get_list("x-request-id") == [offered]


@pytest.mark.parametrize("offered", [b"", b"a b", b"a" * 129, b"<script>", b'a"b', "é".encode()])
async def test_other_request_ids_are_replaced(offered: bytes) -> None:
    async with client_of(FakeService()) as client:
        response = await client.get("/health", headers={b"x-request-id": offered})
        again = await client.get("/health")
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-request-id"] != again.headers["x-request-id"]


async def test_every_answer_forbids_guessing_its_type() -> None:
    async with client_of(FakeService()) as client:
        answers = [await client.get(path) for path in ("/health", "/", "/docs", "/v1/audio/voices", "/nothing")]
        answers.append(await client.post("/v1/audio/speech", json={"input": "Hi."}))
    assert {answer.headers["x-content-type-options"] for answer in answers} == {"nosniff"}
    policy = answers[2].headers["content-security-policy"]
    assert "script-src" not in policy and "frame-ancestors 'none'" in policy, "the description runs no script"
