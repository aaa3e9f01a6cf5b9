"""`/v1/audio/speech/stream`: text in as it is written, audio out as it is made.

The client sends JSON frames, the server JSON and binary frames:

    session.config  any field of `POST /v1/audio/speech` but input and stream_format; for the text that follows it
    input.text      {"text": str}; cut anywhere
    input.flush     speak what is there; the stretch of speech ends
    input.cancel    stop at once, and forget what was not spoken
    input.done      no more text: `session.done` and a close with 1000 follow the last audio
    session.close   the same without waiting for it

    audio.start     {"id", "response_format", "sample_rate"}; then binary frames, which joined are one file
    audio.timing    {"id", "index", "text_start", "text_end", "text", "start_s", "end_s"} after each sentence, if
                    session.config has timings: true; places are code points of all text since the last flush
    audio.done      {"id", "cancelled", "usage"}
    session.done
    error           {"error": {message, type, param, code}}; the connection lives on if the client can do better
"""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from pydantic import BaseModel, Strict
from starlette.types import Receive, Scope, Send

from serve_app.api.access import voice_owner
from serve_app.api.audio_stream import Usage
from serve_app.api.boundary import request_id
from serve_app.api.encoders import encoded_rate_hz, encoder_for
from serve_app.api.error_table import ApiError, ClientLeft, error_body
from serve_app.api.fed_speech import fed_parts
from serve_app.api.frames import NORMAL, Frames, close_code
from serve_app.api.presence import finish
from serve_app.api.schema import AudioFormat, SpeechSettings, parse_json, speech_request
from serve_app.api.service import SpeechService
from serve_app.api.speech import max_bytes_with_clip
from serve_app.api.text_feed import TextFeed
from serve_app.api.timings import Timeline
from serve_app.config import ApiConfig
from serve_app.errors import SpeechError
from serve_app.messages import SAMPLE_RATE_HZ, SpeechRequest

logger = logging.getLogger("serve_app.api")


class Incoming(BaseModel):
    """What every frame from a client has, and the text that some have."""

    type: Literal["session.config", "input.text", "input.flush", "input.done", "input.cancel", "session.close"]
    text: Annotated[str, Strict()] = ""


@dataclass
class Stretch:
    """The text between two flushes: one stream of audio."""

    id: str
    request: SpeechRequest
    audio_format: AudioFormat
    sample_rate_hz: int
    feed: TextFeed
    timeline: Timeline | None = None
    usage: Usage = field(default_factory=Usage)
    started: bool = False


class LiveSocket:
    """The ASGI app of the route."""

    def __init__(self, service: SpeechService, config: ApiConfig) -> None:
        self.service = service
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        frames = Frames(scope, receive, send)
        await frames.accept()
        await LiveSession(frames, self.service, self.config, request_id(scope), voice_owner(scope)).run()


