"""Samples to the bytes of each response format: `begin()`, then `encode(samples)` per chunk, then `flush()`."""

import struct
from typing import Protocol

import numpy as np

from serve_app.messages import Float32Array


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
