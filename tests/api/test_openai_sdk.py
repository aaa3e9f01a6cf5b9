"""The `openai` SDK, used as its documentation shows, against a real server."""

import base64
import warnings
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve_app import errors
from serve_app.api.encoders import to_pcm16
from serve_app.api.routes import create_api
from serve_app.config import ApiConfig
from tests.api.live import listening
from tests.fakes import FakeService

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import openai


@asynccontextmanager
async def sdk(service: FakeService, config: ApiConfig | None = None, **options: Any) -> AsyncGenerator[Any, None]:
    options = {"api_key": "any", "max_retries": 0, "http_client": httpx.AsyncClient(trust_env=False), **options}
    async with (
        listening(create_api(service, config or ApiConfig())) as port,
        openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", **options) as client,
    ):
        yield client


async def test_plain() -> None:
    service = FakeService()
    async with sdk(service) as client:
        speech = await client.audio.speech.create(
            model="gpt-4o-mini-tts",
            voice="alloy",
            input="Hello.",
            response_format="pcm",
            instructions="softly",
            speed=1.25,
            extra_body={"seed": 7},
        )
    assert speech.content == to_pcm16(service.samples)
    [request] = service.requests
    assert (request.voice, request.instructions, request.speed, request.seed) == ("default", "softly", 1.25, 7)


async def test_streaming_to_a_file(tmp_path: Path) -> None:
    service = FakeService()
    async with sdk(service) as client:
        streaming = client.audio.speech.with_streaming_response
        async with streaming.create(model="tts-1", voice="nova", input="Hello.", response_format="wav") as response:
            assert response.headers["content-type"] == "audio/wav"
            await response.stream_to_file(tmp_path / "speech.wav")
    assert (tmp_path / "speech.wav").read_bytes()[44:] == to_pcm16(service.samples)


async def test_server_sent_events() -> None:
    service = FakeService()
    async with sdk(service) as client:
        events = []
        streaming = client.audio.speech.with_streaming_response
        ask = {"model": "tts-1", "voice": "nova", "input": "One two.", "response_format": "pcm", "stream_format": "sse"}
        async with streaming.create(**ask) as response:
            parsed = openai.AsyncStream[Any](cast_to=object, response=response.http_response, client=client)
            async for event in parsed:
                events.append(event)
    *deltas, done = events
    assert b"".join(base64.b64decode(delta["audio"]) for delta in deltas) == to_pcm16(service.samples)
    assert done["type"] == "speech.audio.done"
    assert done["usage"] == {"input_tokens": 2, "output_tokens": 15, "total_tokens": 17}


async def test_models() -> None:
    async with sdk(FakeService()) as client:
        listed = [model.id async for model in client.models.list()]
        one = await client.models.retrieve("tts-1")
    assert listed == ["cosyvoice2-0.5b"]
    assert (one.id, one.object) == ("tts-1", "model")


@pytest.mark.parametrize(
    ("service", "ask", "expected", "code"),
    [
        (FakeService(), {"input": ""}, openai.BadRequestError, "empty_input"),
        (FakeService(), {"voice": "nobody"}, openai.BadRequestError, "voice_not_found"),
        (FakeService(), {"model": "whisper-1"}, openai.NotFoundError, "model_not_found"),
        (FakeService(speak_error=errors.Overloaded("Full.")), {}, openai.RateLimitError, "overloaded"),
        (FakeService(speak_error=errors.NotReady("Wait.")), {}, openai.InternalServerError, "not_ready"),
        (FakeService(speak_error=ValueError("secret")), {}, openai.InternalServerError, "internal_error"),
    ],
)
async def test_errors(
    service: FakeService, ask: dict[str, Any], expected: type[openai.APIStatusError], code: str
) -> None:
    async with sdk(service) as client:
        with pytest.raises(expected) as caught:
            await client.audio.speech.create(**{"model": "tts-1", "voice": "nova", "input": "Hello.", **ask})
    assert caught.value.code == code
    assert caught.value.request_id
    assert "secret" not in str(caught.value)


async def test_a_wrong_key(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("alpha\n")
    config = ApiConfig(api_keys_file=tmp_path / "keys")
    async with sdk(FakeService(), config) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.audio.speech.create(model="tts-1", voice="nova", input="Hello.")
    async with sdk(FakeService(), config, api_key="alpha") as client:
        await client.audio.speech.create(model="tts-1", voice="nova", input="Hello.")


async def test_a_broken_stream_is_an_exception_not_short_audio() -> None:
    service = FakeService(speak_error=errors.GenerationFailed("lost"), error_after=1)
    async with sdk(service) as client:
        streaming = client.audio.speech.with_streaming_response
        with pytest.raises(httpx.RemoteProtocolError):
            async with streaming.create(model="tts-1", voice="nova", input="Hi.", response_format="pcm") as response:
                await response.read()
