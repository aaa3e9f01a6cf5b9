"""The engine at toy size: streams end, are isolated from each other, and leave nothing behind."""

import dataclasses

import numpy as np
import pytest

from serve_app.config import SynthesisConfig
from serve_app.errors import CheckpointError, GenerationFailed, InputTooLong, Overloaded
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.scheduler import Work
from serve_app.synthesis.warm_up import warm_up
from tests.synthesis.conftest import Spoken, make_utterance, make_voice, open_stream, run


def speak_alone(engine: StreamingEngine, seed: int) -> Spoken:
    voice = make_voice(seed, num_tokens=20 + 7 * seed)
    open_stream(engine, 0, voice, make_utterance(voice, seed), seed)
    return run(engine)[0]


def test_a_stream_speaks_as_many_samples_as_its_tokens_say_and_ends(engine: StreamingEngine) -> None:
    spoken = speak_alone(engine, 1)
    assert spoken.num_tokens >= 10, "at least two speech tokens for each of five text tokens"
    assert len(spoken.samples) == spoken.num_tokens * 960, "40 ms of 24 kHz audio for each token"
    assert np.abs(spoken.samples).max() > 0
    assert [event.finished for event in spoken.events] == [False] * (len(spoken.events) - 1) + [True]
    assert engine.wait_s() is None
    engine.check()


def test_sound_leaves_before_the_utterance_is_generated(engine: StreamingEngine) -> None:
    voice = make_voice(3, num_tokens=45)
    open_stream(engine, 0, voice, make_utterance(voice, 3, num_text_tokens=30), 3)
    first = next(event for event in run(engine)[0].events if len(event.samples))
    assert not first.generated


def check_company(checkpoint: Checkpoint, config: SynthesisConfig, num_streams: int) -> None:
    """Streams in company give what each gives alone."""
    alone = [speak_alone(StreamingEngine(checkpoint, config), seed) for seed in range(num_streams)]
    engine = StreamingEngine(checkpoint, config)
    for seed in range(num_streams):
        voice = make_voice(seed, num_tokens=20 + 7 * seed)
        open_stream(engine, seed, voice, make_utterance(voice, seed), seed)
    together = run(engine)
    for seed in range(num_streams):
        assert together[seed].num_tokens == alone[seed].num_tokens
        np.testing.assert_allclose(together[seed].samples, alone[seed].samples, atol=1e-4)
    engine.check()


def test_sixteen_streams_in_company_give_what_each_gives_alone(checkpoint: Checkpoint) -> None:
    check_company(checkpoint, SynthesisConfig(max_streams=8, max_positions=1024), 16)


def test_the_same_seed_gives_the_same_samples_and_another_does_not(engine: StreamingEngine) -> None:
    voice = make_voice(2)
    utterance = make_utterance(voice, 2)
    for stream_id, seed in ((0, 5), (1, 5), (2, 6)):
        open_stream(engine, stream_id, voice, utterance, seed)
    spoken = run(engine)
    np.testing.assert_allclose(spoken[0].samples, spoken[1].samples, atol=1e-5)
    assert not np.array_equal(spoken[0].samples, spoken[2].samples)


def test_a_known_voice_is_not_computed_again_and_sounds_the_same(engine: StreamingEngine) -> None:
    first = speak_alone(engine, 4)
    again = speak_alone(engine, 4)
    assert (engine.prefixes.hits, engine.prefixes.misses) == (1, 1)
    np.testing.assert_array_equal(first.samples, again.samples)


def test_prefixes_stay_within_their_budget(checkpoint: Checkpoint) -> None:
    engine = StreamingEngine(checkpoint, SynthesisConfig(max_streams=4, max_positions=512, flow_cache_mib=2))
    for seed in range(6):
        speak_alone(engine, seed)
        assert engine.prefixes.num_bytes <= 2 * 2**20


def test_closing_a_stream_frees_its_slot_and_silences_it(engine: StreamingEngine) -> None:
    voice = make_voice(1)
    for stream_id in (0, 1):
        open_stream(engine, stream_id, voice, make_utterance(voice, stream_id, num_text_tokens=20), stream_id)
    for _ in range(10):
        engine.step()
    engine.close(0)
    engine.close(0)
    engine.close(12345)
    engine.check()
    assert set(run(engine)) == {1}
    engine.check()


