"""What the HTTP edge needs from the rest of the application.

`RayService` (`ingress.py`) implements it over deployment handles, `tests/fakes.py` in memory: everything else in `api/`
runs without Ray.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from serve_app.figures import ServiceFigures
from serve_app.messages import (
    AudioChunk,
    ClipPreview,
    FedText,
    Int32Array,
    NewVoice,
    NextText,
    PreparedSpeech,
    Reading,
    ReferenceClip,
    RegisteredVoice,
    SpeakingReplica,
    SpeechRequest,
    VoiceInfo,
)


class SpeechService(Protocol):
    """Text in, audio out. Every method may raise any `SpeechError`."""

    async def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        """Turn a request into token ids and a voice prompt, on a CPU replica."""
        ...

    def speak(self, prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk, None]:
        """Generate the audio. Closing the generator at any moment, also before its first chunk, frees the stream."""
        ...

    async def prepare_fed(self, request: SpeechRequest) -> PreparedSpeech:
        """The same for the beginning of a sentence: a fed request, whose first text may be none.

        Its utterance's text_end says how much of the text is in it.
        """
        ...

    async def next_text(self, fed: FedText) -> NextText:
        """What of a sentence that is still being written can be fed now."""
        ...

    def speak_fed(self, prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk | SpeakingReplica, None]:
        """As `speak`; the first item says who takes the rest of the text."""
        ...

    async def feed(self, replica_id: str, request_id: str, text_ids: Int32Array) -> None:
        """More text, int32 [T], for a request that this replica speaks. Errors: `NotReady` if the replica is gone."""
        ...

    async def end_text(self, replica_id: str, request_id: str) -> None:
        """The request's text is complete. Errors: `NotReady` if the replica is gone."""
        ...

    async def reading(self, text: str, normalized: bool) -> Reading:
        """How a request with this text would be read. Errors: `EmptyInput`."""
        ...

    async def voices(self, owner: str = "") -> tuple[VoiceInfo, ...]:
        """Every voice that `SpeechRequest.voice` can name in a request of this owner."""
        ...

    async def register_voice(self, new: NewVoice) -> RegisteredVoice:
        """Store a voice for good. Errors: `InvalidVoiceName`, `VoiceExists`, `InvalidAudio` and its kin."""
        ...

    async def preview_clip(self, reference: ReferenceClip) -> ClipPreview:
        """The clip as a voice would be made of it; nothing is kept. Errors: `InvalidAudio` and its kin."""
        ...

    async def delete_voice(self, id_or_name: str, owner: str = "") -> None:
        """Errors: `VoiceNotFound`, `BuiltinVoice`."""
        ...

    async def ready(self) -> bool:
        """Whether a warmed synthesis replica exists. Answers quickly, also when none does."""
        ...

    async def figures(self) -> ServiceFigures:
        """What every replica is doing. Raises nothing; a stage that does not answer is None."""
        ...
