"""The teacher voice (hibari-tts, Apache-2.0) with its phoneme durations, and virtual speakers made by warping its
spectra and pitch.

One network prediction can be rendered by any number of speakers: the renderings are aligned sample by sample, which
is what the speech codes, the flow and the two front-end models learn from.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from hibari import Hibari, dsp
from hibari.voices import voice_path
from numpy.typing import NDArray

Floats = NDArray[np.float32]
SAMPLE_RATE_HZ = 24000
SPECTRUM_HZ = 80  # frames per second of the teacher's spectra; its durations count frames of half that rate
NUM_BINS = 601


@dataclass(frozen=True)
class Speaker:
    """A virtual speaker. All fields are relative to the teacher's own voice."""

    warp: float = 1.0  # formant frequencies x warp
    pitch: float = 1.0  # mean F0 x pitch
    range: float = 1.0  # F0 excursions around the mean, on a log scale, x range
    tilt: float = 0.0  # dB per natural-log unit of frequency around 1 kHz
    breath: float = 0.0  # added to the log magnitude of the noise

    def parameters(self) -> Floats:
        """The five parameters scaled to about -1..1. Shape [5]."""
        return np.array(
            [
                (self.warp - 0.98) / 0.18,
                np.log(self.pitch / 0.84) / 0.52,
                (self.range - 0.95) / 0.3,
                (self.tilt + 0.15) / 1.35,
                (self.breath - 0.05) / 0.45,
            ],
            np.float32,
        )


NORMAL = Speaker(range=0.7)  # the voice of the speech codes
VOICES = {
    "clara": Speaker(1.0, 1.0, 1.0, 0.0, 0.0),
    "martin": Speaker(0.86, 0.58, 0.95, -0.6, 0.0),
    "nora": Speaker(1.1, 1.25, 1.1, 0.4, 0.1),
    "victor": Speaker(0.82, 0.5, 0.85, 0.5, -0.2),
    "helen": Speaker(0.94, 0.82, 1.0, -0.9, 0.25),
}


def random_speaker(rng: np.random.Generator) -> Speaker:
    """A speaker drawn over the whole range: size and pitch go together, as they do in people."""
    size = rng.random()
    pitch = np.exp(np.log(0.5) + np.log(1.4 / 0.5) * np.clip(size + rng.normal(0, 0.15), 0, 1))
    return Speaker(
        0.80 + 0.36 * size, float(pitch), rng.uniform(0.7, 1.25), rng.uniform(-1.5, 1.2), rng.uniform(-0.4, 0.5)
    )


@dataclass(frozen=True)
class Prediction:
    """The teacher's network on one sentence: five spectra [601, frames], F0 [frames], durations per phoneme."""

    spectra: tuple[Floats, ...]
    f0_hz: Floats
    ids: NDArray[np.int64]
    durations: NDArray[np.int64]  # [len(ids)], in frames at SPECTRUM_HZ


class Teacher:
    """hibari's bundled voice with the clipped durations as an extra output."""

    def __init__(self) -> None:
        model = onnx.load(voice_path("heart"))
        model.graph.output.append(onnx.helper.make_tensor_value_info("/Clip_output_0", onnx.TensorProto.FLOAT, None))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "teacher.onnx"
            onnx.save(model, path)
            self._hibari = Hibari(model=str(path))

    def predict(self, phonemes: str, speed: float = 1.0) -> Prediction:
        """Misaki phonemes of one sentence (at most 400 of them) -> spectra, pitch and durations."""
        ids = np.asarray(self._hibari.ids(phonemes), np.int64)
        feeds = {"ids": ids[None], "speed": np.asarray([speed], np.float32)}
        *outputs, durations = self._hibari.sess.run(None, feeds)[:7]
        *spectra, f0_hz = (output[0] for output in outputs)
        return Prediction(tuple(spectra), f0_hz, ids, 2 * np.reshape(durations, -1).astype(np.int64))

    def ids(self, phonemes: str) -> list[int]:
        return self._hibari.ids(phonemes)


def _warp(spectrum: Floats, warp: float) -> Floats:
    position = np.minimum(np.arange(NUM_BINS) / warp, NUM_BINS - 1.001)
    low = position.astype(int)
    part = (position - low)[:, None].astype(np.float32)
    return spectrum[low] * (1 - part) + spectrum[low + 1] * part


def pitch_hz(prediction: Prediction, speaker: Speaker) -> Floats:
    """The speaker's F0, 0 where unvoiced. Shape [frames] at SPECTRUM_HZ."""
    f0_hz = prediction.f0_hz
    voiced = f0_hz > 40
    log_f0 = np.log(np.maximum(f0_hz, 40))
    mean = log_f0[voiced].mean() if voiced.any() else 5.2
    return np.where(voiced, np.exp(mean + np.log(speaker.pitch) + (log_f0 - mean) * speaker.range), 0).astype(
        np.float32
    )


def render(prediction: Prediction, speaker: Speaker, seed: int) -> Floats:
    """The sentence in the speaker's voice, 24 kHz. Shape [300 * frames]."""
    spectra = prediction.spectra
    if abs(speaker.warp - 1) > 1e-3:
        spectra = tuple(_warp(spectrum, speaker.warp) for spectrum in spectra)
    harmonic, theta, noise, residual, phase = spectra
    frequency = np.maximum(np.linspace(0, SAMPLE_RATE_HZ / 2, NUM_BINS), 100) / 1000
    tilt = (np.log(frequency) * speaker.tilt * 0.115).astype(np.float32)[:, None]
    samples = dsp.synth(
        harmonic + tilt,
        theta,
        noise + speaker.breath + tilt / 2,
        residual + tilt,
        phase,
        pitch_hz(prediction, speaker),
        np.random.default_rng(seed),
    )
    peak = float(np.abs(samples).max())
    return (samples * (0.99 / peak) if peak > 0.99 else samples).astype(np.float32)
