"""Text that arrives while it is spoken: the same speech however it arrives, and nothing held up by a pause in it."""

from collections.abc import Sequence

import numpy as np
import pytest

from serve_app.config import SynthesisConfig
from serve_app.errors import InputTooLong
from serve_app.messages import Int32Array, PreparedSpeech, PreparedUtterance, VoicePrompt
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.scheduler import Playback
from tests.synthesis.conftest import NO_IDS, Spoken, make_utterance, make_voice, open_stream, run

TEXT = np.random.default_rng(9).integers(0, 256, 33).astype(np.int32)
VOICE = make_voice(3)
"""37 prompt tokens: the first 15 text tokens, 5 of them the transcript's, are read before it speaks."""


def open_fed(
    engine: StreamingEngine, stream_id: int, voice: VoicePrompt = VOICE, text: Int32Array = NO_IDS, seed: int = 4
) -> None:
    utterance = PreparedUtterance(text, voice.transcript_ids, voice.speech_ids, 0, 0)
    engine.open(
        stream_id, PreparedSpeech("request", voice, (utterance,), seed, fed=True), 0, Playback(float(stream_id))
    )


def speak(engine: StreamingEngine, pieces: Sequence[Int32Array], steps_between: int = 0) -> Spoken:
    open_fed(engine, 0)
    spoken = Spoken()
    for piece in pieces:
        engine.feed(0, piece)
        for _ in range(steps_between):
            spoken.events += engine.step()
    engine.end(0)
    spoken.events += run(engine)[0].events
    spoken.chunks = [event.samples for event in spoken.events if len(event.samples)]
    return spoken


def test_how_and_when_text_arrives_does_not_change_what_is_said(engine: StreamingEngine) -> None:
    whole = speak(engine, [TEXT])
    assert whole.num_tokens > 15 * 4, "text was asked for several times"
    assert len(whole.samples) == whole.num_tokens * 960
    for size, steps_between in ((1, 0), (1, 2), (4, 30), (12, 200)):
        pieces = [TEXT[start : start + size] for start in range(0, len(TEXT), size)]
        spoken = speak(engine, pieces, steps_between)
        np.testing.assert_allclose(spoken.samples, whole.samples, atol=1e-4)
        assert [event.finished for event in spoken.events].count(True) == 1 and spoken.events[-1].finished
    engine.check()


def test_sound_leaves_before_the_text_has_ended(engine: StreamingEngine) -> None:
    open_fed(engine, 0, text=TEXT[:30])
    spoken = run(engine)[0]
    assert spoken.chunks and not spoken.events[-1].generated
    engine.close(0)


def test_a_stream_that_waits_for_text_costs_nothing(engine: StreamingEngine) -> None:
    open_fed(engine, 0, text=TEXT[:9])
    assert engine.wait_s() is None and engine.step() == []
    engine.check()
    engine.feed(0, TEXT[9:10])
    assert engine.wait_s() == 0.0
    run(engine)
    assert engine.wait_s() is None, "the first tokens are drawn, and more text is waited for"
    open_stream(engine, 1, VOICE, make_utterance(VOICE, 1), 1)
    assert run(engine)[1].events[-1].finished
    engine.feed(0, TEXT[10:])
    engine.end(0)
    assert run(engine)[0].events[-1].finished
    engine.check()


