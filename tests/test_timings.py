"""Sentence timings of the real front end and the real engine, against the samples that they are about."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np

from serve_app.api.audio_stream import Usage, spoken_samples
from serve_app.api.timings import Said, Timeline
from serve_app.config import PreprocessConfig, SynthesisConfig
from serve_app.messages import SAMPLE_RATE_HZ, AudioChunk, PreparedSpeech, SpeechRequest
from serve_app.preprocess.preprocessor import Preprocessor
from serve_app.synthesis.engine import load_engine
from serve_app.synthesis.engine_thread import EngineThread
from tests.fakes import FakeService

VOICES = Path(__file__).resolve().parent.parent / "configs" / "voices"
FIRST = "The first sentence costs $3.50 and has some words in it."
SECOND = "The second one is not as long, but long enough."
THIRD = "And after a while comes the third and last of them."
TEXT = f"**{FIRST}** {SECOND} [pause:750ms] 😀 {THIRD}[pause:0.5s]"


class RealSpeech(FakeService):
    """Speaks with an engine."""

    def __init__(self, engine: EngineThread) -> None:
        super().__init__()
        self.engine = engine

    async def speak(self, prepared: PreparedSpeech) -> AsyncGenerator[AudioChunk, None]:
        async for item in self.engine.speak(prepared):
            assert isinstance(item, AudioChunk)
            yield item


async def test_timings_are_where_the_sentences_are(toy_checkpoint: Path, tmp_path: Path) -> None:
    preprocessor = Preprocessor(toy_checkpoint, PreprocessConfig(voices_dir=VOICES, voice_store=str(tmp_path)))
    request = SpeechRequest("r", TEXT, "clara", seed=3, by_sentence=True, speed=1.5)
    prepared = preprocessor.prepare(request)
    engine = EngineThread(load_engine(toy_checkpoint, SynthesisConfig(max_token_text_ratio=3)), 4)
    timeline = Timeline()
    timeline.begin(Said(prepared, TEXT))
    try:
        spoken = spoken_samples(RealSpeech(engine), prepared, Usage(), timeline)
        samples = np.concatenate([part async for part in spoken])
    finally:
        await asyncio.to_thread(engine.stop)
    timings = timeline.take()
    assert [timing.text for timing in timings] == [FIRST, SECOND, THIRD]
    assert all(TEXT[timing.text_start : timing.text_end] == timing.text for timing in timings)
    starts, ends = ([getattr(timing, name) for timing in timings] for name in ("start_s", "end_s"))
    assert starts[0] >= 0.0 and starts[1] >= ends[0]
    assert starts[2] - ends[1] >= 0.749 and len(samples) / SAMPLE_RATE_HZ - ends[2] >= 0.499
    for start_s, end_s in ((0.0, starts[0]), *zip(ends, [*starts[1:], len(samples) / SAMPLE_RATE_HZ], strict=True)):
        # both places are rounded to milliseconds
        first = round((start_s + 0.001) * SAMPLE_RATE_HZ)
        between = samples[first : max(first, round((end_s - 0.001) * SAMPLE_RATE_HZ))]
        assert np.abs(between).max(initial=0.0) <= 10 ** (-45 / 20)
    assert all(end_s - start_s > 0.2 for start_s, end_s in zip(starts, ends, strict=True))
