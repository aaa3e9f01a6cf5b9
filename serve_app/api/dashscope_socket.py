"""`/api-ws/v1/inference`: the duplex protocol of DashScope's CosyVoice, so that its SDK works with another `url=`.

    run-task -> task-started (before any model work) ... continue-task* -> binary frames ... finish-task -> the rest of
    the audio -> task-finished; or task-failed{error_code, error_message} at any time. The next run-task may follow.
    After the audio of each sentence: result-generated, of type sentence-end, with its times; `words` stays empty.

Read from dashscope 2.0.2, `audio/tts_v2/speech_synthesizer.py`: `input.flush` in a continue-task, and
`input.directive: cancel` in a finish-task, are its flush and its barge-in.
"""

import asyncio
import logging
from contextlib import aclosing
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, Strict, StringConstraints
from starlette.types import Receive, Scope, Send

from serve_app.api.access import voice_owner
from serve_app.api.audio_stream import Usage
from serve_app.api.boundary import request_id
from serve_app.api.encoders import encoder_for
from serve_app.api.error_table import ApiError, ClientLeft, invalid_field, message_of, row_of
from serve_app.api.fed_speech import fed_parts
from serve_app.api.frames import NORMAL, Frames
from serve_app.api.presence import finish
from serve_app.api.schema import AudioFormat, SideText, SpeechSettings, parse_json, speech_request
from serve_app.api.service import SpeechService
from serve_app.api.text_feed import TextFeed
from serve_app.api.timings import Timeline, Timing
from serve_app.config import ApiConfig, TextStreaming
from serve_app.errors import InputTooLong, SpeechError
from serve_app.messages import SpeechRequest

logger = logging.getLogger("serve_app.api")

MAX_TASK_CHARACTERS = 20_000
DEFAULT_RATE_HZ = 22_050
NORMAL_VOLUME = 50


class Header(BaseModel):
    action: Literal["run-task", "continue-task", "finish-task"]
    task_id: Annotated[str, Strict(), StringConstraints(min_length=1, max_length=128)]


class Input(BaseModel):
    text: Annotated[str, Strict()] | None = None
    flush: bool = False
    directive: str | None = None


class Parameters(BaseModel):
    """Of a run-task. Absent and zero mean the default, as the SDK sends them; what we cannot do is refused."""

    voice: Annotated[str, Strict(), StringConstraints(max_length=256)] | None = None
    format: Literal["Default", "mp3", "wav", "pcm", "opus"] | None = None
    sample_rate: Literal[0, 8000, 16000, 22050, 24000, 44100, 48000] | None = None
    rate: Annotated[float, Field(ge=0.5, le=2.0, allow_inf_nan=False)] = 1.0
    pitch: Annotated[float, Field(ge=1, le=1)] = 1.0
    volume: Annotated[int, Field(ge=0, le=100)] = NORMAL_VOLUME
    seed: Annotated[int, Field(ge=0, le=2**63 - 1)] | None = None
    instruction: SideText | None = None


class Payload(BaseModel):
    model: str | None = None
    input: Input = Input()
    parameters: Parameters = Parameters()


class Command(BaseModel):
    """One text frame from the client."""

    header: Header
    payload: Payload = Payload()


class Task:
    """One run-task: its text, and the task that speaks it."""

    def __init__(self, task_id: str, request: SpeechRequest, parameters: Parameters, streaming: TextStreaming) -> None:
        self.id = task_id
        self.request = request
        wanted = parameters.format
        self.audio_format: AudioFormat = "mp3" if wanted is None or wanted == "Default" else wanted
        self.sample_rate_hz = parameters.sample_rate or DEFAULT_RATE_HZ
        self.gain = parameters.volume / NORMAL_VOLUME
        self.feed = TextFeed(MAX_TASK_CHARACTERS, streaming)
        self.num_characters = 0
        self.finishing = False
        self.speaker: asyncio.Task[None] | None = None


class DashscopeSocket:
    """The ASGI app of the route."""

    def __init__(self, service: SpeechService, config: ApiConfig) -> None:
        self.service = service
        self.config = config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        frames = Frames(scope, receive, send)
        await frames.accept()
        await DashscopeSession(frames, self.service, self.config, request_id(scope), voice_owner(scope)).run()


