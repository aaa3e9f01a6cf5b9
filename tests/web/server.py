"""A server with the contract that the studio page needs: known samples at a chosen pace, faults on demand."""

import asyncio
import base64
import contextlib
import io
import json
import re
import wave
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.async_api import FilePayload
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from serve_app.api.boundary import Boundary, RequestIds
from serve_app.api.error_table import error_response
from serve_app.api.page import page_routes
from serve_app.errors import BuiltinVoice, GenerationFailed, VoiceExists

Int16Array = NDArray[np.int16]
RATE_HZ = 24_000

STALE = b"\x01\x02" * 4800
"""Sound that was on its way when the client interrupted."""

TAP = """
class Tap extends AudioWorkletProcessor {
  process([[samples]]) {
    if (samples && samples.some((sample) => sample !== 0)) this.port.postMessage(samples.slice());
    return true;
  }
}
registerProcessor("tap", Tap);
"""
"""A worklet beside the page's own: hands over everything that goes to the loudspeaker."""


def noise(seconds: float) -> Int16Array:
    """int16 [S] without any zero, so that what was played can be told from silence, sample by sample."""
    size = round(seconds * RATE_HZ)
    samples = np.random.default_rng(7).integers(1, 6000, size) * np.random.default_rng(8).choice([-1, 1], size)
    swell = 0.15 + 0.85 * np.abs(np.sin(np.arange(size) / RATE_HZ * 7))
    shaped: Int16Array = (np.sign(samples) * np.maximum(1, np.abs(samples) * swell)).astype(np.int16)
    return shaped


