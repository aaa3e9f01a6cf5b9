"""`POST /v1/audio/speech`: the walk of one request from its body to the last byte of its audio."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from serve_app.api.body import read_body
from serve_app.api.boundary import request_id
from serve_app.api.encoders import Encoder, PcmEncoder, WavEncoder
from serve_app.api.error_table import HTTP_ROWS, ApiError, invalid_field
from serve_app.api.presence import run_while_connected
from serve_app.api.schema import OutputOptions, SpeechOrder, parse_speech
from serve_app.api.service import SpeechService
from serve_app.config import ApiConfig
from serve_app.errors import GenerationFailed
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array, PreparedSpeech

STREAM_HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
"""On every stream: neither a cache nor a proxy may hold sound back."""


class SpeechEndpoint:
    """An ASGI app, not a request-to-response function: one task owns the stream from first await to last."""

    def __init__(self, service: SpeechService, config: ApiConfig) -> None:
        self.service = service
        self.config = config
        # base64 makes four bytes of three, and the rest of the body has its own limit
        self.max_body_bytes = config.max_body_bytes + (config.max_reference_bytes * 4 + 2) // 3 + 1024

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_content_type(scope)
        raw = await read_body(scope, receive, self.max_body_bytes, self.config.body_timeout_s)
        order = parse_speech(raw, self.config, request_id(scope))
        await run_while_connected(receive, stream_audio(self.service, order, send))


async def stream_audio(service: SpeechService, order: SpeechOrder, send: Send) -> None:
    """Send the whole answer.

    The first samples are awaited before the headers go out, so that what fails until then has its own status. What
    fails later is raised through the open body: `Boundary` then leaves it without its end.
    """
    stopwatch = Stopwatch()
    encoder = encoder_for(order.output)
    prepared = await service.prepare(order.request)
    stopwatch.lap("preprocess")
    async with aclosing(spoken_samples(service, prepared)) as spoken:
        first = await anext(spoken)
        stopwatch.lap("first_audio")
        headers = [
            (b"content-type", content_type(order.output).encode()),
            (b"x-sample-rate", str(order.output.sample_rate_hz).encode()),
            (b"server-timing", stopwatch.header().encode()),
            *STREAM_HEADERS,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send_part(send, encoder.begin())
        await send_part(send, encoder.encode(first))
        async for samples in spoken:
            await send_part(send, encoder.encode(samples))
        await send_part(send, encoder.flush())
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def spoken_samples(service: SpeechService, prepared: PreparedSpeech) -> AsyncGenerator[Float32Array, None]:
    """Chunks of float32 [S], S > 0, finite; at least one. Errors: `GenerationFailed`, and the service's own."""
    silent = True
    async with aclosing(service.speak(prepared)) as chunks:
        async for chunk in chunks:
            if not np.isfinite(chunk.samples).all():
                raise GenerationFailed("The model produced samples that are not finite.")
            if len(chunk.samples):
                silent = False
                yield chunk.samples
    if silent:
        raise GenerationFailed("The model produced no sound.")


async def send_part(send: Send, data: bytes) -> None:
    """One HTTP chunk; none for no bytes, since an empty chunk would end the body."""
    if data:
        await send({"type": "http.response.body", "body": data, "more_body": True})


def check_content_type(scope: Scope) -> None:
    """Errors: `ApiError` 415 unless the body is JSON or says nothing of itself.

    Besides being clear, this keeps a foreign web page from posting here without asking first (CORS): the types that
    need no permission are exactly those refused.
    """
    stated = Headers(scope=scope).get("content-type", "application/json").partition(";")[0].strip().lower()
    if stated != "application/json" and not stated.endswith("+json"):
        raise ApiError(HTTP_ROWS[415], "The body must be application/json.")


def encoder_for(output: OutputOptions) -> Encoder:
    """A fresh encoder. Errors: `ApiError` 400 for a format that this version does not make."""
    if output.sample_rate_hz != SAMPLE_RATE_HZ:
        raise invalid_field("sample_rate", f"Only {SAMPLE_RATE_HZ} Hz is available yet.")
    if output.audio_format == "wav":
        return WavEncoder(output.sample_rate_hz)
    if output.audio_format == "pcm":
        return PcmEncoder()
    raise invalid_field("response_format", "Only 'wav' and 'pcm' are available yet.")


def content_type(output: OutputOptions) -> str:
    """The media type of the body."""
    return f"audio/pcm;rate={output.sample_rate_hz};channels=1" if output.audio_format == "pcm" else "audio/wav"


class Stopwatch:
    """The stages of `Server-Timing`, in milliseconds since the one before."""

    def __init__(self) -> None:
        self.last_s = time.perf_counter()
        self.stages: list[str] = []

    def lap(self, name: str) -> None:
        now_s = time.perf_counter()
        self.stages.append(f"{name};dur={(now_s - self.last_s) * 1000:.1f}")
        self.last_s = now_s

    def header(self) -> str:
        return ", ".join(self.stages)
