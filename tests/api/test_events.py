"""Server-sent events: the same bytes as the plain answer, in OpenAI's frames; an error is told and then breaks."""

import base64
import json
from typing import Any, get_args

import httpx
import pytest

from serve_app import errors
from serve_app.api.schema import AudioFormat
from tests.api.live import assert_error, client_of
from tests.fakes import FakeService

SPEECH = "/v1/audio/speech"


def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of every event, strictly: two lines and an empty one each."""
    assert text.endswith("\n\n")
    found = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        assert name.startswith("event: ") and data.startswith("data: ")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@pytest.mark.parametrize("audio_format", get_args(AudioFormat))
async def test_joined_deltas_are_the_plain_answer(audio_format: str) -> None:
    body = {"input": "One two three.", "response_format": audio_format}
    async with client_of(FakeService()) as client:
        plain = await client.post(SPEECH, json=body)
        streamed = await client.post(SPEECH, json={**body, "stream_format": "sse"})
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.headers["cache-control"] == "no-store"
    *deltas, (last, done) = events_of(streamed.text)
    assert {name for name, _ in deltas} == {"speech.audio.delta"}
    assert all(data["type"] == "speech.audio.delta" for _, data in deltas)
    assert b"".join(base64.b64decode(data["audio"]) for _, data in deltas) == plain.content
    # three words; three chunks of five tokens
    usage = {"input_tokens": 3, "output_tokens": 15, "total_tokens": 18}
    assert (last, done) == ("speech.audio.done", {"type": "speech.audio.done", "usage": usage})


async def test_failure_before_the_first_sound_has_its_status() -> None:
    async with client_of(FakeService(speak_error=errors.Overloaded("Full."))) as client:
        response = await client.post(SPEECH, json={"input": "Hi.", "stream_format": "sse"})
    assert_error(response, 429, "overloaded")


async def test_failure_after_it_is_an_event_and_then_a_broken_body() -> None:
    service = FakeService(speak_error=errors.GenerationFailed("lost"), error_after=1)
    received = b""
    body = {"input": "Hi.", "stream_format": "sse", "response_format": "pcm"}
    async with client_of(service) as client:
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            async with client.stream("POST", SPEECH, json=body) as response:
                async for part in response.aiter_raw():
                    received += part
    (first, _), (last, data) = events_of(received.decode())
    assert (first, last) == ("speech.audio.delta", "error")
    assert data["error"]["code"] == "internal_error"
    assert "lost" not in received.decode()
    assert service.open_streams == 0
