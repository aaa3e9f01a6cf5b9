"""Clips spoiled the ways users spoil them, made from the built-in voices, and the word the report must say."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr

from serve_app.messages import Float32Array
from serve_app.preprocess.reference_audio import Clip, decode

VOICES = Path(__file__).resolve().parents[2] / "configs" / "voices"
RATE = 24_000


@dataclass(frozen=True)
class Spoiled:
    """clip and transcript as sent; word: what a fitting warning contains."""

    name: str
    clip: Clip
    transcript: str
    word: str


def voice(name: str) -> tuple[Float32Array, str]:
    import yaml

    card = yaml.safe_load((VOICES / f"{name}.yaml").read_text(encoding="utf-8"))
    return decode((VOICES / f"{name}.wav").read_bytes()).resampled(RATE).samples, str(card["transcript"])


def power(samples: Float32Array) -> float:
    """Mean square of what is not silence."""
    loud = samples[np.abs(samples) > 0.02]
    return float(np.square(loud, dtype=np.float64).mean())


def mixed(speech: Float32Array, other: Float32Array, snr_db: float) -> Float32Array:
    other = np.resize(other, len(speech)).astype(np.float64)
    gain = np.sqrt(power(speech) / 10 ** (snr_db / 10) / np.square(other).mean())
    both = speech + gain * other
    return np.asarray(both / max(1.0, np.abs(both).max()), dtype=np.float32)


def noise(kind: str, num: int, seed: int = 0) -> Float32Array:
    white = np.random.default_rng(seed).standard_normal(num)
    if kind == "white":
        return white.astype(np.float32)
    spectrum = np.fft.rfft(white)
    frequency = np.maximum(np.fft.rfftfreq(num, 1 / RATE), 20.0)
    slope = {"pink": 0.5, "brown": 1.0}[kind]
    return np.asarray(np.fft.irfft(spectrum / frequency**slope, num), dtype=np.float32)


def music(num: int, seed: int = 0) -> Float32Array:
    """Chords that change twice a second, each of decaying harmonics."""
    rng = np.random.default_rng(seed)
    t = np.arange(RATE // 2) / RATE
    parts = []
    for _ in range(-(-num // len(t))):
        root = 220 * 2 ** (rng.integers(0, 12) / 12)
        chord = sum(
            np.sin(2 * np.pi * root * ratio * harmonic * t) / harmonic * np.exp(-2 * t)
            for ratio in (1, 1.26, 1.5)
            for harmonic in (1, 2, 3, 4)
        )
        parts.append(chord)
    return np.asarray(np.concatenate(parts)[:num], dtype=np.float32)


def hum(num: int, hz: float) -> Float32Array:
    t = np.arange(num) / RATE
    return np.asarray(sum(np.sin(2 * np.pi * hz * h * t) / h for h in (1, 2, 3)), dtype=np.float32)


def clipped(samples: Float32Array, gain: float) -> Float32Array:
    return np.asarray(np.clip(samples * np.float32(gain), -1, 1), dtype=np.float32)


def spoiled() -> Iterator[Spoiled]:
    """Thirty of them."""
    names = ("clara", "helen", "martin", "nora", "victor")
    clips = {name: voice(name) for name in names}

    def of(
        name: str, samples: Float32Array, word: str, what: str, transcript: str | None = None, rate: int = RATE
    ) -> Spoiled:
        return Spoiled(what, Clip(samples, rate), clips[name][1] if transcript is None else transcript, word)

    for index, snr_db in enumerate((0, 3, 6, 10, 15)):
        speech = clips[names[index]][0]
        yield of(names[index], mixed(speech, noise("white", len(speech)), snr_db), "noise", f"white noise, {snr_db} dB")
    for name, kind, snr_db in (
        ("martin", "pink", 5),
        ("clara", "pink", 12),
        ("nora", "brown", 5),
        ("helen", "brown", 12),
    ):
        speech = clips[name][0]
        yield of(name, mixed(speech, noise(kind, len(speech)), snr_db), "noise", f"{kind} noise, {snr_db} dB")
    for name, gain in (("clara", 2.0), ("martin", 4.0), ("victor", 10.0)):
        yield of(name, clipped(clips[name][0], gain), "clipped", f"clipped, gain {gain:g}")
    for name, hz in (("helen", 50.0), ("nora", 60.0), ("victor", 50.0)):
        speech = clips[name][0]
        yield of(name, mixed(speech, hum(len(speech), hz), 12), "hum", f"hum of {hz:g} Hz")
    for name, rate in (("clara", 8_000), ("martin", 8_000), ("nora", 11_025)):
        narrow = np.asarray(soxr.resample(clips[name][0], RATE, rate), dtype=np.float32)
        yield of(name, narrow, "telephone", f"{rate} Hz", rate=rate)
    again = np.asarray(soxr.resample(soxr.resample(clips["helen"][0], RATE, 8_000), 8_000, RATE), dtype=np.float32)
    yield of("helen", again, "telephone", "8 kHz sold as 24 kHz")
    for name, before_s, after_s in (("clara", 6.0, 0.0), ("victor", 3.0, 5.0), ("helen", 0.0, 9.0)):
        parts = [np.zeros(int(before_s * RATE), np.float32), clips[name][0], np.zeros(int(after_s * RATE), np.float32)]
        yield of(name, np.concatenate(parts), "silence", f"silence, {before_s:g} s before and {after_s:g} s after")
    for name, snr_db in (("clara", 3), ("martin", 8), ("nora", 12)):
        speech = clips[name][0]
        yield of(name, mixed(speech, music(len(speech)), snr_db), "music", f"music, {snr_db} dB")
    for first, second in (("martin", "nora"), ("victor", "clara"), ("helen", "victor")):
        both = np.concatenate([clips[first][0], clips[second][0]])
        yield of(first, both, "second speaker", f"{first} and {second}", clips[first][1] + " " + clips[second][1])
    long_text = " ".join(text for _, text in clips.values())
    yield of("clara", clips["clara"][0], "transcript", "transcript five times too long", long_text)
    yield of(
        "martin", np.concatenate([clips["martin"][0]] * 3), "transcript", "transcript of two words", "Hello there."
    )
    yield of("nora", clips["nora"][0][: int(1.2 * RATE)], "only", "one second", "She put.")
