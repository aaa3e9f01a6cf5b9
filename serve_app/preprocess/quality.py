"""What is good and bad about a reference clip: measured, and said in plain words."""

import re
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from serve_app.messages import ClipQuality, Float32Array
from serve_app.preprocess.reference_audio import Clip
from serve_app.preprocess.voice_activity import FRAME, runs

LOW_SNR_DB = 20.0
_GUARD_FRAMES = 3
_MIN_SPEECH_S = 3.0
_EPSILON = 1e-12
_PITCH_WINDOW = 21
"""Voiced frames, 24 ms apart: half a second, so that an octave mistaken here and there does not count."""
_ONE_VOICE = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """A clip at 16 kHz and where in it is speech. speaking: bool [frames of 32 ms]."""

    at_16_khz: Float32Array
    speaking: NDArray[np.bool_]

    @property
    def quiet(self) -> NDArray[np.bool_]:
        """Frames surely without speech: 0.1 s away from it."""
        near = np.array(self.speaking, dtype=bool)
        for start, end in runs(self.speaking):
            near[max(0, start - _GUARD_FRAMES) : end + _GUARD_FRAMES] = True
        return np.asarray(~near)

    @property
    def speech_s(self) -> float:
        """Seconds of speech."""
        return float(self.speaking.sum()) * FRAME / 16_000

    def frame_powers(self) -> NDArray[np.float64]:
        """Mean square of every frame."""
        num_frames = len(self.speaking)
        padded = np.zeros(num_frames * FRAME, np.float64)
        padded[: len(self.at_16_khz)] = self.at_16_khz
        powers: NDArray[np.float64] = np.square(padded.reshape(num_frames, FRAME)).mean(axis=1)
        return powers


def assess(clip: Clip, measured: Measured, transcript: str) -> ClipQuality:
    """The report on a clip as it was sent. `Measured` is of the same clip."""
    powers = measured.frame_powers()
    snr_db = _snr_db(powers, measured)
    loudness_db = _db(powers[measured.speaking].mean()) if measured.speaking.any() else _db(powers.mean())
    clipping = _clipped_share(clip.samples)
    bandwidth_hz = _bandwidth_hz(clip, measured)
    second = _second_speaker(measured)
    hum_hz = _hum_hz(measured)
    warnings = [
        *_speech_warnings(clip, measured),
        *_noise_warnings(snr_db, hum_hz, measured),
        *_signal_warnings(clipping, bandwidth_hz, loudness_db),
        *(["There may be a second speaker: the pitch of the voice changes far too much."] if second else []),
        *_transcript_warnings(transcript, measured.speech_s),
    ]
    return ClipQuality(
        duration_s=round(clip.duration_s, 3),
        speech_s=round(measured.speech_s, 3),
        snr_db=round(snr_db, 1),
        loudness_db=round(loudness_db, 1),
        clipped_share=round(clipping, 5),
        bandwidth_hz=round(bandwidth_hz),
        second_speaker=second,
        warnings=tuple(warnings),
    )


def _db(power: float) -> float:
    return float(10 * np.log10(power + _EPSILON))


def _snr_db(powers: NDArray[np.float64], measured: Measured) -> float:
    """Speech against what is there when nobody speaks, or against the quietest tenth where there is no pause."""
    if not measured.speaking.any():
        return 0.0
    quiet = powers[measured.quiet]
    noise = float(np.median(quiet)) if len(quiet) >= 6 else float(np.quantile(powers, 0.1))
    if len(quiet) >= 6:
        noise = max(noise, float(quiet.mean()) / 4)  # a background that comes and goes
    speech = float(powers[measured.speaking].mean())
    return float(np.clip(_db(max(speech - noise, 0.1 * noise)) - _db(noise), -10, 80))


def _clipped_share(samples: Float32Array) -> float:
    """Share of samples in flat tops: three or more in a row within a thousandth of the highest or lowest."""
    share = 0
    for signal in (samples, -samples):
        top = signal >= signal.max() * 0.999
        share += sum(end - start for start, end in runs(top) if end - start >= 3)
    return share / len(samples)


