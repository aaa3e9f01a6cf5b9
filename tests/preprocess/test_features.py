"""Our spectral features against the libraries that define them."""

import numpy as np
import pytest

from serve_app.messages import Float32Array
from serve_app.preprocess.features import kaldi_fbank, prompt_mel, whisper_mel
from tests.preprocess.sounds import speech_like


def clips(rate_hz: int) -> list[Float32Array]:
    noise = np.random.default_rng(1).standard_normal(round(0.613 * rate_hz)).astype(np.float32) * 0.1
    quiet = speech_like(0.5, rate_hz, seed=3) * np.float32(1e-3)
    half_silent = np.concatenate([np.zeros(rate_hz // 2, np.float32), speech_like(1.0, rate_hz, seed=4)])
    return [speech_like(3.217, rate_hz), noise, quiet, half_silent]


def test_prompt_mel_is_librosas() -> None:
    import librosa
    import librosa.filters as filter_banks

    for clip in clips(24_000):
        padded = np.pad(clip.astype(np.float64), 720, mode="reflect")
        spectrum = np.abs(librosa.stft(padded, n_fft=1920, hop_length=480, center=False))
        filters = filter_banks.mel(sr=24_000, n_fft=1920, n_mels=80, fmin=0, fmax=8000, dtype=np.float64)
        expected = np.log(np.maximum(filters @ np.sqrt(spectrum**2 + 1e-9), 1e-5)).T
        mel = prompt_mel(clip)
        assert mel.shape == (len(clip) // 480, 80) == expected.shape
        assert mel.dtype == np.float32
        assert np.abs(mel - expected).max() < 1e-3


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_whisper_mel_is_transformers() -> None:
    from transformers import WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=128)
    for clip in clips(16_000):
        expected = extractor(clip, sampling_rate=16_000, padding="do_not_pad", return_tensors="np").input_features[0]
        mel = whisper_mel(clip)
        assert mel.shape == (128, len(clip) // 160) == expected.shape
        assert mel.dtype == np.float32
        assert np.abs(mel - expected).max() < 1e-3


def test_kaldi_fbank_is_kaldis() -> None:
    import kaldi_native_fbank

    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = 16_000
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80
    for clip in clips(16_000):
        kaldi = kaldi_native_fbank.OnlineFbank(options)
        kaldi.accept_waveform(16_000, clip.tolist())
        kaldi.input_finished()
        expected = np.stack([kaldi.get_frame(i) for i in range(kaldi.num_frames_ready)])
        fbank = kaldi_fbank(clip)
        assert fbank.shape == expected.shape == ((len(clip) - 240) // 160, 80)
        # Kaldi's floor on silence depends on rounding: compare what is above it.
        loud = expected > -14
        difference = np.abs(fbank - (expected - expected.mean(axis=0)))
        assert difference[loud].max() < 5e-3
        assert np.median(difference) < 1e-4


def test_long_clips_equal_short_ones_frame_by_frame() -> None:
    clip = speech_like(8.0, 16_000)
    whole = whisper_mel(clip)
    part = whisper_mel(clip[: 16_000 * 5])
    # Away from the cut's reflection; the level floor of Whisper is relative to the clip's peak.
    peak = whole.max()
    assert np.abs(np.maximum(whole[:, :497], peak - 1.5) - np.maximum(part[:, :497], peak - 1.5)).max() < 1e-4


@pytest.mark.parametrize("feature", [prompt_mel, whisper_mel, kaldi_fbank])
def test_too_short_is_refused(feature: object) -> None:
    assert callable(feature)
    with pytest.raises(ValueError, match="samples"):
        feature(np.zeros(100, np.float32))
