"""`POST /v1/audio/speech`: the walk of one request from its body to the last byte of its audio."""

import time
from contextlib import aclosing

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from serve_app.api.access import voice_owner
from serve_app.api.audio_stream import Usage, encoded_parts
from serve_app.api.body import read_body
from serve_app.api.boundary import request_id
from serve_app.api.encoders import content_type, encoded_rate_hz, encoder_for
from serve_app.api.error_table import HTTP_ROWS, ApiError
from serve_app.api.events import as_events
from serve_app.api.presence import run_while_connected
from serve_app.api.schema import SpeechOrder, parse_speech
from serve_app.api.service import SpeechService
from serve_app.api.timings import Said, Timeline
from serve_app.config import ApiConfig
from serve_app.messages import PreparedSpeech

STREAM_HEADERS = ((b"cache-control", b"no-store"), (b"x-accel-buffering", b"no"))
"""On every stream: neither a cache nor a proxy may hold sound back."""


class SpeechEndpoint:
    """An ASGI app, not a request-to-response function: one task owns the stream from first await to last."""

    def __init__(self, service: SpeechService, config: ApiConfig) -> None:
        self.service = service
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        check_content_type(scope)
        raw = await read_body(scope, receive, max_bytes_with_clip(self.config), self.config.body_timeout_s)
        order = parse_speech(raw, self.config, request_id(scope), voice_owner(scope))
        await run_while_connected(receive, stream_audio(self.service, order, send))


async def stream_audio(service: SpeechService, order: SpeechOrder, send: Send) -> None:
    """Send the whole answer.

    The first samples are awaited before the headers go out, so that what fails until then has its own status. What
    fails later is raised through the open body: `Boundary` then leaves it without its end.
    """
    output = order.output
    arrived_at_s = time.perf_counter()
    usage = Usage()
    encoder = encoder_for(output.audio_format, output.sample_rate_hz)
    prepared = await service.prepare(order.request)
    timeline = Timeline() if output.timings else None
    if timeline is not None:
        timeline.begin(Said(prepared, order.request.text))
    async with aclosing(encoded_parts(service, prepared, encoder, usage, timeline)) as audio:
        parts = as_events(audio, usage, timeline) if output.server_sent_events else audio
        async with aclosing(parts):
            first = await anext(parts)
            waited_s = time.perf_counter() - arrived_at_s
            timing = server_timing(waited_s, prepared.work_s, usage.first_work_s)
            rate_hz = encoded_rate_hz(output.audio_format, output.sample_rate_hz)
            media_type = content_type(output.audio_format, rate_hz)
            headers = [
                (b"content-type", b"text/event-stream" if output.server_sent_events else media_type.encode()),
                (b"x-sample-rate", str(rate_hz).encode()),
                (b"server-timing", timing.encode()),
                *warning_headers(prepared),
                *STREAM_HEADERS,
            ]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send_part(send, first)
            async for part in parts:
                await send_part(send, part)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def send_part(send: Send, data: bytes) -> None:
    """One HTTP chunk; none for no bytes, since an empty chunk would end the body."""
    if data:
        await send({"type": "http.response.body", "body": data, "more_body": True})


def warning_headers(prepared: PreparedSpeech) -> list[tuple[bytes, bytes]]:
    """What preprocessing wants the client to know, such as markup that was left out; no header if nothing."""
    text = "; ".join(prepared.warnings)[:1000]
    return [(b"x-warnings", text.encode("ascii", "replace"))] if text.isprintable() and text else []


def max_bytes_with_clip(config: ApiConfig) -> int:
    """The largest body that may hold a reference clip: base64 makes four bytes of three."""
    return config.max_body_bytes + (config.max_reference_bytes * 4 + 2) // 3 + 1024


def check_content_type(scope: Scope) -> None:
    """Errors: `ApiError` 415 unless the body is JSON or says nothing of itself.

    Besides being clear, this keeps a foreign web page from posting here without asking first (CORS): the types that
    need no permission are exactly those refused.
    """
    stated = Headers(scope=scope).get("content-type", "application/json").partition(";")[0].strip().lower()
    if stated != "application/json" and not stated.endswith("+json"):
        raise ApiError(HTTP_ROWS[415], "The body must be application/json.")


def server_timing(total_s: float, prepare_s: float, first_audio_s: float) -> str:
    """The stages of a stream that begins, in milliseconds.

    queue: waiting in front of both stages, and the ways between them. preprocess and first_audio: what each worked.
    """
    stages = {
        "queue": max(0.0, total_s - prepare_s - first_audio_s),
        "preprocess": prepare_s,
        "first_audio": first_audio_s,
    }
    return ", ".join(f"{name};dur={seconds * 1000:.1f}" for name, seconds in stages.items())
