"""What becomes of a stream whose model gets stuck or breaks: one more try, an end, or an error."""

import time
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from serve_app.config import SynthesisConfig
from serve_app.errors import GenerationFailed
from serve_app.messages import PreparedSpeech
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.sampling import Draw
from serve_app.synthesis.scheduler import Playback
from tests.synthesis.conftest import Spoken, make_utterance, make_voice, open_stream, run

VOICE = make_voice(3)


@dataclass
class Drone:
    """Draws properly, but one token for draws `start` to `end`."""

    proper: Draw
    start: int
    end: int
    logits: list[Tensor] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    window: int = 10

    def __call__(self, logits: Tensor, recent: Tensor, stops_allowed: Tensor, random: Tensor) -> Tensor:
        tokens = self.proper(logits, recent, stops_allowed, random)
        if self.start <= len(self.drawn) < self.end:
            tokens = torch.full_like(tokens, 7)
        self.logits.append(logits[0])
        self.drawn += tokens.tolist()
        return tokens


def droning(checkpoint: Checkpoint, start: int, end: int, **settings: float) -> tuple[StreamingEngine, Drone]:
    """An engine that decodes as far ahead of rendering as it may while nobody is in a hurry."""
    ratios = {"min_token_text_ratio": 4, "retry_s": 1e9}
    config = SynthesisConfig(max_streams=2, max_positions=1024, render_batch=4).model_copy(
        update={**ratios, **settings}
    )
    engine = StreamingEngine(checkpoint, config)
    drone = Drone(engine._language._sampler, start, end)
    engine._language._sampler = drone
    return engine, drone


def speak(engine: StreamingEngine, in_hand_s: float, num_text_tokens: int = 30) -> Spoken:
    playback = Playback(time.monotonic())
    if in_hand_s:
        playback.deliver(in_hand_s, time.monotonic())
    speech = PreparedSpeech("request", VOICE, (make_utterance(VOICE, 1, num_text_tokens),), 5)
    engine.open(0, speech, 0, playback)
    spoken = run(engine)[0]
    assert engine.wait_s() is None
    engine.check()
    return spoken


@pytest.mark.parametrize("start", [0, 12])
def test_what_nobody_has_heard_is_said_again_from_another_seed(checkpoint: Checkpoint, start: int) -> None:
    engine, drone = droning(checkpoint, start, 75)
    spoken = speak(engine, in_hand_s=1000)
    assert spoken.events[-1].finished and spoken.events[-1].error is None
    caught = 50 if start == 0 else 60  # it looks at every tenth length
    assert drone.drawn[start:caught] == [7] * (caught - start)
    torch.testing.assert_close(drone.logits[caught], drone.logits[start], atol=1e-4, rtol=0)
    assert spoken.num_tokens < len(drone.drawn), "the drone was dropped"


def test_the_other_seed_is_always_the_same(checkpoint: Checkpoint) -> None:
    first, second = (speak(droning(checkpoint, 0, 50)[0], in_hand_s=1000) for _ in range(2))
    assert first.events[-1].error is None and first.num_tokens >= 120
    np.testing.assert_array_equal(first.samples, second.samples)


def test_one_that_gets_stuck_again_is_an_error(checkpoint: Checkpoint) -> None:
    engine, _ = droning(checkpoint, 0, 10_000)
    assert isinstance(speak(engine, in_hand_s=1000).events[-1].error, GenerationFailed)


def test_what_was_heard_already_cannot_be_taken_back(checkpoint: Checkpoint) -> None:
    engine, drone = droning(checkpoint, 0, 50)
    spoken = speak(engine, in_hand_s=0)
    assert spoken.chunks and isinstance(spoken.events[-1].error, GenerationFailed)
    assert len(drone.drawn) == 50


def test_there_is_no_second_try_when_the_time_is_up(checkpoint: Checkpoint) -> None:
    engine, drone = droning(checkpoint, 0, 50, retry_s=0.0)
    assert isinstance(speak(engine, in_hand_s=1000).events[-1].error, GenerationFailed)
    assert len(drone.drawn) == 50


def test_a_drone_after_the_text_was_said_is_its_end(checkpoint: Checkpoint) -> None:
    engine, _ = droning(checkpoint, 90, 10_000)
    spoken = speak(engine, in_hand_s=0)
    assert spoken.events[-1].error is None and spoken.num_tokens == 140
    assert len(spoken.samples) == 140 * 960


def test_logits_that_are_no_numbers_end_their_stream_alone(
    checkpoint: Checkpoint, engine_config: SynthesisConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = StreamingEngine(checkpoint, engine_config)
    open_stream(engine, 1, VOICE, make_utterance(VOICE, 1), 1)
    expected = run(engine)[1].samples
    model = engine._language._model
    slots: list[int | None] = []
    decode = model.decode

    def broken(ids: Tensor, cache: object, rows: Tensor, positions: Tensor) -> Tensor:
        logits: Tensor = decode(ids, cache, rows, positions)  # type: ignore[arg-type]
        logits[rows == slots[0], 100] = torch.nan
        return logits

    for stream_id in (0, 1):
        open_stream(engine, stream_id, VOICE, make_utterance(VOICE, stream_id), stream_id)
    slots.append(engine._streams[0].slot)
    monkeypatch.setattr(model, "decode", broken)
    spoken = run(engine)
    assert isinstance(spoken[0].events[-1].error, GenerationFailed) and not spoken[0].chunks
    np.testing.assert_allclose(spoken[1].samples, expected, atol=1e-4)
    engine.check()