class DashscopeSession:
    """One connection and at most one task at a time."""

    def __init__(self, frames: Frames, service: SpeechService, config: ApiConfig, identifier: str, owner: str) -> None:
        self.frames = frames
        self.service = service
        self.config = config
        self.identifier = identifier
        self.owner = owner
        self.task: Task | None = None

    async def run(self) -> None:
        """Until the client leaves, or is silent for too long."""
        try:
            while True:
                await self.hear()
        except ClientLeft:
            return
        finally:
            await self.silence()

    async def hear(self) -> None:
        """One frame. The wait for it is bounded while a task wants text, and while there is no task at all."""
        try:
            raw = await asyncio.wait_for(self.frames.next(self.config.max_body_bytes), self.patience_s())
        except asyncio.TimeoutError:
            if self.task is None:
                await self.frames.close(NORMAL, "idle")
                raise ClientLeft from None
            if not self.task.finishing:
                await self.fail(self.task.id, "InputTimeout", "No text came in time.")
            return
        except ApiError as error:
            await self.fail(self.task.id if self.task else "", "InvalidParameter", error.message)
            return
        await self.obey(raw)

    def patience_s(self) -> float:
        return self.config.socket_idle_s if self.task is None else self.config.socket_input_s

    async def obey(self, raw: bytes) -> None:
        task_id = self.task.id if self.task else ""
        try:
            command = parse_json(Command, raw)
            task_id = command.header.task_id
            if command.header.action == "run-task":
                await self.start(command)
            else:
                await self.proceed(self.running(task_id), command)
        except (ApiError, SpeechError) as error:
            await self.fail(task_id, error_code(error), message_of(error, row_of(error)))

    async def start(self, command: Command) -> None:
        if self.task is not None:
            raise invalid_field("task_id", "Another task is running on this connection.")
        parameters = command.payload.parameters
        settings = SpeechSettings(
            model=command.payload.model,
            voice=parameters.voice or None,
            speed=parameters.rate,
            instructions=parameters.instruction,
            seed=parameters.seed,
        )
        request = speech_request(settings, "", self.config, self.identifier, self.owner)
        task = Task(command.header.task_id, request, parameters, self.config.text_streaming)
        self.task = task
        await self.frames.send(event(task.id, "task-started"))
        task.speaker = asyncio.create_task(self.speak(task))

    def running(self, task_id: str) -> Task:
        """Errors: `ApiError` for a task that is not this connection's, or takes no more."""
        if self.task is None or self.task.id != task_id or self.task.finishing:
            raise invalid_field("task_id", "No such task takes text on this connection.")
        return self.task

    async def proceed(self, task: Task, command: Command) -> None:
        """A continue-task or a finish-task. Errors: `InputTooLong`."""
        given = command.payload.input
        if given.text:
            task.num_characters += len(given.text)
            if task.num_characters > MAX_TASK_CHARACTERS:
                raise InputTooLong(f"A task may have {MAX_TASK_CHARACTERS} characters.")
            task.feed.write(given.text)
        if given.flush:
            task.feed.flush()
        if command.header.action == "finish-task":
            task.finishing = True
            if given.directive == "cancel":
                await self.silence()
                await self.frames.send(finished(task))
            else:
                task.feed.finish()

    async def speak(self, task: Task) -> None:
        """All of a task's audio, and its end."""
        encoder = encoder_for(task.audio_format, task.sample_rate_hz)
        try:
            patience_s = self.config.socket_input_s
            timeline = Timeline()
            audio = fed_parts(self.service, task.request, task.feed, encoder, Usage(), patience_s, task.gain, timeline)
            async with aclosing(audio) as parts:
                async for part in parts:
                    await self.frames.send_audio(part)
                    await self.report_sentences(task, timeline)
            await self.report_sentences(task, timeline)
            self.task = None
            await self.frames.send(finished(task))
        except ClientLeft:
            return
        except Exception as error:
            row = row_of(error)
            if row.status >= 500:
                foreseen = isinstance(error, SpeechError)
                logger.error("task %s failed: %s", self.identifier, error, exc_info=None if foreseen else error)
            self.task = None
            await self.tell_failure(task.id, error_code(error), message_of(error, row))

    async def report_sentences(self, task: Task, timeline: Timeline) -> None:
        for timing in timeline.take():
            await self.frames.send(sentence_end(task, timing))

    async def fail(self, task_id: str, code: str, message: str) -> None:
        """End the running task, if it is that one, and say why."""
        if self.task is not None and self.task.id == task_id:
            await self.silence()
        await self.tell_failure(task_id, code, message)

    async def tell_failure(self, task_id: str, code: str, message: str) -> None:
        body = event(task_id, "task-failed")
        body["header"].update(error_code=code, error_message=message)
        await self.frames.send(body)

    async def silence(self) -> None:
        """Stop the running task and free its stream."""
        task, self.task = self.task, None
        if task is not None and task.speaker is not None:
            await finish(task.speaker)


def event(task_id: str, name: str) -> dict[str, Any]:
    return {"header": {"task_id": task_id, "event": name, "attributes": {}}, "payload": {}}


def sentence_end(task: Task, timing: Timing) -> dict[str, Any]:
    """Times in milliseconds, places in the task's text, as the words of this protocol have them."""
    sentence = {
        "index": timing.index,
        "words": [],
        "begin_index": timing.text_start,
        "end_index": timing.text_end,
        "begin_time": round(1000 * timing.start_s),
        "end_time": round(1000 * timing.end_s),
    }
    body = event(task.id, "result-generated")
    body["payload"] = {"output": {"type": "sentence-end", "sentence": sentence, "original_text": timing.text}}
    return body


def finished(task: Task) -> dict[str, Any]:
    body = event(task.id, "task-finished")
    body["payload"] = {"output": {"sentence": {"words": []}}, "usage": {"characters": task.num_characters}}
    return body


def error_code(error: Exception) -> str:
    """DashScope's names for what went wrong."""
    status = row_of(error).status
    names = {401: "InvalidApiKey", 404: "ModelNotFound", 429: "Throttling", 503: "ServiceUnavailable"}
    return names.get(status, "InternalError" if status >= 500 else "InvalidParameter")
