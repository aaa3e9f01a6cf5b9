"""The Ray deployment around preprocessing."""

import asyncio

from ray import serve

from serve_app.config import AppConfig
from serve_app.messages import PreparedSpeech, SpeechRequest, VoiceInfo
from serve_app.preprocess.preprocessor import Preprocessor


@serve.deployment(name="Preprocess", max_ongoing_requests=16, health_check_period_s=1, health_check_timeout_s=10)
class Preprocess:
    """Turns requests into arrays, in threads, so that health checks and cancellation are never blocked."""

    def __init__(self, config: AppConfig) -> None:
        """Raises CheckpointError when the checkpoint's front end or a built-in voice cannot be loaded."""
        self._preprocessor = Preprocessor(config.checkpoint, config.preprocess)

    async def prepare(self, request: SpeechRequest) -> PreparedSpeech:
        """Raises InvalidRequest and its kin."""
        return await asyncio.to_thread(self._preprocessor.prepare, request)

    async def voices(self) -> tuple[VoiceInfo, ...]:
        """Every voice that a request may name."""
        return await asyncio.to_thread(self._preprocessor.voices)
