"""What is said of spoiled clips, and what is done about them."""

import subprocess
import sys

import numpy as np
import pytest

from serve_app.messages import Float32Array
from serve_app.preprocess.denoise import denoised
from serve_app.preprocess.intake import take_in
from serve_app.preprocess.quality import Measured
from serve_app.preprocess.reference_audio import Clip
from serve_app.preprocess.voice_activity import VoiceActivity, runs, speech_frames
from tests.preprocess.spoiled import RATE, mixed, noise, power, spoiled, voice

NAMES = ("clara", "helen", "martin", "nora", "victor")


@pytest.fixture(scope="module")
def activity() -> VoiceActivity:
    return VoiceActivity()


def silence(seconds: float) -> Float32Array:
    return np.zeros(round(seconds * RATE), np.float32)


def test_the_report_names_the_fault_of_spoiled_clips(activity: VoiceActivity) -> None:
    clips = list(spoiled())
    assert len(clips) >= 30
    missed = []
    for clip in clips:
        warnings = take_in(clip.clip, clip.transcript, "off", activity).quality.warnings
        if not any(clip.word in warning for warning in warnings):
            missed.append((clip.name, warnings))
    assert len(clips) - len(missed) >= 26, missed


@pytest.mark.parametrize("name", NAMES)
def test_a_good_clip_gets_no_warning(activity: VoiceActivity, name: str) -> None:
    samples, transcript = voice(name)
    taken = take_in(Clip(samples, RATE), transcript, "auto", activity)
    assert taken.quality.warnings == ()
    assert not taken.quality.denoised
    assert 2.5 < taken.quality.speech_s < 3.2


def test_silence_is_trimmed_and_long_pauses_shortened(activity: VoiceActivity) -> None:
    samples, transcript = voice("clara")
    alone = take_in(Clip(samples, RATE), transcript, "off", activity).clip.duration_s
    longer = np.concatenate([silence(4), samples, silence(3), samples, silence(2)])
    taken = take_in(Clip(longer, RATE), transcript + " " + transcript, "off", activity)
    assert taken.clip.duration_s == pytest.approx(2 * alone, abs=0.3)
    assert taken.quality.used_s == pytest.approx(taken.clip.duration_s, abs=0.01)
    assert taken.quality.duration_s == pytest.approx(len(longer) / RATE, abs=0.01)
    assert np.abs(taken.clip.samples[-round(0.04 * RATE) :]).max() < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_trimming_a_clean_clip_cuts_no_word(activity: VoiceActivity, name: str) -> None:
    """What is kept is one stretch of the clip, times a gain, and what is dropped is below -50 dB of it."""
    samples, transcript = voice(name)
    kept = take_in(Clip(samples, RATE), transcript, "off", activity).clip.samples.astype(np.float64)
    size = len(kept) + len(samples)
    overlap = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(kept, size).conj(), size)
    start = int(overlap.argmax())
    same = samples[start : start + len(kept)].astype(np.float64)
    kept = kept[: len(same)]
    gain = (same @ kept) / (same @ same)
    assert np.square(kept - gain * same).sum() < 1e-5 * np.square(kept).sum()
    dropped = np.square(samples[:start]).sum() + np.square(samples[start + len(kept) :]).sum()
    assert dropped < 1e-5 * np.square(samples).sum()
    assert len(kept) < 0.9 * len(samples)


def test_the_best_fifteen_seconds_of_a_clip_without_transcript(activity: VoiceActivity) -> None:
    parts = [np.concatenate([voice(name)[0], silence(0.6)]) for name in NAMES * 2]
    long_clip = Clip(np.concatenate(parts)[: 29 * RATE], RATE)
    assert 10 < take_in(long_clip, "", "off", activity).clip.duration_s < 16.5
    assert take_in(long_clip, "these are all the words", "off", activity).clip.duration_s > 20


def test_loudness_is_evened(activity: VoiceActivity) -> None:
    samples, transcript = voice("helen")
    loud, quiet = (
        take_in(Clip(np.asarray(samples * gain + 0.02, np.float32), RATE), transcript, "off", activity).clip.samples
        for gain in (np.float32(1.0), np.float32(0.05))
    )
    assert 10 * np.log10(power(loud) / power(quiet)) == pytest.approx(0, abs=0.5)
    assert abs(float(loud.mean())) < 0.002
    assert np.abs(loud).max() <= 0.951


