"""A speech service in memory, for tests of the HTTP edge: known samples, countable generators, faults on demand."""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace

import numpy as np

from serve_app.errors import BuiltinVoice, SpeechError, VoiceExists, VoiceNotFound
from serve_app.figures import ServiceFigures
from serve_app.messages import (
    SAMPLE_RATE_HZ,
    AudioChunk,
    ClipPreview,
    ClipQuality,
    FedText,
    Float32Array,
    Int32Array,
    NewVoice,
    NextText,
    PreparedSpeech,
    PreparedUtterance,
    Reading,
    ReadPart,
    ReadPiece,
    ReferenceClip,
    RegisteredVoice,
    SpeakingReplica,
    SpeechRequest,
    VoiceInfo,
    VoicePrompt,
)

NO_IDS = np.zeros(0, np.int32)
QUALITY = ClipQuality(2.0, 1.5, 30.0, -20.0, 0.0, 8000, False, ("A bit short.",))


def tone(num_samples: int, hz: float = 440.0, level: float = 0.5) -> Float32Array:
    """float32 [num_samples], a sine at SAMPLE_RATE_HZ."""
    seconds = np.arange(num_samples) / SAMPLE_RATE_HZ
    return (level * np.sin(2 * np.pi * hz * seconds)).astype(np.float32)