def quieter(samples: Int16Array) -> Int16Array:
    """At half the level, and without any zero either."""
    halved: Int16Array = (np.sign(samples) * np.maximum(1, np.abs(samples) // 2)).astype(np.int16)
    return halved


def wav(samples: Int16Array) -> bytes:
    """A WAV file, mono, 24 kHz."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(RATE_HZ)
        writer.writeframes(samples.tobytes())
    return file.getvalue()


def clip_file(name: str, samples: Int16Array) -> FilePayload:
    """A WAV file as a file chooser hands it over."""
    return {"name": name, "mimeType": "audio/wav", "buffer": wav(samples)}


QUALITY = {
    "duration_s": 2.5,
    "speech_s": 2.1,
    "snr_db": 17.3,
    "clipped_share": 0.0012,
    "second_speaker": False,
    "warnings": ["The recording is noisy (17 dB): a quieter room makes the voice clearer."],
}


@dataclass
class StudioServer:
    """samples: what every request gets, `part_bytes` at a time (odd, so that samples are torn apart), with `pause_s`
    before each part but the first. hold_after: parts after which it waits for `released`. break_after: parts after
    which the body breaks. error: raised instead of an answer. keeps_voices: whether voices can be registered, and clips
    heard beforehand: as they were sent, or at half the level for those without their noise.

    speaks_words: live text is spoken as it comes, not when it is flushed.

    requests, uploads, previews, messages: what came over HTTP, as files, as files to be heard, and over the WebSocket.
    finished, closed: streams that reached their last part, and that did not.
    """

    samples: Int16Array = field(default_factory=lambda: noise(0.8))
    part_bytes: int = 4801
    pause_s: float = 0.0
    first_pause_s: float = 0.0
    hold_after: int | None = None
    released: asyncio.Event = field(default_factory=asyncio.Event)
    break_after: int | None = None
    error: Exception | None = None
    status_error: Exception | None = None
    keeps_voices: bool = True
    has_live: bool = True
    speaks_words: bool = False
    requests: list[dict[str, Any]] = field(default_factory=list)
    readings: list[str] = field(default_factory=list)
    uploads: list[dict[str, Any]] = field(default_factory=list)
    previews: list[dict[str, Any]] = field(default_factory=list)
    preview_error: Exception | None = None
    messages: list[dict[str, Any]] = field(default_factory=list)
    closed: int = 0
    finished: int = 0
    voices: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"id": "default", "name": "default", "type": "builtin", "language": "en"},
            {"id": "clara", "name": "clara", "type": "builtin", "language": "en"},
            {"id": "martin", "name": "martin", "type": "builtin", "language": "de"},
            {"id": "v_1", "name": "Grandmother", "type": "audio_sample", "language": ""},
        ]
    )

    def app(self) -> Starlette:
        app = Starlette(
            routes=[
                *page_routes(),
                Route("/tap.js", self.tap),
                Route("/ready", self.ready),
                Route("/v1/models", self.models),
                Route("/v1/audio/speech", self.speech, methods=["POST"]),
                Route("/v1/status", self.status),
                Route("/v1/audio/speech/reading", self.reading, methods=["POST"]),
                Route("/v1/audio/voices", self.list_voices),
                Route("/v1/audio/voices", self.add_voice, methods=["POST"]),
                Route("/v1/audio/voices/preview", self.preview, methods=["POST"]),
                Route("/v1/audio/voices/{voice}", self.delete_voice, methods=["DELETE"]),
                WebSocketRoute("/v1/audio/speech/stream", self.live),
            ],
            middleware=[Middleware(RequestIds), Middleware(Boundary)],
            exception_handlers={HTTPException: lambda _, error: error_response(error)},
        )
        app.router.redirect_slashes = False
        return app

    async def tap(self, request: Request) -> Response:
        return Response(TAP, media_type="text/javascript")

    async def ready(self, request: Request) -> Response:
        return JSONResponse({"ready": True, "queue": 3, "synthesis": {"replicas": 2, "streams": 5}})

    async def status(self, request: Request) -> Response:
        if self.status_error is not None:
            raise self.status_error
        replicas = [{"id": "one", "streams": 2, "spare": 6}, {"id": "two", "streams": 3, "spare": 5}]
        times = {"count": 9, "p50": 181.0, "p95": 240.0, "p99": 300.0}
        answer = {
            "ready": True,
            "window_s": 300,
            "recent": {"spoken": 9, "left": 1, "invalid": 0, "refused": 2, "failed": 0, "underruns": 4},
            "ttfa_ms": times,
            "audible_ttfa_ms": {"count": 0, "p50": None, "p95": None, "p99": None},
            "stages": {
                "ingress": {"replicas": 1, "requests": 6},
                "preprocess": None,
                "synthesis": {"replicas": 2, "waiting_for_sound": 1, "streams": 5, "spare": 11},
            },
            "replicas": replicas,
        }
        return JSONResponse(answer)

    async def reading(self, request: Request) -> Response:
        """Says 3 as three; all else as it is written."""
        text = (await request.json())["input"]
        self.readings.append(text)
        spoken = {"3": "three"}
        parts = [{"written": part, "spoken": spoken.get(part, part)} for part in re.split("(3)", text) if part]
        return JSONResponse({"object": "speech.reading", "pieces": [{"parts": parts}], "warnings": []})

    async def models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "cosyvoice2-0.5b", "sample_rate": RATE_HZ}]})

    async def speech(self, request: Request) -> Response:
        self.requests.append(await request.json())
        await asyncio.sleep(self.first_pause_s)
        if self.error is not None:
            raise self.error
        headers = {
            "x-sample-rate": str(RATE_HZ),
            "server-timing": "queue;dur=3.2, preprocess;dur=41.0, first_audio;dur=187.5",
        }
        return StreamingResponse(self.parts(), media_type="audio/pcm", headers=headers)

    async def parts(self) -> AsyncGenerator[bytes, None]:
        data = self.samples.tobytes()
        ended = False
        try:
            for index, start in enumerate(range(0, len(data), self.part_bytes)):
                if index == self.break_after:
                    raise GenerationFailed("The model stopped.")
                if index == self.hold_after:
                    await self.released.wait()
                if index:
                    await asyncio.sleep(self.pause_s)
                yield data[start : start + self.part_bytes]
            ended = True
        finally:
            self.finished += ended
            self.closed += not ended

    async def list_voices(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "voices": self.voices, "data": self.voices})

    async def add_voice(self, request: Request) -> Response:
        if not self.keeps_voices:
            raise HTTPException(405)
        upload = await self.uploaded(request)
        self.uploads.append(upload)
        name = upload["name"]
        if name in [voice["name"] for voice in self.voices]:
            raise VoiceExists("A voice of that name exists.")
        voice = {"id": f"v_{len(self.voices)}", "name": name, "type": "audio_sample", "language": ""}
        self.voices = [*self.voices, voice]
        return JSONResponse({**voice, "quality": QUALITY})

    async def uploaded(self, request: Request) -> dict[str, Any]:
        """The fields of the form, and the file's bytes."""
        async with request.form() as form:
            sample = form["audio_sample"]
            assert not isinstance(sample, str)
            return {
                **{name: value for name, value in form.items() if value is not sample},
                "bytes": await sample.read(),
            }

    async def preview(self, request: Request) -> Response:
        if not self.keeps_voices:
            raise HTTPException(405)
        upload = await self.uploaded(request)
        self.previews.append(upload)
        if self.preview_error is not None:
            raise self.preview_error
        denoised = upload["denoise"] == "on"
        samples = np.frombuffer(upload["bytes"][44:], np.int16)
        audio = base64.b64encode(wav(quieter(samples) if denoised else samples)).decode()
        quality = {**QUALITY, "denoised": denoised}
        return JSONResponse(
            {"object": "audio.voice.preview", "audio": audio, "sample_rate": RATE_HZ, "quality": quality}
        )

    async def delete_voice(self, request: Request) -> Response:
        known = [voice for voice in self.voices if voice["id"] == request.path_params["voice"]]
        if not known:
            raise HTTPException(404)
        if known[0]["type"] == "builtin":
            raise BuiltinVoice("A built-in voice cannot be deleted.")
        self.voices = [voice for voice in self.voices if voice not in known]
        return JSONResponse({"deleted": True})

    async def live(self, socket: WebSocket) -> None:
        if not self.has_live:
            await socket.close()
            return
        await socket.accept()
        speaking: asyncio.Task[None] | None = None
        speaks_words = False
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                message = json.loads(await socket.receive_text())
                self.messages.append(message)
                if message["type"] == "input.text" and self.speaks_words:
                    if not speaks_words:
                        await socket.send_json({"type": "audio.start", "sample_rate": RATE_HZ})
                    speaks_words = True
                    await socket.send_bytes(self.samples.tobytes())
                elif message["type"] == "input.flush" and speaks_words:
                    await socket.send_json({"type": "audio.done", "cancelled": False})
                    speaks_words = False
                elif message["type"] == "input.flush":
                    speaking = asyncio.create_task(self.say(socket, speaking))
                elif message["type"] == "input.cancel" and speaking is not None:
                    speaking.cancel()
                    await asyncio.wait({speaking})
                    await socket.send_bytes(STALE)
                    await socket.send_json({"type": "audio.done", "cancelled": True})
                    speaking = None
                elif message["type"] == "session.close":
                    await socket.send_json({"type": "session.done"})
        if speaking is not None:
            speaking.cancel()

    async def say(self, socket: WebSocket, after: "asyncio.Task[None] | None") -> None:
        """The text between two flushes, once the text before it has been spoken."""
        if after is not None:
            await asyncio.wait({after})
        await socket.send_json({"type": "audio.start", "sample_rate": RATE_HZ})
        with contextlib.suppress(WebSocketDisconnect):
            async with aclosing(self.parts()) as parts:
                async for part in parts:
                    await socket.send_bytes(part)
            await socket.send_json({"type": "audio.done", "cancelled": False})
