"""How alike two voices are: the cosine of their speaker embeddings.

The network is Resemblyzer's (Apache-2.0; generalised end-to-end loss, arXiv:1710.10467): three LSTM layers over 1.6 s
of mel. Only its weights are read; the package itself imports a voice activity detector that few machines can build.
"""

import importlib.metadata

import numpy as np
import soxr
import torch
from faster_whisper.feature_extractor import FeatureExtractor
from torch import nn

from serve_app.messages import Float32Array

_RATE_HZ, _FFT, _HOP, _MELS = 16_000, 400, 160, 40
_SIZE = 256
_FRAMES, _STEP = 160, 77
"""Of each part that is embedded, and from one part to the next (Resemblyzer's 1.3 parts a second)."""
_LEVEL = 10 ** (-30 / 20)
"""Root mean square that every clip is brought to: the mel is not logarithmic, and loudness is not a voice."""


class SpeakerEncoder:
    """Sound to a vector of length 1."""

    def __init__(self) -> None:
        weights = importlib.metadata.distribution("resemblyzer").locate_file("resemblyzer/pretrained.pt")
        state = torch.load(str(weights), map_location="cpu", weights_only=True)["model_state"]
        self._lstm, self._linear = nn.LSTM(_MELS, _SIZE, 3, batch_first=True), nn.Linear(_SIZE, _SIZE)
        for name, module in (("lstm.", self._lstm), ("linear.", self._linear)):
            module.load_state_dict({k[len(name) :]: v for k, v in state.items() if k.startswith(name)})
        self._filters = np.asarray(FeatureExtractor.get_mel_filters(_RATE_HZ, _FFT, _MELS), np.float32)

    @torch.inference_mode()
    def embed(self, samples: Float32Array, rate_hz: int) -> Float32Array:
        """float32 [S] -> float32 [256]: the mean over parts of 1.6 s, the last one filled up with silence."""
        low = np.asarray(soxr.resample(samples, rate_hz, _RATE_HZ), np.float32)
        low = low * (_LEVEL / max(1e-6, float(np.sqrt(np.mean(low**2)))))
        mel = self._mel(low)
        starts = [s for s in range(0, max(1, len(mel)), _STEP) if s == 0 or len(mel) - s >= 0.75 * _FRAMES]
        padded = np.pad(mel, ((0, _FRAMES), (0, 0)))
        parts = torch.from_numpy(np.stack([padded[start : start + _FRAMES] for start in starts]))
        _, (hidden, _) = self._lstm(parts)
        raw = torch.relu(self._linear(hidden[-1]))
        mean = (raw / raw.norm(dim=1, keepdim=True)).mean(0)
        vector: Float32Array = (mean / mean.norm()).numpy()
        return vector

    def _mel(self, samples: Float32Array) -> Float32Array:
        """Power mel, not logarithmic: float32 [S] -> [1 + S // 160, 40], frames centred."""
        padded = np.pad(samples, (_FFT // 2, _FFT // 2 + _HOP))
        frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP][: 1 + len(samples) // _HOP]
        window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)
        power = np.abs(np.fft.rfft(frames * window)) ** 2
        mel: Float32Array = (power @ self._filters.T).astype(np.float32)
        return mel


def closest(output: Float32Array, references: Float32Array, own: int, others: list[int]) -> bool:
    """Whether an output [D] is nearer to its own reference, a row of [N, D], than to each of the others."""
    likeness = references @ output
    return bool(likeness[own] > max(likeness[other] for other in others))


def others_of(own: int, count: int, wanted: int) -> list[int]:
    """Which others a speaker is told apart from: drawn once for all, the same in every run."""
    candidates = [other for other in range(count) if other != own]
    drawn = np.random.default_rng(own).permutation(candidates)[:wanted]
    return [int(other) for other in drawn]
