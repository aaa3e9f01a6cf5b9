"""What is learnt of forecasts that were wrong, and forgotten again."""

import pytest

from serve_app.config import SynthesisConfig
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.caution import LEAST, MOST, NUM_REMEMBERED, USUAL, WORSE, Caution, Promise
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.scheduler import Work
from tests.synthesis.conftest import make_utterance, make_voice, open_stream


def learn(caution: Caution, *ratios: float) -> None:
    for ratio in ratios:
        caution.learn(Promise(made_at_s=5.0, expected_s=0.2), now_s=5.0 + ratio * 0.2)


def test_the_worst_of_the_last_forecasts_counts_until_it_is_forgotten() -> None:
    caution = Caution()
    assert caution.factor == pytest.approx(USUAL)
    learn(caution, 1.4)
    assert caution.factor == pytest.approx(1.4 * WORSE)
    learn(caution, *[1.1] * (NUM_REMEMBERED - 1))
    assert caution.factor == pytest.approx(1.4 * WORSE)
    learn(caution, 1.1)
    assert caution.factor == pytest.approx(1.1 * WORSE)


def test_it_stays_within_bounds_and_forecasts_that_knew_nothing_teach_nothing() -> None:
    caution = Caution()
    learn(caution, 30.0)
    assert caution.factor == MOST
    learn(caution, *[0.3] * NUM_REMEMBERED)
    assert caution.factor == LEAST
    caution.learn(Promise(made_at_s=1.0, expected_s=0.0), now_s=9.0)
    assert caution.factor == LEAST


@pytest.mark.parametrize("slower", [1.0, 1.3])
def test_an_engine_learns_how_long_the_chunk_after_a_first_sound_really_took(
    checkpoint: Checkpoint, slower: float
) -> None:
    now_s = 0.0
    engine = StreamingEngine(checkpoint, SynthesisConfig(max_streams=4, max_positions=512), clock=lambda: now_s)
    voice = make_voice(1, num_tokens=63)
    open_stream(engine, 0, voice, make_utterance(voice, 1, num_text_tokens=20), 1)
    stream = engine._streams[0]
    num_heard = 0
    while num_heard < 2:
        engine.costs.table[Work.DECODE], engine.costs.table[Work.RENDER] = {1: 0.004}, {1: 0.05}
        work = stream.progress.needs()
        took_s = {Work.PREFILL: 0.02, Work.DECODE: 0.004, Work.RENDER: 0.05, None: 0.0}[work]
        now_s += slower * took_s
        num_heard += sum(len(event.samples) > 0 for event in engine.step())
    learnt = engine._caution.factor
    assert learnt == pytest.approx(max(USUAL, slower * WORSE), rel=0.05)
    engine.close(0)
    engine.check()
