"""Which of several voices an output is nearest to."""

from pathlib import Path

import numpy as np

from serve_app.evaluate.likeness import SpeakerEncoder, closest, others_of
from serve_app.preprocess.reference_audio import decode

VOICES = Path(__file__).parents[2] / "configs/voices"


def test_closest_looks_at_the_others_that_it_is_given() -> None:
    references = np.eye(3, dtype=np.float32)
    output = np.asarray([0.5, 0.8, 0.1], np.float32)
    assert closest(output, references, 1, [0, 2])
    assert not closest(output, references, 0, [1, 2])
    assert closest(output, references, 0, [2])


def test_others_are_drawn_once_and_are_never_oneself() -> None:
    for own in range(20):
        others = others_of(own, 20, 5)
        assert len(set(others)) == 5 and own not in others and others == others_of(own, 20, 5)
    assert others_of(0, 3, 5) in ([1, 2], [2, 1])


def test_embeddings_tell_the_built_in_voices_apart_at_any_rate_and_level() -> None:
    encoder = SpeakerEncoder()
    clips = [decode((VOICES / f"{name}.wav").read_bytes()) for name in ("clara", "martin", "nora")]
    first, second = [], []
    for clip in clips:
        half = len(clip.samples) // 2
        first.append(encoder.embed(clip.samples[:half], clip.sample_rate_hz))
        second.append(encoder.embed(0.1 * clip.resampled(16_000).samples[half * 2 // 3 :], 16_000))
    likeness = np.stack(first) @ np.stack(second).T
    assert (likeness.argmax(axis=1) == np.arange(3)).all()
    assert first[0].shape == (256,) and abs(float(np.linalg.norm(first[0])) - 1) < 1e-5


def test_loudness_is_not_a_voice_and_a_short_clip_is_no_fault() -> None:
    clip = decode((VOICES / "clara.wav").read_bytes())
    encoder = SpeakerEncoder()
    loud, quiet = (encoder.embed(np.float32(gain) * clip.samples, clip.sample_rate_hz) for gain in (1.0, 0.05))
    assert float(loud @ quiet) > 0.999
    assert np.isfinite(encoder.embed(clip.samples[:2000], clip.sample_rate_hz)).all()
