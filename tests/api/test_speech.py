"""`POST /v1/audio/speech` on the wire: bytes, headers, and the three ways a stream can end."""

import asyncio
import logging

import httpx
import numpy as np
import pytest

from serve_app import errors
from serve_app.api.encoders import to_pcm16
from serve_app.api.routes import create_api
from serve_app.api.speech import server_timing
from serve_app.config import ApiConfig
from tests.api.live import assert_error, client_of, listening, raw_request
from tests.fakes import FakeService, Fault

PCM = {"input": "Hello.", "response_format": "pcm"}
PCM_BYTES = b'{"input":"Hello.","response_format":"pcm"}'


async def test_pcm_is_the_samples() -> None:
    service = FakeService()
    async with client_of(service) as client:
        response = await client.post("/v1/audio/speech", json=PCM)
    assert response.status_code == 200
    assert response.content == to_pcm16(service.samples)
    assert response.headers["content-type"] == "audio/pcm;rate=24000;channels=1"
    assert response.headers["x-sample-rate"] == "24000"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["transfer-encoding"] == "chunked"
    assert "content-length" not in response.headers
    # what the fake says of its work; it took none of that time
    assert response.headers["server-timing"] == "queue;dur=0.0, preprocess;dur=250.0, first_audio;dur=125.0"
    assert service.open_streams == 0


async def test_wav_header_is_a_chunk_of_its_own() -> None:
    service = FakeService()
    body = b'{"input":"Hello.","response_format":"wav"}'
    async with listening(create_api(service, ApiConfig())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw_request(body))
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-type: audio/wav\r\n" in head
        assert await reader.readline() == b"2c\r\n"
        header = await reader.readexactly(44 + 2)
        writer.close()
    assert header[:4] == b"RIFF"


async def test_request_reaches_the_service_parsed() -> None:
    service = FakeService()
    async with client_of(service) as client:
        sent = {**PCM, "voice": {"id": "voice_1"}, "speed": 1.5, "seed": 7, "instructions": "softly"}
        response = await client.post("/v1/audio/speech", json=sent, headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    [request] = service.requests
    assert (request.request_id, request.text, request.voice) == ("mine-1", "Hello.", "voice_1")
    assert (request.speed, request.seed, request.instructions) == (1.5, 7, "softly")


@pytest.mark.parametrize(
    ("error", "status", "code", "param"),
    [
        (errors.EmptyInput("m"), 400, "empty_input", "input"),
        (errors.InputTooLong("m"), 400, "string_above_max_length", "input"),
        (errors.VoiceNotFound("m"), 400, "voice_not_found", "voice"),
        (errors.InvalidAudio("m"), 400, "invalid_audio", "ref_audio"),
        (errors.AudioTooShort("m"), 400, "audio_too_short", "ref_audio"),
        (errors.AudioTooLong("m"), 400, "audio_too_long", "ref_audio"),
        (errors.Overloaded("m"), 429, "overloaded", None),
        (errors.NotReady("m"), 503, "not_ready", None),
        (errors.GenerationFailed("secret"), 500, "internal_error", None),
        (errors.CheckpointError("secret"), 500, "internal_error", None),
        (Fault("secret"), 500, "internal_error", None),
        (ValueError("secret"), 500, "internal_error", None),
    ],
)
@pytest.mark.parametrize("stage", ["prepare", "speak"])
async def test_failure_before_the_first_byte_has_its_status(
    stage: str, error: Exception, status: int, code: str, param: str | None
) -> None:
    service = FakeService(prepare_error=error) if stage == "prepare" else FakeService(speak_error=error)
    async with client_of(service) as client:
        response = await client.post("/v1/audio/speech", json=PCM)
    assert_error(response, status, code, param)
    assert "secret" not in response.text
    if status in (429, 503):
        assert 1 <= int(response.headers["retry-after"]) <= 30
    assert service.open_streams == 0


@pytest.mark.parametrize("samples", [np.zeros(0, np.float32), np.full(9_600, np.nan, np.float32)])
async def test_no_sound_and_no_number_are_failures(samples: np.ndarray) -> None:
    async with client_of(FakeService(samples=samples)) as client:
        assert_error(await client.post("/v1/audio/speech", json=PCM), 500, "internal_error")


async def test_nothing_is_sent_before_the_first_samples() -> None:
    service = FakeService(gate=asyncio.Semaphore(0))
    async with listening(create_api(service, ApiConfig())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw_request(PCM_BYTES))
        await service.until_open(1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reader.read(1), 0.05)
        assert service.gate is not None
        service.gate.release()
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        writer.close()
        await service.until_open(0)


@pytest.mark.parametrize("error", [errors.GenerationFailed("lost"), ValueError("lost")])
async def test_failure_after_the_first_byte_breaks_the_body(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService(speak_error=error, error_after=1)
    async with listening(create_api(service, ApiConfig())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(raw_request(PCM_BYTES))
        answer = await asyncio.wait_for(reader.read(), 5)  # to the end of the connection, which the server closes
        writer.close()
        with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
            async with httpx.AsyncClient(trust_env=False) as client:
                await client.post(f"http://127.0.0.1:{port}/v1/audio/speech", json=PCM)
    assert answer.startswith(b"HTTP/1.1 200")
    assert to_pcm16(service.samples[:4_800]) in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert b"lost" not in answer
    ours = [r for r in caplog.records if r.name == "serve_app.api"]
    assert len(ours) == 2  # one for each of the two requests
    foreseen = isinstance(error, errors.SpeechError)
    assert all((r.exc_info is None) is foreseen for r in ours)
    others = [r for r in caplog.records if r.levelno >= logging.WARNING and r.name != "serve_app.api"]
    assert all(r.exc_info is None and "without completing response" in r.message for r in others)


@pytest.mark.parametrize("moment", ["prepare", "first chunk", "mid-stream"])
async def test_fifty_clients_that_leave_leave_nothing(moment: str) -> None:
    service = FakeService(samples=np.zeros(24_000 * 60, np.float32))
    if moment == "prepare":
        service.prepare_gate = asyncio.Semaphore(0)
    else:
        service.stall_after = 1 if moment == "mid-stream" else 0
    async with listening(create_api(service, ApiConfig())) as port:
        writers = []
        for _ in range(50):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw_request(PCM_BYTES))
            if moment == "mid-stream":
                await reader.readuntil(b"\r\n\r\n")
            writers.append(writer)
        await (service.until_open(0, prepares=50) if moment == "prepare" else service.until_open(50))
        for writer in writers:
            writer.transport.abort()
        await service.until_open(0, prepares=0)
    assert service.opened_streams == (0 if moment == "prepare" else 50)


async def test_client_that_stops_reading_and_leaves() -> None:
    """Back-pressure: the endpoint waits in `send`, not in the generator, when the client goes."""
    service = FakeService(samples=np.zeros(24_000 * 600, np.float32), chunk_samples=240_000)
    async with listening(create_api(service, ApiConfig())) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(raw_request(PCM_BYTES))
        await reader.readuntil(b"\r\n\r\n")
        await service.until_open(1)
        writer.transport.abort()
        await service.until_open(0)


def test_server_timing_is_what_each_stage_worked_and_the_rest_is_waiting() -> None:
    assert server_timing(1.0, 0.25, 0.125) == "queue;dur=625.0, preprocess;dur=250.0, first_audio;dur=125.0"
