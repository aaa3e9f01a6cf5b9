"""The product itself, in this process: what Ray's replicas hold, called one request at a time."""

import asyncio
import time
from dataclasses import dataclass, replace
from types import TracebackType

import numpy as np
import torch

from serve_app.config import AppConfig
from serve_app.messages import SAMPLE_RATE_HZ, AudioChunk, Float32Array, SpeechRequest
from serve_app.model.speakers import convert_speakers
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.synthesis.engine import load_engine
from serve_app.synthesis.engine_thread import EngineThread
from serve_app.synthesis.reference import load_reference_engine
from serve_app.synthesis.warm_up import warm_up


@dataclass(frozen=True, slots=True, eq=False)
class Spoken:
    """One answer, whole.

    samples: float32 [S] at SAMPLE_RATE_HZ. joins: where each chunk but the first begins, in samples.
    wall_s, cpu_s: from the request to its last sample; cpu_s counts all threads of this process.
    """

    samples: Float32Array
    joins: tuple[int, ...]
    wall_s: float
    cpu_s: float

    @property
    def duration_s(self) -> float:
        return len(self.samples) / SAMPLE_RATE_HZ


class Product:
    """Prepares and speaks as the service does. To be closed: the engine has a thread."""

    def __init__(self, config: AppConfig) -> None:
        """Raises CheckpointError when the checkpoint or a built-in voice cannot be loaded."""
        located = config.located()
        convert_speakers(located.checkpoint)
        self._preprocessor = Preprocessor(located.checkpoint, located.preprocess)
        settings = located.synthesis
        torch.set_num_threads(settings.threads)
        load = load_reference_engine if settings.engine == "reference" else load_engine
        engine = load(located.checkpoint, settings)
        warm_up(engine)
        self._thread = EngineThread(engine, settings.max_streams)

    def __enter__(self) -> "Product":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.stop()

    def voices(self) -> dict[str, str]:
        """Language of each built-in voice, by name."""
        return {info.name: info.language for info in self._preprocessor.voices() if info.builtin}

    def speak(self, request: SpeechRequest) -> Spoken:
        """Raises SpeechError."""
        return asyncio.run(self._speak(request))

    def warm(self, request: SpeechRequest) -> None:
        """Prepares a voice, so that `speak` measures speech and not the reading of a clip."""
        self._preprocessor.prepare(replace(request, text="Yes."))

    async def _speak(self, request: SpeechRequest) -> Spoken:
        wall_s, cpu_s = time.monotonic(), time.process_time()
        prepared = self._preprocessor.prepare(request)
        stream = self._thread.speak(prepared)
        chunks = [item.samples async for item in stream if isinstance(item, AudioChunk) and len(item.samples)]
        ends = np.cumsum([len(chunk) for chunk in chunks])
        return Spoken(
            np.concatenate(chunks) if chunks else np.zeros(0, np.float32),
            tuple(int(end) for end in ends[:-1]),
            time.monotonic() - wall_s,
            time.process_time() - cpu_s,
        )