def noise_level(samples: Float32Array, activity: VoiceActivity) -> float:
    """Mean square in the pauses of a clip, against that of its speech."""
    at_16_khz = Clip(samples, RATE).resampled(16_000).samples
    measured = Measured(at_16_khz, speech_frames(activity.probabilities(at_16_khz)))
    powers = measured.frame_powers()
    return float(powers[measured.quiet].mean() / powers[measured.speaking].mean())


@pytest.mark.parametrize("snr_db", [5, 12])
def test_denoising_lowers_the_noise_and_keeps_the_speech(activity: VoiceActivity, snr_db: int) -> None:
    speech, transcript = voice("nora")
    noisy = mixed(speech, noise("pink", len(speech)), snr_db)
    taken = take_in(Clip(noisy, RATE), transcript, "auto", activity)
    assert taken.quality.denoised
    assert take_in(Clip(speech, RATE), transcript, "auto", activity).quality.denoised is False
    pauses = noisy[: RATE // 4]
    cleaned = denoised(Clip(noisy, RATE), pauses).samples
    assert noise_level(cleaned, activity) < 0.45 * noise_level(noisy, activity)
    # Nearer to the clean original, spectrum by spectrum, than the noisy one was.
    assert spectral_distance(cleaned, speech) < 0.8 * spectral_distance(noisy, speech)


def spectral_distance(one: Float32Array, other: Float32Array) -> float:
    """Mean difference of the log-mels, in nepers, where the original has something to hear."""
    from serve_app.preprocess.features import prompt_mel

    num = min(len(one), len(other))
    ours, theirs = prompt_mel(one[:num]), prompt_mel(other[:num])
    heard = theirs > theirs.max() - 7
    return float(np.abs(ours - theirs)[heard].mean())


def test_denoise_can_be_forced_and_forbidden(activity: VoiceActivity) -> None:
    speech, transcript = voice("clara")
    noisy = Clip(mixed(speech, noise("white", len(speech)), 5), RATE)
    off, on = (take_in(noisy, transcript, choice, activity) for choice in ("off", "on"))
    assert (off.quality.denoised, on.quality.denoised) == (False, True)
    assert take_in(Clip(speech, RATE), transcript, "on", activity).quality.denoised
    assert off.quality.snr_db == on.quality.snr_db


def test_a_clip_without_speech_is_reported_and_kept(activity: VoiceActivity) -> None:
    clip = Clip(noise("white", 2 * RATE) * np.float32(0.1), RATE)
    taken = take_in(clip, "", "auto", activity)
    assert taken.quality.warnings[0] == "No speech was found in the clip."
    assert taken.clip is clip


def test_speech_is_found_whatever_the_level(activity: VoiceActivity) -> None:
    samples = Clip(voice("martin")[0], RATE).resampled(16_000).samples
    normal = speech_frames(activity.probabilities(samples))
    faint = speech_frames(activity.probabilities(samples * np.float32(0.003)))
    assert np.mean(normal == faint) > 0.95
    assert not speech_frames(activity.probabilities(np.zeros(16_000, np.float32))).any()


def test_runs_and_hysteresis() -> None:
    mask = np.asarray([True, True, False, True, False, False, True])
    assert runs(mask) == [(0, 2), (3, 4), (6, 7)]
    assert runs(np.zeros(3, bool)) == []
    probabilities = np.asarray([0.1, 0.6, 0.4, 0.3, 0.1, 0.9, 0.9, *[0.0] * 9, 0.9, *[0.0] * 3], np.float32)
    assert runs(speech_frames(probabilities)) == [(1, 7)]


def test_neither_torch_nor_the_network_is_needed() -> None:
    """A replica that denoises, detects speech and reads Chinese loads no torch and opens no socket."""
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise RuntimeError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "import serve_app.preprocess.preprocessor\n"
        "from serve_app.preprocess.denoise import warm_up; warm_up()\n"
        "from serve_app.preprocess.voice_activity import VoiceActivity; VoiceActivity()\n"
        "from serve_app.preprocess.normalize import clean, normalize\n"
        "assert normalize(clean('我有2个苹果。')).text == '我有两个苹果。'\n"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert answer.returncode == 0, answer.stderr