@dataclass
class FakeService:
    """`SpeechService` that plays `samples` for every utterance, `chunk_samples` at a time.

    open_streams: generators begun and not yet finished or closed. Faults: `prepare_error` at once, `speak_error` after
    `error_after` chunks. `gate`, when given, is awaited before every chunk; `prepare_gate` before prepare returns. A
    stream waits forever after `stall_after` chunks. A fed request gives one chunk for each word that it is fed;
    `feed_error` is raised by `feed`.
    """

    samples: Float32Array = field(default_factory=lambda: tone(12_000))
    chunk_samples: int = 4_800
    prepare_error: Exception | None = None
    speak_error: Exception | None = None
    error_after: int = 0
    gate: asyncio.Semaphore | None = None
    prepare_gate: asyncio.Semaphore | None = None
    stall_after: int | None = None
    is_ready: bool = True
    known_figures: ServiceFigures = field(default_factory=ServiceFigures)
    known_voices: tuple[VoiceInfo, ...] = (
        VoiceInfo("default", "default", builtin=True, created_at=1_700_000_000, language="en"),
        VoiceInfo("voice_1", "Ünal", builtin=False, created_at=1_700_000_001),
    )
    requests: list[SpeechRequest] = field(default_factory=list)
    register_error: Exception | None = None
    registered: list[NewVoice] = field(default_factory=list)
    previewed: list[ReferenceClip] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fed_words: list[str] = field(default_factory=list)
    fed_ids: dict[str, "asyncio.Queue[int | None]"] = field(default_factory=dict)
    feed_error: Exception | None = None
    open_streams: int = 0
    opened_streams: int = 0
    open_prepares: int = 0
    stream_changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def pass_gate(self) -> None:
        """Counted as a preparation for as long as the gate keeps it."""
        self.open_prepares += 1
        try:
            await self.announce()
            if self.prepare_gate is not None:
                await self.prepare_gate.acquire()
        finally:
            self.open_prepares -= 1
            await self.announce()

    async def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        self.requests.append(request)
        await self.pass_gate()
        if self.prepare_error is not None:
            raise self.prepare_error
        known = {name for voice in await self.voices(request.owner) for name in (voice.id, voice.name)}
        if request.reference is None and request.voice not in known:
            raise VoiceNotFound("No voice of that id or name.")
        prompt = VoicePrompt("k", NO_IDS, NO_IDS, np.zeros((0, 80), np.float32), np.zeros(192, np.float32))
        ids = np.arange(1, 1 + max(1, len(request.text.split())), dtype=np.int32)
        utterance = PreparedUtterance(ids, NO_IDS, NO_IDS, 0, len(request.text))
        seed = request.seed or 0
        return PreparedSpeech(
            request.request_id, prompt, (utterance,), seed, request.speed, warnings=self.warnings, work_s=0.25
        )

    async def speak(self, prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk, None]:
        self.open_streams += 1
        self.opened_streams += 1
        try:
            await self.announce()
            for index, start in enumerate(range(0, len(self.samples), self.chunk_samples)):
                if self.speak_error is not None and index == self.error_after:
                    raise self.speak_error
                if index == self.stall_after:
                    await asyncio.Event().wait()
                if self.gate is not None:
                    await self.gate.acquire()
                samples = self.samples[start : start + self.chunk_samples]
                yield AudioChunk(samples, 0, num_speech_tokens=5, work_s=0.0 if index else 0.125)
            if self.speak_error is not None:
                raise self.speak_error
        finally:
            # two awaits, as a real stream has: a cleanup that is cancelled half way leaves the count wrong
            await asyncio.sleep(0)
            self.open_streams -= 1
            await self.announce()

    async def prepare_fed(self, request: SpeechRequest) -> PreparedSpeech:
        prepared = await self.prepare(request)
        first = await self.next_text(FedText(request.text, 0, NO_IDS))
        utterance = replace(prepared.utterances[0], text_ids=first.ids, text_end=first.text_end)
        return replace(prepared, utterances=(utterance,), fed=True)

    async def next_text(self, fed: FedText) -> NextText:
        """One id for each word, its length. A word is complete when white space follows it."""
        settled = fed.text if fed.final else "".join(re.findall(r"\s*\S+(?=\s)", fed.text))
        words = settled[fed.text_end :].split()
        self.fed_words += words
        return NextText(np.array([len(word) for word in words], np.int32), len(settled), len(fed.ids) >= 20)

    async def speak_fed(self, prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk | SpeakingReplica, None]:
        """A chunk for every id, of the `samples`, chunk after chunk."""
        assert prepared.fed and prepared.request_id not in self.fed_ids
        ids: asyncio.Queue[int | None] = asyncio.Queue()
        for first in prepared.utterances[0].text_ids:
            ids.put_nowait(int(first))
        self.fed_ids[prepared.request_id] = ids
        self.open_streams += 1
        self.opened_streams += 1
        try:
            await self.announce()
            yield SpeakingReplica("fake")
            while await ids.get() is not None:
                if self.gate is not None:
                    await self.gate.acquire()
                if self.speak_error is not None:
                    raise self.speak_error
                yield AudioChunk(self.samples[: self.chunk_samples], 0, num_speech_tokens=5)
        finally:
            del self.fed_ids[prepared.request_id]
            await asyncio.sleep(0)
            self.open_streams -= 1
            await self.announce()

    async def feed(self, replica_id: str, request_id: str, text_ids: Int32Array) -> None:
        if self.feed_error is not None:
            raise self.feed_error
        assert replica_id == "fake"
        if request_id in self.fed_ids:
            for token in text_ids:
                self.fed_ids[request_id].put_nowait(int(token))

    async def end_text(self, replica_id: str, request_id: str) -> None:
        assert replica_id == "fake"
        if request_id in self.fed_ids:
            self.fed_ids[request_id].put_nowait(None)

    async def announce(self) -> None:
        """Wake whoever waits in `until`."""
        async with self.stream_changed:
            self.stream_changed.notify_all()

    async def until_open(self, streams: int, prepares: int = 0, timeout_s: float = 5) -> None:
        """Wait until exactly so many streams and calls of `prepare` are open. Errors: `TimeoutError`."""

        async def reached() -> None:
            async with self.stream_changed:
                await self.stream_changed.wait_for(
                    lambda: (self.open_streams, self.open_prepares) == (streams, prepares)
                )

        await asyncio.wait_for(reached(), timeout_s)

    async def reading(self, text: str, normalized: bool) -> Reading:
        """One piece without pauses, `&` read as "and" if normalized."""
        await asyncio.sleep(0)
        if self.prepare_error is not None:
            raise self.prepare_error
        parts = tuple(
            ReadPart(found.start(), found.end(), found[0], "and" if normalized and found[0] == "&" else found[0])
            for found in re.finditer("&|[^&]+", text)
        )
        return Reading((ReadPiece(parts, 0.0),), 0.0, self.warnings)

    async def voices(self, owner: str = "") -> tuple[VoiceInfo, ...]:
        return tuple(voice for voice in self.known_voices if self.owners.get(voice.id, owner) == owner)

    async def register_voice(self, new: NewVoice) -> RegisteredVoice:
        if self.register_error is not None:
            raise self.register_error
        if any(new.name == voice.name for voice in await self.voices(new.owner)):
            raise VoiceExists("The name is taken.")
        self.registered.append(new)
        info = VoiceInfo(f"voice_{len(self.known_voices)}", new.name, False, 1_700_000_002, new.language)
        self.known_voices = (*self.known_voices, info)
        if new.owner:
            self.owners[info.id] = new.owner
        return RegisteredVoice(info, QUALITY)

    async def preview_clip(self, reference: ReferenceClip) -> ClipPreview:
        """What was sent, as it is; the report says that noise was removed if that was asked for."""
        await self.pass_gate()
        if self.register_error is not None:
            raise self.register_error
        self.previewed.append(reference)
        return ClipPreview(reference.audio, replace(QUALITY, denoised=reference.denoise == "on"))

    async def delete_voice(self, id_or_name: str, owner: str = "") -> None:
        [voice] = [voice for voice in await self.voices(owner) if id_or_name in (voice.id, voice.name)]
        if voice.builtin:
            raise BuiltinVoice("A built-in voice cannot be deleted.")
        self.known_voices = tuple(known for known in self.known_voices if known != voice)

    async def ready(self) -> bool:
        return self.is_ready

    async def figures(self) -> ServiceFigures:
        return self.known_figures


class Fault(SpeechError):
    """An error of this tree that no table knows."""