def _spectrum(samples: Float32Array, size: int) -> NDArray[np.float64]:
    """Mean power of each bin over Hann windows, [size // 2 + 1]."""
    if len(samples) < size:
        samples = np.pad(samples, (0, size - len(samples)))
    windows = sliding_window_view(samples, size)[:: size // 2]
    spectra = np.fft.rfft(windows * np.hanning(size), axis=1)
    return np.asarray((np.abs(spectra) ** 2).mean(axis=0), dtype=np.float64)


def _bandwidth_hz(clip: Clip, measured: Measured) -> float:
    """Where the speech ends: above it everything is 60 dB under the loudest band, or just noise."""
    speech = _selected(clip.samples, measured.speaking, clip.sample_rate_hz)
    spectrum = _spectrum(speech if len(speech) else clip.samples, 2048)
    width = max(1, round(300 * 2048 / clip.sample_rate_hz))
    level = 10 * np.log10(np.convolve(spectrum, np.ones(width) / width, mode="same") + _EPSILON)
    above = np.flatnonzero(level > level.max() - 60)
    return float(above[-1] * clip.sample_rate_hz / 2048) if len(above) else 0.0


def _selected(samples: Float32Array, frames: NDArray[np.bool_], rate_hz: int) -> Float32Array:
    """The samples, at any rate, that fall into frames of 32 ms."""
    index = np.minimum((np.arange(len(samples)) * (16_000 / rate_hz / FRAME)).astype(int), len(frames) - 1)
    return np.asarray(samples[frames[index]])


def _hum_hz(measured: Measured) -> float:
    """50 or 60 if the pauses hold mains hum, else 0."""
    samples = _selected(measured.at_16_khz, measured.quiet, 16_000)
    if len(samples) < 4096:
        samples = measured.at_16_khz
    spectrum = _spectrum(samples, 8192 if len(samples) >= 8192 else 4096)
    bin_hz = 16_000 / (2 * (len(spectrum) - 1))
    total = float(spectrum[round(30 / bin_hz) :].sum()) + _EPSILON
    for mains in (50.0, 60.0):
        share = 0.0
        for harmonic in (1, 2, 3, 4):
            center = round(mains * harmonic / bin_hz)
            share += float(spectrum[center - 2 : center + 3].sum())
        if share / total > 0.5:
            return mains
    return 0.0


def _second_speaker(measured: Measured) -> bool:
    """Whether the pitch, over half seconds, changes by more than one voice's melody does.

    Measured on the built-in voices and espeak-ng's: 1.0 to 1.4 alone, 1.5 to 3.1 for two in one clip (1.4 for two men
    of nearly one pitch, which this cannot tell apart).
    """
    pitches = _pitches(measured)
    if len(pitches) < 2 * _PITCH_WINDOW:
        return False
    padded = np.pad(pitches, _PITCH_WINDOW // 2, mode="edge")
    smooth = np.median(sliding_window_view(padded, _PITCH_WINDOW), axis=1)
    low, high = np.quantile(smooth, [0.1, 0.9])
    return bool(high > _ONE_VOICE * low)


def _pitches(measured: Measured) -> NDArray[np.float64]:
    """Hz of each voiced half-overlapping 48 ms of speech between 70 and 400 Hz, by autocorrelation."""
    speech = _selected(measured.at_16_khz, measured.speaking, 16_000)
    if len(speech) < 768:
        return np.zeros(0)
    windows = sliding_window_view(speech, 768)[::384] * np.hanning(768)
    spectra = np.abs(np.fft.rfft(windows, 2048, axis=1)) ** 2
    correlation = np.fft.irfft(spectra, axis=1)[:, :400]
    shape = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(768), 2048)) ** 2)[:400]
    normalised = correlation / (correlation[:, :1] + _EPSILON) / (shape / shape[0])
    # A little less for longer lags: of a period and its multiples, the period.
    lags = normalised[:, 40:229] * (1 - 0.0008 * np.arange(40, 229))
    best = lags.argmax(axis=1)
    strong = lags[np.arange(len(best)), best] > 0.6
    return np.asarray(16_000 / (best[strong] + 40.0))


def _speech_warnings(clip: Clip, measured: Measured) -> list[str]:
    speech_s = measured.speech_s
    if speech_s < 0.3:
        return ["No speech was found in the clip."]
    if speech_s < _MIN_SPEECH_S * 0.8:
        return [f"There are only {speech_s:.1f} s of speech; 3 to 10 s give a better voice."]
    if clip.duration_s - speech_s > max(2.0, speech_s):
        return [f"Most of the clip is silence or noise: {speech_s:.1f} s of speech in {clip.duration_s:.1f} s."]
    return []


def _noise_warnings(snr_db: float, hum_hz: float, measured: Measured) -> list[str]:
    if hum_hz:
        return [f"There is a mains hum of {hum_hz:g} Hz."]
    if snr_db < LOW_SNR_DB and measured.speaking.any():
        return [f"There is background noise or music: the speech is only {max(snr_db, 0):.0f} dB louder."]
    return []


def _signal_warnings(clipping: float, bandwidth_hz: float, loudness_db: float) -> list[str]:
    warnings = []
    if clipping > 0.0005:
        warnings.append(f"The recording is clipped (overdriven): {100 * clipping:.1f} % of the samples.")
    if bandwidth_hz < 5500:
        warnings.append(f"The recording sounds like a telephone: nothing above {bandwidth_hz / 1000:.1f} kHz.")
    if loudness_db < -45:
        warnings.append(f"The recording is very quiet ({loudness_db:.0f} dBFS).")
    return warnings


def _transcript_warnings(transcript: str, speech_s: float) -> list[str]:
    """Syllables that the transcript must have, against the time there was to say them."""
    if not transcript or speech_s < 0.3:
        return []
    wide = len(re.findall(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]", transcript))
    vowels = len(re.findall(r"[aeiouyäöüàâéèêëîïôûáíóú]+", transcript.lower()))
    rate = (wide + vowels) / speech_s
    if rate > 8.5:
        return ["The transcript is longer than what can be said in the clip; the voice will be unreliable."]
    if rate < 1.8:
        return ["The transcript is much shorter than the speech in the clip; the voice will be unreliable."]
    return []
