"""The three spectral pictures of a reference clip that CosyVoice2's networks were trained on, in numpy.

    prompt_mel   24 kHz, 50 frames a second, 80 slaney mels   -> the flow   (upstream: matcha's `mel_spectrogram`)
    whisper_mel  16 kHz, 100 frames a second, 128 slaney mels -> the speech tokenizer (`whisper.log_mel_spectrogram`)
    kaldi_fbank  16 kHz, 100 frames a second, 80 Kaldi mels   -> the speaker encoder  (`torchaudio` Kaldi `fbank`)

All take float32 [S], mono, nominally within -1..1, and give float32. Filter banks are built once per process.
"""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from serve_app.messages import Float32Array

PROMPT_RATE_HZ = 24_000
SPEECH_RATE_HZ = 16_000

_PROMPT_FFT, _PROMPT_HOP, _PROMPT_MELS, _PROMPT_TOP_HZ = 1920, 480, 80, 8000.0
_WHISPER_FFT, _WHISPER_HOP, _WHISPER_MELS = 400, 160, 128
_KALDI_WINDOW, _KALDI_HOP, _KALDI_FFT, _KALDI_MELS, _KALDI_LOW_HZ = 400, 160, 512, 80, 20.0
_BLOCK = 256
"""Frames transformed at once: bounds the memory of a 30 s clip to a few MB."""


def prompt_mel(samples: Float32Array) -> Float32Array:
    """Log-mel of a 24 kHz clip: float32 [S // 480, 80], one frame per 20 ms, not centred.

    Raises ValueError when the clip is too short to be reflected at its ends (721 samples).
    """
    pad = (_PROMPT_FFT - _PROMPT_HOP) // 2
    if len(samples) <= pad:
        raise ValueError(f"the prompt mel needs more than {pad} samples")
    frames = _frames(np.pad(samples, pad, mode="reflect"), _PROMPT_FFT, _PROMPT_HOP)
    filters = _slaney_filters(PROMPT_RATE_HZ, _PROMPT_FFT, _PROMPT_MELS, _PROMPT_TOP_HZ)
    mel = np.empty((len(frames), _PROMPT_MELS), np.float32)
    for start in range(0, len(frames), _BLOCK):
        power = _power(frames[start : start + _BLOCK] * _hann(_PROMPT_FFT), _PROMPT_FFT)
        mel[start : start + _BLOCK] = np.sqrt(power + 1e-9) @ filters
    return np.log(np.maximum(mel, 1e-5)).astype(np.float32)


def whisper_mel(samples: Float32Array) -> Float32Array:
    """Whisper's log-mel of a 16 kHz clip: float32 [128, S // 160], one column per 10 ms, centred, not padded to 30 s.

    Raises ValueError when the clip is too short to be reflected at its ends (201 samples).
    """
    pad = _WHISPER_FFT // 2
    if len(samples) <= pad:
        raise ValueError(f"the whisper mel needs more than {pad} samples")
    frames = _frames(np.pad(samples, pad, mode="reflect"), _WHISPER_FFT, _WHISPER_HOP)[:-1]
    filters = _slaney_filters(SPEECH_RATE_HZ, _WHISPER_FFT, _WHISPER_MELS, SPEECH_RATE_HZ / 2)
    mel = np.empty((len(frames), _WHISPER_MELS), np.float32)
    for start in range(0, len(frames), _BLOCK):
        mel[start : start + _BLOCK] = (
            _power(frames[start : start + _BLOCK] * _hann(_WHISPER_FFT), _WHISPER_FFT) @ filters
        )
    log = np.log10(np.maximum(mel, 1e-10))
    log = (np.maximum(log, log.max() - 8.0) + 4.0) / 4.0
    return np.ascontiguousarray(log.T, dtype=np.float32)


def kaldi_fbank(samples: Float32Array) -> Float32Array:
    """Kaldi's filter bank of a 16 kHz clip without dither, minus its mean over time: float32 [(S - 240) // 160, 80].

    Raises ValueError when the clip is shorter than one window (400 samples).
    """
    if len(samples) < _KALDI_WINDOW:
        raise ValueError(f"the filter bank needs at least {_KALDI_WINDOW} samples")
    frames = _frames(samples, _KALDI_WINDOW, _KALDI_HOP)
    mel = np.empty((len(frames), _KALDI_MELS), np.float32)
    for start in range(0, len(frames), _BLOCK):
        block = frames[start : start + _BLOCK]
        block = block - block.mean(axis=1, keepdims=True)
        # Pre-emphasis within the window; its first sample is its own predecessor.
        block = block - 0.97 * np.concatenate([block[:, :1], block[:, :-1]], axis=1)
        mel[start : start + _BLOCK] = _power(block * _povey(), _KALDI_FFT) @ _kaldi_filters()
    log = np.log(np.maximum(mel, np.finfo(np.float32).eps))
    fbank: Float32Array = (log - log.mean(axis=0)).astype(np.float32)
    return fbank


def _frames(samples: Float32Array, size: int, hop: int) -> Float32Array:
    """A view of every whole window: [1 + (S - size) // hop, size]."""
    return sliding_window_view(samples, size)[::hop]


def _power(windows: Float32Array, num_fft: int) -> Float32Array:
    spectrum = np.fft.rfft(windows, num_fft)
    power: Float32Array = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    return power


@cache
def _hann(size: int) -> Float32Array:
    """The periodic Hann window, float32 [size]."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)


@cache
def _povey() -> Float32Array:
    symmetric = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_KALDI_WINDOW) / (_KALDI_WINDOW - 1))
    return (symmetric**0.85).astype(np.float32)


def _triangles(corners: NDArray[np.floating], points: NDArray[np.floating]) -> NDArray[np.floating]:
    """Triangular filters [points, filters] with the given left, middle and right corners [filters + 2]."""
    left, middle, right = corners[:-2], corners[1:-1], corners[2:]
    rising = (points[:, None] - left) / (middle - left)
    falling = (right - points[:, None]) / (right - middle)
    return np.asarray(np.maximum(0.0, np.minimum(rising, falling)))


@cache
def _slaney_filters(rate_hz: int, num_fft: int, num_mels: int, top_hz: float) -> Float32Array:
    """Slaney's mel filters with unit area (librosa's default), float32 [num_fft / 2 + 1, num_mels]."""

    def to_mel(hz: float) -> float:
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * float(np.log(hz / 1000) / np.log(6.4))

    mels = np.linspace(0.0, to_mel(top_hz), num_mels + 2)
    corners = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))
    filters = _triangles(corners, np.fft.rfftfreq(num_fft, 1 / rate_hz))
    return np.asarray(filters * 2 / (corners[2:] - corners[:-2]), dtype=np.float32)


@cache
def _kaldi_filters() -> Float32Array:
    """Kaldi's mel filters, triangular on the mel scale, float32 [257, 80]; the last bin is never used."""

    def to_mel(hz: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.asarray(1127.0 * np.log1p(hz / 700.0))

    low, high = to_mel(np.asarray([_KALDI_LOW_HZ, SPEECH_RATE_HZ / 2]))
    bins = to_mel(np.arange(_KALDI_FFT // 2 + 1) * SPEECH_RATE_HZ / _KALDI_FFT)
    filters = _triangles(np.linspace(low, high, _KALDI_MELS + 2), bins)
    filters[-1] = 0.0
    return filters.astype(np.float32)
