"""An uploaded clip to one that makes a good voice: trimmed, denoised where needed, of even loudness; with a report."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from serve_app.messages import ClipQuality, Denoise, Float32Array
from serve_app.preprocess.denoise import denoised
from serve_app.preprocess.quality import LOW_SNR_DB, Measured, assess
from serve_app.preprocess.reference_audio import Clip, decode
from serve_app.preprocess.transcript import one_line
from serve_app.preprocess.voice_activity import FRAME, VoiceActivity, runs, speech_frames

_BEST_S = 15.0
_MARGIN_S = 0.15
"""Kept before and after speech: the network hears soft beginnings and ends of words too late and not long enough."""
_LONG_PAUSE_S, _PAUSE_S = 0.7, 0.4
"""A pause this long inside a clip becomes one of that length."""
_TAIL_S = 0.2
"""Silence after the last word, or the words that follow in synthesis begin with its end (upstream's web page too)."""
_SPEECH_LEVEL = 10 ** (-20 / 20)
_PEAK = 0.95
_FADE_S = 0.01
_FRAME_S = FRAME / 16_000


@dataclass(frozen=True, slots=True, eq=False)
class Intake:
    """clip: what the voice is made of. quality: the report on what was sent."""

    clip: Clip
    quality: ClipQuality


def take_in(clip: Clip, transcript: str, denoise: Denoise, activity: VoiceActivity) -> Intake:
    """Measures a clip and mends what can be mended. A clip without speech is only reported, and kept as it is.

    denoise: "auto" denoises when the speech is less than 20 dB above the noise.
    A clip with a transcript keeps all its words; without one, the best 15 s of a longer clip are chosen.
    """
    centred = Clip(clip.samples - np.float32(clip.samples.mean()), clip.sample_rate_hz)
    at_16_khz = centred.resampled(16_000).samples
    measured = Measured(at_16_khz, speech_frames(activity.probabilities(at_16_khz)))
    quality = assess(clip, measured, transcript)
    if not measured.speaking.any():
        return Intake(clip, quality)
    clip = centred
    clean = denoise == "on" or (denoise == "auto" and quality.snr_db < LOW_SNR_DB)
    if clean:
        clip = denoised(clip, _at_rate(clip, measured.quiet))
    stretches = _stretches(measured, clip.duration_s, whole=bool(transcript))
    samples = _even(_joined(clip, stretches), measured, clip)
    kept = Clip(samples, clip.sample_rate_hz)
    return Intake(kept, replace(quality, denoised=clean, used_s=round(kept.duration_s, 3)))


def inspect(audio: bytes, transcript: str, denoise: Denoise) -> ClipQuality:
    """The report that a registration would give, for who has neither a service nor a checkpoint at hand.

    audio: an encoded file. Raises InvalidAudio and its kin.
    """
    return take_in(decode(audio), one_line(transcript), denoise, VoiceActivity()).quality


def _at_rate(clip: Clip, frames: NDArray[np.bool_]) -> Float32Array:
    """Samples of the clip in the marked frames."""
    parts = [clip.samples[_sample(a, clip) : _sample(b, clip)] for a, b in runs(frames)]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _sample(frame: int, clip: Clip) -> int:
    return min(len(clip.samples), round(frame * FRAME * clip.sample_rate_hz / 16_000))


def _stretches(measured: Measured, duration_s: float, whole: bool) -> list[tuple[float, float]]:
    """Seconds [start, end) to keep: speech with margins; long pauses shortened; the best 15 s unless `whole`."""
    spoken = [(a * _FRAME_S, b * _FRAME_S) for a, b in runs(measured.speaking)]
    if not whole and spoken[-1][1] - spoken[0][0] > _BEST_S:
        spoken = _best(spoken, measured)
    kept: list[tuple[float, float]] = []
    for first, last in spoken:
        start, end = max(0.0, first - _MARGIN_S), min(duration_s, last + _MARGIN_S)
        if kept and start - kept[-1][1] < _LONG_PAUSE_S - 2 * _MARGIN_S:
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((start, end))
    return kept


def _best(spoken: list[tuple[float, float]], measured: Measured) -> list[tuple[float, float]]:
    """Neighbouring stretches of speech that make at most 15 s: those with the most, and the steadiest, speech."""
    powers = measured.frame_powers()
    best, best_score = spoken[:1], -1.0
    for first in range(len(spoken)):
        chosen: list[tuple[float, float]] = []
        room_s = _BEST_S
        for start, end in spoken[first:]:
            room_s -= end - start + (min(start - chosen[-1][1], _PAUSE_S) if chosen else 0.0)
            if room_s < 0 and chosen:
                break
            chosen.append((start, min(end, start + _BEST_S)))
        levels = [float(np.sqrt(powers[round(a / _FRAME_S) : round(b / _FRAME_S)].mean())) for a, b in chosen]
        steady = 1.0 / (1.0 + float(np.std(levels) / (np.mean(levels) + 1e-9)))
        score = sum(b - a for a, b in chosen) * steady
        if score > best_score:
            best, best_score = chosen, score
    return best


def _joined(clip: Clip, stretches: list[tuple[float, float]]) -> Float32Array:
    """The stretches one after another with a short pause between, faded at their ends, and silence at the end."""
    rate = clip.sample_rate_hz
    fade = np.linspace(0, 1, max(2, round(_FADE_S * rate)), dtype=np.float32)
    parts: list[Float32Array] = []
    for start, end in stretches:
        part = clip.samples[round(start * rate) : round(end * rate)].copy()
        size = min(len(fade), len(part) // 2)
        part[:size] *= fade[:size]
        part[len(part) - size :] *= fade[:size][::-1]
        parts += [part, np.zeros(round((_PAUSE_S - 2 * _MARGIN_S) * rate), np.float32)]
    parts[-1] = np.zeros(round(max(0.0, _TAIL_S - _MARGIN_S) * rate), np.float32)
    return np.concatenate(parts)


def _even(samples: Float32Array, measured: Measured, clip: Clip) -> Float32Array:
    """Speech at -20 dBFS, as far as the peaks allow."""
    speech = _at_rate(clip, measured.speaking)
    level = float(np.sqrt(np.square(speech, dtype=np.float64).mean()))
    peak = float(np.abs(samples).max())
    gain = min(_SPEECH_LEVEL / max(level, 1e-6), _PEAK / max(peak, 1e-6))
    return np.asarray(samples * np.float32(gain), dtype=np.float32)
