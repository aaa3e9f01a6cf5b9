"""An engine over the toy checkpoint, and made-up voices and sentences for it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

from serve_app.config import SynthesisConfig
from serve_app.messages import Float32Array, PreparedSpeech, PreparedUtterance, VoicePrompt
from serve_app.model.checkpoint import Checkpoint, load_checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.scheduler import Playback
from serve_app.synthesis.seam import Engine
from serve_app.synthesis.stream import StreamEvent

NO_IDS = np.zeros(0, dtype=np.int32)


def make_voice(seed: int, num_tokens: int = 37) -> VoicePrompt:
    """A voice of random speech tokens, mel and speaker vector."""
    random = np.random.default_rng(seed)
    return VoicePrompt(
        key=f"voice-{seed}-{num_tokens}",
        transcript_ids=np.arange(5, dtype=np.int32),
        speech_ids=random.integers(0, 6561, num_tokens).astype(np.int32),
        mel=(random.normal(size=(2 * num_tokens, 80)) - 5).astype(np.float32),
        speaker=random.normal(size=192).astype(np.float32),
    )


def make_utterance(voice: VoicePrompt, seed: int, num_text_tokens: int = 5) -> PreparedUtterance:
    """A zero-shot utterance of random text tokens."""
    text = np.random.default_rng(seed).integers(0, 256, num_text_tokens).astype(np.int32)
    return PreparedUtterance(text, voice.transcript_ids, voice.speech_ids, 0, num_text_tokens)


@dataclass
class Spoken:
    """What a stream gave: its chunks in order, and its events."""

    chunks: list[Float32Array] = field(default_factory=list)
    events: list[StreamEvent] = field(default_factory=list)

    @property
    def samples(self) -> Float32Array:
        return np.concatenate(self.chunks) if self.chunks else np.zeros(0, np.float32)

    @property
    def num_tokens(self) -> int:
        return sum(event.num_speech_tokens for event in self.events)


def open_stream(
    engine: Engine, stream_id: int, voice: VoicePrompt, utterance: PreparedUtterance, seed: int, speed: float = 1.0
) -> None:
    engine.open(stream_id, PreparedSpeech("request", voice, (utterance,), seed, speed), 0, Playback(float(stream_id)))


def run(engine: Engine, until: Callable[[], bool] = lambda: False) -> dict[int, Spoken]:
    """Steps until the engine has nothing to do, or until `until`."""
    spoken: dict[int, Spoken] = {}
    while engine.wait_s() is not None and not until():
        for event in engine.step():
            stream = spoken.setdefault(event.stream_id, Spoken())
            stream.events.append(event)
            if len(event.samples):
                stream.chunks.append(event.samples)
    return spoken


@pytest.fixture(scope="session")
def checkpoint(toy_checkpoint: Path) -> Checkpoint:
    torch.set_num_threads(1)
    return load_checkpoint(toy_checkpoint)


@pytest.fixture(scope="session")
def engine_config() -> SynthesisConfig:
    return SynthesisConfig(max_streams=8, max_positions=1024)


@pytest.fixture
def engine(checkpoint: Checkpoint, engine_config: SynthesisConfig) -> StreamingEngine:
    return StreamingEngine(checkpoint, engine_config)