def test_fed_and_whole_texts_in_company_give_what_each_gives_alone(
    checkpoint: Checkpoint, engine_config: SynthesisConfig
) -> None:
    alone: dict[int, Spoken] = {}
    voices = {stream_id: make_voice(stream_id, 20 + 9 * stream_id) for stream_id in range(8)}
    for stream_id, voice in voices.items():
        engine = StreamingEngine(checkpoint, engine_config)
        if stream_id % 2:
            open_stream(engine, stream_id, voice, make_utterance(voice, stream_id, 9), stream_id)
        else:
            open_fed(engine, stream_id, voice, TEXT[stream_id:], seed=stream_id)
            engine.end(stream_id)
        alone[stream_id] = run(engine)[stream_id]
    engine = StreamingEngine(checkpoint, engine_config)
    together = {stream_id: Spoken() for stream_id in voices}
    arriving = {stream_id: list(TEXT[stream_id:]) for stream_id in voices if stream_id % 2 == 0}
    for stream_id, voice in voices.items():
        if stream_id in arriving:
            open_fed(engine, stream_id, voice, seed=stream_id)
        else:
            open_stream(engine, stream_id, voice, make_utterance(voice, stream_id, 9), stream_id)
    random = np.random.default_rng(0)
    while arriving or engine.wait_s() is not None:
        for stream_id in list(arriving):
            engine.feed(stream_id, np.array([arriving[stream_id].pop(0) for _ in arriving[stream_id][:2]], np.int32))
            if not arriving[stream_id]:
                del arriving[stream_id]
                engine.end(stream_id)
        for _ in range(int(random.integers(20))):
            for event in engine.step():
                together[event.stream_id].events.append(event)
                together[event.stream_id].chunks.append(event.samples)
    for stream_id in voices:
        assert together[stream_id].num_tokens == alone[stream_id].num_tokens
        np.testing.assert_allclose(together[stream_id].samples, alone[stream_id].samples, atol=1e-4)
    engine.check()


def test_text_that_ends_before_anything_was_read_sounds_like_any_other(engine: StreamingEngine) -> None:
    utterance = make_utterance(VOICE, 1)
    open_stream(engine, 0, VOICE, utterance, 4)
    plain = run(engine)[0]
    assert len(utterance.text_ids) + len(utterance.prefix_ids) < 15
    np.testing.assert_array_equal(speak(engine, np.split(utterance.text_ids, 5)).samples, plain.samples)


def test_no_text_at_all_is_an_end_without_sound(engine: StreamingEngine) -> None:
    open_fed(engine, 0)
    engine.end(0)
    (event,) = run(engine)[0].events
    assert event.finished and event.generated and event.error is None and not len(event.samples)
    assert engine.wait_s() is None
    engine.check()


def test_a_fed_stream_can_be_closed_at_any_time_and_is_gone_then(engine: StreamingEngine) -> None:
    for num_text, steps in ((0, 0), (9, 3), (10, 1), (30, 5), (30, 500)):
        open_fed(engine, 0, text=TEXT[:num_text])
        for _ in range(steps):
            engine.step()
        engine.close(0)
        engine.feed(0, TEXT)
        engine.end(0)
        assert engine.wait_s() is None
        engine.check()


def test_text_after_the_end_and_for_streams_that_take_none_is_ignored(engine: StreamingEngine) -> None:
    expected = speak(engine, [TEXT]).samples
    open_fed(engine, 0, text=TEXT)
    engine.end(0)
    engine.feed(0, TEXT)
    engine.end(0)
    engine.feed(77, TEXT)
    np.testing.assert_array_equal(run(engine)[0].samples, expected)
    utterance = make_utterance(VOICE, 1)
    open_stream(engine, 1, VOICE, utterance, 4)
    engine.feed(1, TEXT)
    engine.end(1)
    assert run(engine)[1].events[-1].finished


@pytest.mark.parametrize("num_text", [200, 1000])
def test_text_that_outgrows_the_model_ends_its_stream_alone(checkpoint: Checkpoint, num_text: int) -> None:
    engine = StreamingEngine(checkpoint, SynthesisConfig(max_streams=2, max_positions=256))
    long = np.resize(TEXT, num_text)
    open_fed(engine, 0)
    open_stream(engine, 1, VOICE, make_utterance(VOICE, 1), 1)
    engine.feed(0, long)
    engine.end(0)
    spoken = run(engine)
    assert isinstance(spoken[0].events[-1].error, InputTooLong) and spoken[0].events[-1].finished
    assert spoken[1].events[-1].finished and spoken[1].events[-1].error is None
    assert engine.wait_s() is None
    engine.check()


def test_a_prompt_that_cannot_fit_is_refused(checkpoint: Checkpoint) -> None:
    engine = StreamingEngine(checkpoint, SynthesisConfig(max_streams=2, max_positions=256))
    with pytest.raises(InputTooLong):
        open_fed(engine, 0, make_voice(1, 300))
    engine.check()