class LiveSession:
    """One connection: this task reads, another speaks."""

    def __init__(self, frames: Frames, service: SpeechService, config: ApiConfig, identifier: str, owner: str) -> None:
        self.frames = frames
        self.service = service
        self.config = config
        self.identifier = identifier
        self.owner = owner
        self.settings = SpeechSettings()
        self.num_stretches = 0
        self.done = False
        self.writing: Stretch | None = None
        self.speaking: Stretch | None = None
        self.stretches: asyncio.Queue[Stretch | None] = asyncio.Queue()
        self.speaker = asyncio.create_task(self.speak_all())

    async def run(self) -> None:
        """Until the client or `session.close` ends it. However it ends, no stream stays open."""
        try:
            while True:
                try:
                    await self.obey(await self.frames.next(max_bytes_with_clip(self.config)))
                except (ApiError, SpeechError) as error:
                    await self.frames.send({"type": "error", **error_body(error)})
        except ClientLeft:
            return
        finally:
            await finish(self.speaker)

    async def obey(self, raw: bytes) -> None:
        """Errors: `ClientLeft` after `session.close`; `ApiError`, `SpeechError` for what the client did wrong."""
        incoming = parse_json(Incoming, raw)
        if incoming.type == "session.config":
            settings = parse_json(SpeechSettings, raw)
            speech_request(settings, "", self.config, self.identifier)  # its errors belong here, not to the first text
            self.settings = settings
        elif incoming.type == "input.text":
            self.stretch_to_write().feed.write(incoming.text)
        elif incoming.type == "input.flush":
            self.end_stretch()
        elif incoming.type == "input.done":
            self.done = True
            self.end_stretch()
            self.stretches.put_nowait(None)
        elif incoming.type == "input.cancel":
            await self.cancel()
        else:
            await finish(self.speaker)
            await self.frames.send({"type": "session.done"})
            await self.frames.close(NORMAL)
            raise ClientLeft

    def stretch_to_write(self) -> Stretch:
        """The open one, or a new one with the settings of now."""
        if self.writing is None:
            self.num_stretches += 1
            identifier = f"{self.identifier}-{self.num_stretches}"
            self.writing = Stretch(
                identifier,
                speech_request(self.settings, "", self.config, identifier, self.owner),
                self.settings.response_format or "pcm",
                self.settings.sample_rate or SAMPLE_RATE_HZ,
                TextFeed(self.config.max_pending_characters, self.config.text_streaming),
                Timeline() if self.settings.timings else None,
            )
            self.stretches.put_nowait(self.writing)
        return self.writing

    def end_stretch(self) -> None:
        if self.writing is not None:
            self.writing.feed.finish()
            self.writing = None

    async def cancel(self) -> None:
        """Barge-in: silence, and a clean slate."""
        await finish(self.speaker)
        stopped, self.speaking, self.writing = self.speaking, None, None
        self.stretches = asyncio.Queue()
        if self.done:
            self.stretches.put_nowait(None)
        if stopped is not None and stopped.started:
            await self.report_done(stopped, cancelled=True)
        self.speaker = asyncio.create_task(self.speak_all())

    async def speak_all(self) -> None:
        """The speaker: every stretch in order, then the goodbye."""
        while (stretch := await self.stretches.get()) is not None:
            try:
                self.speaking = stretch
                await self.speak(stretch)
                self.speaking = None
            except ClientLeft:
                return
            except Exception as error:  # noqa: BLE001 - what `Boundary` is for requests
                await self.give_up(stretch, error)
        await self.frames.send({"type": "session.done"})
        await self.frames.close(NORMAL)

    async def speak(self, stretch: Stretch) -> None:
        encoder = encoder_for(stretch.audio_format, stretch.sample_rate_hz)
        patience_s = self.config.socket_input_s
        parts = fed_parts(
            self.service, stretch.request, stretch.feed, encoder, stretch.usage, patience_s, timeline=stretch.timeline
        )
        async with aclosing(parts):
            async for part in parts:
                await self.report_start(stretch)
                await self.frames.send_audio(part)
                await self.report_timings(stretch)
        await self.report_timings(stretch)
        # also for a stretch without a word in it: its client waits for this
        await self.report_start(stretch)
        await self.report_done(stretch, cancelled=False)

    async def report_start(self, stretch: Stretch) -> None:
        if stretch.started:
            return
        stretch.started = True
        rate_hz = encoded_rate_hz(stretch.audio_format, stretch.sample_rate_hz)
        event = {"id": stretch.id, "response_format": stretch.audio_format, "sample_rate": rate_hz}
        await self.frames.send({"type": "audio.start", **event})

    async def report_timings(self, stretch: Stretch) -> None:
        for timing in stretch.timeline.take() if stretch.timeline is not None else ():
            await self.frames.send({"type": "audio.timing", "id": stretch.id, **asdict(timing)})

    async def report_done(self, stretch: Stretch, cancelled: bool) -> None:
        event = {"id": stretch.id, "cancelled": cancelled, "usage": stretch.usage.json()}
        await self.frames.send({"type": "audio.done", **event})

    async def give_up(self, stretch: Stretch, error: Exception) -> None:
        """Tell the client; its stretch has no `audio.done`. Close if trying again at once would not help."""
        self.speaking = None
        if self.writing is stretch:
            self.writing = None
        code = close_code(error)
        if code is not None:
            foreseen = isinstance(error, SpeechError)
            logger.error("stream %s failed: %s", stretch.id, error, exc_info=None if foreseen else error)
        try:
            await self.frames.send({"type": "error", **error_body(error)})
        except ClientLeft:
            return
        if code is not None:
            await self.frames.close(code)
