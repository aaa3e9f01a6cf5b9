"""What Ray runs of preprocessing: the class that `app.py` makes a deployment of."""

import asyncio
from dataclasses import replace
from time import monotonic

from ray import serve
from ray.serve import metrics

from serve_app.config import AppConfig
from serve_app.figures import PreprocessFigures
from serve_app.messages import (
    ClipPreview,
    FedText,
    NewVoice,
    NextText,
    PreparedSpeech,
    Reading,
    ReferenceClip,
    RegisteredVoice,
    SpeechRequest,
    VoiceInfo,
)
from serve_app.metrics import OF_PREPROCESS, Instruments
from serve_app.preprocess.autoscaling import CallCosts
from serve_app.preprocess.meter import Meter
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.refusals import answers_refusals


class Preprocess:
    """Turns requests into arrays, in threads, so that health checks and cancellation are never blocked.

    Refusals that its methods raise are returned to whoever calls them through Ray (`refusals.py`).
    """

    def __init__(self, config: AppConfig) -> None:
        """Raises CheckpointError when the checkpoint's front end or a built-in voice cannot be loaded."""
        self._preprocessor = Preprocessor(config.checkpoint, config.preprocess)
        self._meter = Meter(Instruments(metrics, OF_PREPROCESS), lambda: self._preprocessor.prompt_lookups)
        self._costs = CallCosts()

    @answers_refusals
    async def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        """Raises InvalidRequest and its kin."""
        work = asyncio.to_thread(self._costs.measured, self._prepare, request)
        return await self._meter.prepared(request.request_id, work)

    def _prepare(self, request: SpeechRequest) -> PreparedSpeech:
        began_at_s = monotonic()
        prepared = self._preprocessor.prepare(request)
        return replace(prepared, work_s=monotonic() - began_at_s)

    @answers_refusals
    async def prepare_fed(self, request: SpeechRequest) -> PreparedSpeech:
        """The beginning of a sentence whose rest has not come. Raises InvalidRequest and its kin."""
        work = asyncio.to_thread(self._preprocessor.prepare_fed, request)
        return await self._meter.prepared(request.request_id, work)

    async def next_text(self, fed: FedText) -> NextText:
        """What of a sentence that is still being written can be fed to its utterance now."""
        return await asyncio.to_thread(self._preprocessor.next_text, fed)

    async def figures(self) -> PreprocessFigures:
        """What this replica is doing."""
        return PreprocessFigures(serve.get_replica_context().replica_id.unique_id, self._meter.num_preparing)

    @answers_refusals
    async def reading(self, text: str, normalized: bool) -> Reading:
        """How `prepare` would read a text. Raises EmptyInput."""
        return await asyncio.to_thread(self._preprocessor.reading, text, normalized)

    async def voices(self, owner: str = "") -> tuple[VoiceInfo, ...]:
        """Every voice that this owner's requests may name."""
        return await asyncio.to_thread(self._preprocessor.voices, owner)

    @answers_refusals
    async def register_voice(self, new: NewVoice) -> RegisteredVoice:
        """Raises InvalidVoiceName, VoiceExists, InvalidAudio and its kin, StorageFull or NotReady.

        Not interrupted by a client that leaves: the voice is then there, whole, or it is not.
        """
        return await asyncio.to_thread(self._preprocessor.register_voice, new)

    @answers_refusals
    async def preview_clip(self, reference: ReferenceClip) -> ClipPreview:
        """The clip as a voice would be made of it; nothing is kept. Raises InvalidAudio and its kin."""
        return await asyncio.to_thread(self._preprocessor.preview, reference)

    @answers_refusals
    async def delete_voice(self, id_or_name: str, owner: str = "") -> None:
        """Raises BuiltinVoice, VoiceNotFound or NotReady."""
        await asyncio.to_thread(self._preprocessor.delete_voice, id_or_name, owner)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """What `autoscaling.QueueTime` scales by; Ray collects it from every replica."""
        return self._costs.stats()
