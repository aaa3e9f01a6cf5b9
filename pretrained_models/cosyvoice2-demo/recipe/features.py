"""The three spectra of CosyVoice2's front end, as functions of a waveform: flow mel, whisper mel, Kaldi fbank."""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.signal import resample_poly

HOP = 480  # samples a mel frame at 24 kHz


def _hz_to_mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(hz < 1000, hz * 3 / 200, 15 + np.log(np.maximum(hz, 1000) / 1000) * 27 / np.log(6.4))


def _mel_to_hz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((np.maximum(mel, 15) - 15) * np.log(6.4) / 27))


@functools.lru_cache
def slaney_filters(sample_rate_hz: int, num_fft: int, num_mels: int, high_hz: float) -> torch.Tensor:
    """Slaney's triangular filters with area normalisation, from 0 Hz. Shape [num_mels, num_fft // 2 + 1]."""
    edges = _mel_to_hz(np.linspace(0, _hz_to_mel(np.array(high_hz)), num_mels + 2))
    bins = np.linspace(0, sample_rate_hz / 2, num_fft // 2 + 1)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    filters = np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]
    return torch.from_numpy(filters).float()


@functools.lru_cache
def _hann(length: int) -> torch.Tensor:
    return torch.hann_window(length)


def flow_mel(samples: torch.Tensor) -> torch.Tensor:
    """24 kHz samples [B, N] -> log mel [B, 80, N // 480], as upstream's `feat_extractor` (matcha's mel_spectrogram)."""
    padded = F.pad(samples[:, None], (720, 720), mode="reflect")[:, 0]
    spectrum = torch.stft(padded, 1920, HOP, 1920, _hann(1920), center=False, return_complex=True)
    magnitude = torch.sqrt(spectrum.real.square() + spectrum.imag.square() + 1e-9)
    return torch.log(torch.clamp(slaney_filters(24000, 1920, 80, 8000.0) @ magnitude, min=1e-5))


def whisper_mel(samples_16k: torch.Tensor) -> torch.Tensor:
    """16 kHz samples [N] -> whisper's log mel [128, N // 160]."""
    spectrum = torch.stft(samples_16k, 400, 160, 400, _hann(400), return_complex=True)[..., :-1].abs().square()
    log = torch.clamp(slaney_filters(16000, 400, 128, 8000.0) @ spectrum, min=1e-10).log10()
    return (torch.maximum(log, log.max() - 8.0) + 4.0) / 4.0


@functools.lru_cache
def _kaldi_filters() -> torch.Tensor:
    def mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return 1127 * np.log1p(np.asarray(hz) / 700)

    edges = np.linspace(mel(20.0), mel(8000.0), 82)
    bins = mel(np.arange(256) * 16000 / 512)
    rise = (bins - edges[:-2, None]) / np.diff(edges)[:-1, None]
    fall = (edges[2:, None] - bins) / np.diff(edges)[1:, None]
    return torch.from_numpy(np.pad(np.maximum(0, np.minimum(rise, fall)), ((0, 0), (0, 1)))).float()


@functools.lru_cache
def _povey() -> torch.Tensor:
    return torch.hann_window(400, periodic=False).pow(0.85)


def kaldi_fbank(samples_16k: torch.Tensor) -> torch.Tensor:
    """16 kHz samples [N] -> Kaldi's 80-bin log fbank without dither, minus its mean over time. Shape [T, 80]."""
    frames = samples_16k.unfold(0, 400, 160)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat([frames[:, :1], frames[:, :-1]], 1)
    power = torch.fft.rfft(frames * _povey(), 512).abs().square()
    log = torch.clamp(power @ _kaldi_filters().T, min=torch.finfo(torch.float32).eps).log()
    return log - log.mean(0, keepdim=True)


def to_16k(samples: NDArray[np.float32]) -> torch.Tensor:
    """24 kHz -> 16 kHz samples."""
    return torch.from_numpy(resample_poly(samples, 2, 3).astype(np.float32))
