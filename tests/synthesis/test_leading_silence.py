"""Silence before the first word is left out, and nothing else."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from torch import Tensor

from serve_app.config import SynthesisConfig
from serve_app.messages import Float32Array
from serve_app.model.checkpoint import Checkpoint
from serve_app.synthesis.engine import StreamingEngine
from serve_app.synthesis.leading_silence import LeadingSilence
from serve_app.synthesis.render_stage import Rendered
from serve_app.synthesis.sample_copy import Arrived
from serve_app.synthesis.scheduler import Work
from serve_app.synthesis.stream import SpeechStream
from tests.synthesis.conftest import make_utterance, make_voice, open_stream, run

RATE = 24_000
KEPT = 720


def quiet(seconds: float) -> Float32Array:
    return (np.random.default_rng(0).normal(size=round(seconds * RATE)) * 1e-4).astype(np.float32)


def voice(seconds: float) -> Float32Array:
    return np.asarray(np.sin(np.arange(round(seconds * RATE)) * 0.05 + 1.0), np.float32)


def trimmed(samples: Float32Array, chunk: int) -> Float32Array:
    silence = LeadingSilence()
    starts = range(0, len(samples), chunk)
    parts = [silence.trim(samples[start : start + chunk], last=start == starts[-1]) for start in starts]
    return np.concatenate(parts)


@pytest.mark.parametrize("chunk", [100, 4_800, 24_000, 10**6])
def test_all_but_a_little_of_the_silence_is_left_out_however_it_is_cut_into_chunks(chunk: int) -> None:
    sound = np.concatenate((quiet(0.4), voice(0.3), quiet(0.5), voice(0.2)))
    result = trimmed(sound, chunk)
    assert len(result) == len(sound) - round(0.4 * RATE) + KEPT
    np.testing.assert_array_equal(result[120:], sound[-len(result) :][120:])
    assert result[0] == 0, "faded in"


def test_a_sound_at_once_is_not_touched() -> None:
    sound = np.concatenate((voice(0.2), quiet(0.2)))
    np.testing.assert_array_equal(trimmed(sound, 4_800), sound)


def test_at_most_a_second_is_left_out() -> None:
    sound = np.concatenate((quiet(2.5), voice(0.1)))
    assert len(trimmed(sound, 4_800)) == len(sound) - RATE
    assert len(trimmed(quiet(0.5), 4_800)) == KEPT, "an utterance without a sound"


def make_silent_at_first(engine: StreamingEngine, monkeypatch: pytest.MonkeyPatch, num_silent: int = 4_800) -> None:
    """The first chunk of the next stream begins with so many samples of silence: random weights never do."""
    render = engine._render.render
    chunks: list[Tensor] = []

    def silent(streams: Sequence[SpeechStream]) -> Rendered:
        rendered = render(streams)
        samples = rendered.arriving()
        if not chunks:
            samples = samples.clone()
            samples[:num_silent] = 0
        if len(samples):  # none for the chunks of the voice's prompt
            chunks.append(samples)
        return replace(rendered, arriving=Arrived(samples))

    monkeypatch.setattr(engine._render, "render", silent)


def test_the_engine_trims_the_first_utterance_where_it_is_asked_to(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoken = []
    for trim in (False, True):
        config = SynthesisConfig(max_streams=2, max_positions=512, trim_leading_silence=trim)
        engine = StreamingEngine(checkpoint, config)
        make_silent_at_first(engine, monkeypatch)
        voice = make_voice(1)
        open_stream(engine, 0, voice, make_utterance(voice, 1), 1)
        spoken.append(run(engine)[0])
    assert not spoken[0].samples[:4_000].any()
    assert len(spoken[1].samples) < len(spoken[0].samples) - 4_000
    assert spoken[1].num_tokens == spoken[0].num_tokens and spoken[1].events[-1].finished
    tail = len(spoken[1].samples) - KEPT
    np.testing.assert_array_equal(spoken[1].samples[-tail:], spoken[0].samples[-tail:])


@pytest.mark.parametrize("num_silent", [4_800, 10**6], ids=["part of the first chunk", "all of it"])
def test_a_first_sound_that_was_trimmed_can_still_be_held(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, num_silent: int
) -> None:
    """And what comes out is the same."""
    spoken: list[list[Float32Array]] = []
    for hold in (False, True):
        config = SynthesisConfig(
            max_streams=2, max_positions=512, trim_leading_silence=True, hold_first_sound=hold, first_hop_tokens=25
        )
        engine = StreamingEngine(checkpoint, config, clock=lambda: 0.0)
        make_silent_at_first(engine, monkeypatch, num_silent)
        voice = make_voice(1, num_tokens=63)
        open_stream(engine, 0, voice, make_utterance(voice, 1, num_text_tokens=20), 1)
        stream, chunks = engine._streams[0], list[Float32Array]()
        was_held = False
        while engine.wait_s() is not None:
            engine.costs.table[Work.DECODE], engine.costs.table[Work.RENDER] = {1: 0.02}, {1: 0.45}
            chunks += [event.samples for event in engine.step() if len(event.samples)]
            if len(stream.held) and not was_held:
                was_held = True
                assert stream.leading_silence is not None and stream.leading_silence.left == 0
        if num_silent == 4_800:
            assert was_held == hold
        spoken.append(chunks)
    plain, held = (np.concatenate(chunks) for chunks in spoken)
    np.testing.assert_array_equal(held, plain)
