"""Samples to the bytes of each response format: `begin()`, then `encode(samples)` per chunk, then `flush()`."""

import struct
from typing import Protocol

import numpy as np

from serve_app.api.codecs import AAC, FLAC, MP3, OPUS, CodecEncoder, WholeFileEncoder
from serve_app.api.resample import Resampler
from serve_app.api.schema import AudioFormat
from serve_app.messages import SAMPLE_RATE_HZ, Float32Array

OTHER_RATES_HZ: dict[AudioFormat, dict[int, int]] = {
    "mp3": {8_000: 24_000, 16_000: 24_000},
    "aac": {8_000: 48_000, 16_000: 48_000, 22_050: 44_100, 24_000: 48_000},
    "opus": {22_050: 24_000, 44_100: 48_000},
}
"""Rates at which a format is made at another. A stream of MP3 or ADTS cannot say that its first frame is the codec's
delay and how full its last one is: at these rates that would be more than 50 ms. Opus knows only divisors of 48 kHz."""


class Encoder(Protocol):
    """One stream of one format. The three results, joined in order, are the whole file."""

    def begin(self) -> bytes:
        """What goes before any audio."""
        ...

    def encode(self, samples: Float32Array) -> bytes:
        """samples: float32 [S], finite, nominally -1..1. May return nothing yet, where a format has frames."""
        ...

    def flush(self) -> bytes:
        """The rest; called once, at the end."""
        ...


def encoder_for(audio_format: AudioFormat, sample_rate_hz: int) -> Encoder:
    """A fresh encoder of samples at SAMPLE_RATE_HZ to a file at `encoded_rate_hz(audio_format, sample_rate_hz)`."""
    rate = encoded_rate_hz(audio_format, sample_rate_hz)
    encoder = _encoder_at(audio_format, rate)
    return encoder if rate == SAMPLE_RATE_HZ else ResampledEncoder(encoder, rate)


def encoded_rate_hz(audio_format: AudioFormat, sample_rate_hz: int) -> int:
    """The rate a client gets when it asks for `sample_rate_hz`."""
    return OTHER_RATES_HZ.get(audio_format, {}).get(sample_rate_hz, sample_rate_hz)


def content_type(audio_format: AudioFormat, rate_hz: int) -> str:
    """The media type of a body."""
    if audio_format == "pcm":
        return f"audio/pcm;rate={rate_hz};channels=1"
    return {"mp3": "audio/mpeg", "opus": "audio/ogg"}.get(audio_format, f"audio/{audio_format}")


def _encoder_at(audio_format: AudioFormat, rate_hz: int) -> Encoder:
    if audio_format == "pcm":
        return PcmEncoder()
    if audio_format == "wav":
        return WavEncoder(rate_hz)
    if audio_format == "flac":
        return WholeFileEncoder(FLAC, rate_hz)
    return CodecEncoder({"mp3": MP3, "opus": OPUS, "aac": AAC}[audio_format], rate_hz)


def to_pcm16(samples: Float32Array) -> bytes:
    """float32 [S] to 2S bytes of s16le: rounded, and saturated at full scale instead of wrapped."""
    scaled = np.rint(samples * np.float32(32768.0))
    data: bytes = np.clip(scaled, -32768, 32767).astype("<i2").tobytes()
    return data


class PcmEncoder:
    """Bare s16le, mono."""

    def begin(self) -> bytes:
        return b""

    def encode(self, samples: Float32Array) -> bytes:
        return to_pcm16(samples)

    def flush(self) -> bytes:
        return b""


class WavEncoder:
    """s16le behind one canonical header.

    Both sizes are 0xFFFFFFFF: measured to be the only pair that ffmpeg, sox, libsndfile, Python's wave, scipy, mpv and
    Chromium all play whole when the length is not known beforehand.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz

    def begin(self) -> bytes:
        rate = self.sample_rate_hz
        unknown = 0xFFFFFFFF
        riff = struct.pack("<4sI4s", b"RIFF", unknown, b"WAVE")
        fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
        return riff + fmt + struct.pack("<4sI", b"data", unknown)

    def encode(self, samples: Float32Array) -> bytes:
        return to_pcm16(samples)

    def flush(self) -> bytes:
        return b""


class ResampledEncoder:
    """Another encoder, at another rate than the models'."""

    def __init__(self, encoder: Encoder, rate_hz: int) -> None:
        self.encoder = encoder
        self.resampler = Resampler(SAMPLE_RATE_HZ, rate_hz)

    def begin(self) -> bytes:
        return self.encoder.begin()

    def encode(self, samples: Float32Array) -> bytes:
        return self.encoder.encode(self.resampler.resample(samples))

    def flush(self) -> bytes:
        return self.encoder.encode(self.resampler.flush()) + self.encoder.flush()