def test_one_stream_too_many_is_refused(checkpoint: Checkpoint) -> None:
    engine = StreamingEngine(checkpoint, SynthesisConfig(max_streams=1, max_positions=512))
    voice = make_voice(1)
    for stream_id in (0, 1):  # one that plays, one ahead of it
        open_stream(engine, stream_id, voice, make_utterance(voice, 1), 1)
    with pytest.raises(Overloaded):
        open_stream(engine, 2, voice, make_utterance(voice, 1), 1)
    assert set(run(engine)) == {0, 1}
    engine.check()


def test_an_utterance_that_cannot_fit_is_refused_and_holds_nothing(engine: StreamingEngine) -> None:
    voice = make_voice(1)
    with pytest.raises(InputTooLong):
        open_stream(engine, 0, voice, make_utterance(voice, 1, num_text_tokens=60), 1)
    assert engine.wait_s() is None
    engine.check()


def test_a_stream_without_valid_sound_fails_alone(engine: StreamingEngine) -> None:
    bad, good = make_voice(1), make_voice(2)
    bad.mel[:] = np.nan
    open_stream(engine, 0, bad, make_utterance(bad, 1), 1)
    open_stream(engine, 1, good, make_utterance(good, 2), 2)
    spoken = run(engine)
    assert isinstance(spoken[0].events[-1].error, GenerationFailed) and not spoken[0].chunks
    assert spoken[1].events[-1].error is None and spoken[1].events[-1].finished
    engine.check()


def test_warm_up_leaves_the_engine_idle(engine: StreamingEngine) -> None:
    warm_up(engine)
    assert engine.wait_s() is None
    engine.check()


def test_a_newcomer_that_would_starve_others_is_refused_and_one_alone_never_is(checkpoint: Checkpoint) -> None:
    engine = StreamingEngine(checkpoint, SynthesisConfig(max_streams=4, max_positions=512, max_load=1e-9))
    voice = make_voice(1)
    open_stream(engine, 0, voice, make_utterance(voice, 1), 1)
    while not engine.costs.of(Work.DECODE, 1):
        engine.step()
    with pytest.raises(Overloaded):
        open_stream(engine, 1, voice, make_utterance(voice, 1), 1)
    run(engine)
    open_stream(engine, 2, voice, make_utterance(voice, 1), 1)
    assert run(engine)[2].events[-1].finished


def test_a_pause_is_exact_silence_before_the_same_sound(engine: StreamingEngine) -> None:
    plain = speak_alone(engine, 5)
    voice = make_voice(5, num_tokens=55)
    paused = dataclasses.replace(make_utterance(voice, 5), pause_before_s=1.5)
    open_stream(engine, 0, voice, paused, 5)
    samples = run(engine)[0].samples
    assert not samples[:36_000].any()
    np.testing.assert_array_equal(samples[36_000:], plain.samples)


@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_speed_changes_the_length_and_not_the_words(engine: StreamingEngine, speed: float) -> None:
    plain = speak_alone(engine, 1)
    voice = make_voice(1, num_tokens=27)
    open_stream(engine, 0, voice, make_utterance(voice, 1), 1, speed)
    spoken = run(engine)[0]
    assert spoken.num_tokens == plain.num_tokens
    assert abs(len(spoken.samples) - len(plain.samples) / speed) < 480, "to one mel frame"
    engine.check()


def test_in_8_bits_streams_in_company_give_what_each_gives_alone(checkpoint: Checkpoint) -> None:
    config = SynthesisConfig(max_streams=2, max_positions=512, language_precision="int8")
    check_company(checkpoint, config, 3)
    with pytest.raises(CheckpointError, match="int8"):
        StreamingEngine(checkpoint, config.model_copy(update={"precision": "bf16"}))


def test_a_prompt_read_in_pieces_gives_what_it_gives_whole(checkpoint: Checkpoint) -> None:
    spoken = []
    for prefill_chunk in (1000, 64, 7):
        config = SynthesisConfig(max_streams=1, max_positions=1024, prefill_chunk=prefill_chunk)
        spoken.append(speak_alone(StreamingEngine(checkpoint, config), 12))
    assert len(spoken[0].samples) > 0
    for other in spoken[1:]:
        np.testing.assert_allclose(other.samples, spoken[0].samples, atol=1e-4)
