"""CosyVoice's own endpoints, called the way its client calls them."""

import asyncio
from typing import Any

import pytest
import requests

from serve_app.api.encoders import to_pcm16
from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from serve_app.messages import ReferenceClip, SpeechRequest
from tests.api.live import assert_error, client_of, listening
from tests.fakes import FakeService

CLIP = b"RIFF\x00\xff\r\n--" * 200_000


async def as_upstreams_client(service: FakeService, mode: str, **arguments: Any) -> requests.Response:
    """`requests.request("GET", url, data=..., files=...)`, from upstream's client.py."""
    async with listening(create_api(service, ApiConfig())) as port:
        url = f"http://127.0.0.1:{port}/inference_{mode}"
        return await asyncio.to_thread(requests.request, "GET", url, **arguments)


def files() -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("prompt_wav", ("prompt_wav", CLIP, "application/octet-stream"))]


@pytest.mark.parametrize(
    ("mode", "arguments", "expected"),
    [
        ("sft", {"data": {"tts_text": "你好 Ünal", "spk_id": "Ünal"}}, SpeechRequest("", "你好 Ünal", "Ünal")),
        (
            "zero_shot",
            {"data": {"tts_text": "Hello.", "prompt_text": "Words."}, "files": files()},
            SpeechRequest("", "Hello.", reference=ReferenceClip(CLIP, "Words.")),
        ),
        (
            "cross_lingual",
            {"data": {"tts_text": "Hello."}, "files": files()},
            SpeechRequest("", "Hello.", reference=ReferenceClip(CLIP)),
        ),
        (
            "instruct2",
            {"data": {"tts_text": "Hello.", "instruct_text": "Softly<|endofprompt|>"}, "files": files()},
            SpeechRequest("", "Hello.", reference=ReferenceClip(CLIP), instructions="Softly"),
        ),
    ],
)
async def test_a_get_with_a_body(mode: str, arguments: dict[str, Any], expected: SpeechRequest) -> None:
    service = FakeService()
    response = await as_upstreams_client(service, mode, **arguments)
    assert response.status_code == 200, response.text
    assert response.content == to_pcm16(service.samples)
    assert response.headers["x-sample-rate"] == "24000"
    [request] = service.requests
    assert (request.text, request.voice, request.reference) == (expected.text, expected.voice, expected.reference)
    assert request.instructions == expected.instructions


async def test_post_and_query_string() -> None:
    service = FakeService()
    async with client_of(service) as client:
        posted = await client.post("/inference_sft", data={"tts_text": "Hello.", "spk_id": "default"})
        asked = await client.get("/inference_sft", params={"tts_text": "Hello."})
    assert (posted.status_code, asked.status_code) == (200, 200)


@pytest.mark.parametrize(
    ("mode", "arguments", "status", "code", "param"),
    [
        ("sft", {"data": {"spk_id": "default"}}, 400, "invalid_value", "tts_text"),
        ("sft", {"data": {"tts_text": "..."}}, 400, "empty_input", "input"),
        ("sft", {"data": {"tts_text": "Hi.", "spk_id": "nobody"}}, 400, "voice_not_found", "voice"),
        ("sft", {"json": {"tts_text": "Hi."}}, 415, "unsupported_media_type", None),
        (
            "zero_shot",
            {"data": {"tts_text": "Hi."}, "files": {"prompt_wav": b"x"}},
            400,
            "invalid_value",
            "prompt_text",
        ),
        ("zero_shot", {"data": {"tts_text": "Hi.", "prompt_text": "x"}}, 400, "invalid_value", "prompt_wav"),
        ("cross_lingual", {"data": {"tts_text": "Hi.", "prompt_wav": "text"}}, 400, "invalid_value", "prompt_wav"),
        ("instruct", {"data": {"tts_text": "Hi."}}, 400, "invalid_value", None),
        (
            "zero_shot",
            {"content": b"--x\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=x"}},
            400,
            "invalid_value",
            "prompt_text",
        ),
        (
            "zero_shot",
            {"content": b"nonsense", "headers": {"content-type": "multipart/form-data"}},
            400,
            "invalid_value",
            None,
        ),
        ("cross_lingual", {"files": {"prompt_wav": bytes(11 << 20)}}, 413, "request_too_large", None),
    ],
)
async def test_refusals(mode: str, arguments: dict[str, Any], status: int, code: str, param: str | None) -> None:
    async with client_of(FakeService()) as client:
        response = await client.post(f"/inference_{mode}", **arguments)
    assert_error(response, status, code, param)


async def test_forms_of_foreign_pages_are_refused() -> None:
    async with client_of(FakeService()) as client:
        form = {"tts_text": "Hello."}
        foreign = await client.post("/inference_sft", data=form, headers={"origin": "http://page.example"})
        own = await client.post("/inference_sft", data=form, headers={"origin": str(client.base_url).rstrip("/")})
    assert_error(foreign, 403, None)
    assert own.status_code == 200
