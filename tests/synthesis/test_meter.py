"""What a synthesis replica tells of its work, with the real engine over the toy checkpoint."""

import asyncio
import logging
from collections.abc import AsyncGenerator

import numpy as np
import pytest

from serve_app.errors import Overloaded
from serve_app.messages import AudioChunk, PreparedSpeech
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.meter import Meter
from tests.recorded import Recorded
from tests.synthesis.conftest import make_utterance, make_voice, open_stream, run

VOICE = make_voice(1)
SPEECH = PreparedSpeech("id-1", VOICE, (make_utterance(VOICE, 1),), seed=1)


def test_steps_batches_and_voices_are_counted(engine: StreamingEngine) -> None:
    recorded = Recorded()
    meter = Meter(recorded, engine)
    for number in range(2):
        open_stream(engine, number, VOICE, make_utterance(VOICE, number), seed=number)
    run(engine)
    for work in ("prefill", "decode", "render"):
        seconds, streams = (
            recorded.observed[name, work] for name in ("cosyserve_step_seconds", "cosyserve_batch_streams")
        )
        assert len(seconds) == len(streams) > 0 and min(seconds) > 0
    assert max(recorded.observed["cosyserve_batch_streams", "decode"]) == 2
    meter.refresh(2, 6, works=True)
    meter.refresh(0, 8, works=False)  # nothing happened in between: nothing is counted twice
    assert recorded.sums["cosyserve_prefix_cache", "miss"] == recorded.sums["cosyserve_prefix_cache", "hit"] == 1
    assert recorded.values[("cosyserve_spare_streams",)] == 8 and recorded.values[("cosyserve_engine_up",)] == 0


async def listen(items: AsyncGenerator[AudioChunk, None]) -> int:
    return sum([len(item.samples) async for item in items])


async def test_one_line_for_a_request(caplog: pytest.LogCaptureFixture, engine: StreamingEngine) -> None:
    async def items() -> AsyncGenerator[AudioChunk, None]:
        for _ in range(2):
            await asyncio.sleep(0)
            yield AudioChunk(np.zeros(12_000, np.float32), 0, 12)

    caplog.set_level(logging.INFO, "ray.serve.cosyserve")
    recorded = Recorded()
    assert await listen(Meter(recorded, engine).spoken(SPEECH, items())) == 24_000
    [line] = caplog.records
    told = line.__dict__
    assert (told["stage"], told["speech_id"], told["end"]) == ("synthesis", "id-1", "spoken")
    assert (told["audio_s"], told["speech_tokens"], told["underruns"]) == (1.0, 24, 0)
    assert len(recorded.observed["cosyserve_stage_seconds", "speak_work"]) == 1


async def test_a_refusal_is_a_warning(caplog: pytest.LogCaptureFixture, engine: StreamingEngine) -> None:
    async def items(refused: bool = True) -> AsyncGenerator[AudioChunk, None]:
        if refused:
            raise Overloaded("every stream is taken")
        yield AudioChunk(np.zeros(1, np.float32), 0, 1)

    with pytest.raises(Overloaded):
        await listen(Meter(Recorded(), engine).spoken(SPEECH, items()))
    [line] = caplog.records
    assert line.levelno == logging.WARNING
    assert (line.__dict__["end"], line.__dict__["reason"]) == ("refused", "Overloaded")
