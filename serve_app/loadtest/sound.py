"""Where the sound lies in a response body, and where in it one can first hear something."""

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.loadtest.faults import BadAudio

AUDIBLE_DBFS = -45.0
"""A window is audible when its RMS is above this; 0 dBFS is the RMS of a full-scale square wave."""
WINDOW_S = 0.020
PCM_TAG, FLOAT_TAG, EXTENSIBLE_TAG = 1, 3, 0xFFFE
UNKNOWN_SIZES = (0, 0xFFFFFFFF)
"""What streaming servers write as the size of a `data` chunk whose length they do not know yet."""
OTHER_FORMATS = {b"ID3": "mp3", b"OggS": "ogg", b"fLaC": "flac", b"RIFF": "wav"}
NUMPY_TYPES = {(2, False): ("<i2", 2.0**15), (4, False): ("<i4", 2.0**31), (4, True): ("<f4", 1.0)}
"""(bytes of a sample, is it a float) -> (numpy's name, the value of full scale)."""


@dataclass(frozen=True, slots=True)
class SampleFormat:
    """How samples lie in bytes. A frame is one sample of every channel."""

    sample_rate_hz: int
    num_channels: int = 1
    sample_bytes: int = 2
    is_float: bool = False

    @property
    def frame_bytes(self) -> int:
        return self.num_channels * self.sample_bytes


@dataclass(frozen=True, slots=True)
class SoundSpan:
    """The samples of a body: bytes `start_byte` up to `end_byte`."""

    format: SampleFormat
    start_byte: int
    end_byte: int


def locate_pcm(body: bytes, sample_rate_hz: int) -> SoundSpan:
    """The span of a body that is asked for as s16le mono. Errors: `BadAudio`."""
    for magic, name in OTHER_FORMATS.items():
        if body.startswith(magic):
            raise BadAudio(f"asked for pcm, got {name}")
    return _whole_frames(SoundSpan(SampleFormat(sample_rate_hz), 0, len(body)))


def locate_wav(body: bytes) -> SoundSpan:
    """The span of the samples in a RIFF/WAVE body, streamed (no known size) or not. Errors: `BadAudio`."""
    if body[:4] != b"RIFF" or body[8:12] != b"WAVE":
        raise BadAudio("asked for wav, got no RIFF/WAVE header")
    sample_format: SampleFormat | None = None
    position = 12
    while position + 8 <= len(body):
        name, size = struct.unpack_from("<4sI", body, position)
        position += 8
        if name == b"fmt ":
            sample_format = _sample_format(body[position : position + size])
        elif name == b"data":
            if sample_format is None:
                raise BadAudio("a wav whose data comes before its format")
            end = len(body) if size in UNKNOWN_SIZES else position + size
            if end > len(body):
                raise BadAudio(f"a wav that promised {size} bytes of sound and held {len(body) - position}")
            # players play the second header as samples: a click
            if body.find(b"WAVEfmt ", position, end) != -1:
                raise BadAudio("a second wav header inside the sound")
            return _whole_frames(SoundSpan(sample_format, position, end))
        position += size + size % 2
    raise BadAudio("a wav without data")


def first_audible_frame(sound: bytes, sample_format: SampleFormat) -> int | None:
    """First frame of the first window of `WINDOW_S` whose RMS over all channels exceeds `AUDIBLE_DBFS`; None: silence.

    Windows follow each other without overlap from the first sample; an incomplete last one is not looked at.
    """
    dtype, full_scale = NUMPY_TYPES[sample_format.sample_bytes, sample_format.is_float]
    window_frames = max(1, round(WINDOW_S * sample_format.sample_rate_hz))
    window_samples = window_frames * sample_format.num_channels
    block_samples = 50 * window_samples  # a second at a time: speech starts early, so the rest is never decoded
    threshold = (full_scale * 10 ** (AUDIBLE_DBFS / 20)) ** 2
    all_samples: NDArray[np.generic] = np.frombuffer(sound, dtype)
    for start in range(0, len(all_samples), block_samples):
        block = all_samples[start : start + block_samples].astype(np.float64)
        windows = block[: len(block) // window_samples * window_samples].reshape(-1, window_samples)
        loud = np.flatnonzero((windows**2).mean(axis=1) > threshold)
        if len(loud):
            return start // sample_format.num_channels + int(loud[0]) * window_frames
    return None


def _sample_format(chunk: bytes) -> SampleFormat:
    if len(chunk) < 16:
        raise BadAudio("a wav with a broken format chunk")
    tag, num_channels, sample_rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if tag == EXTENSIBLE_TAG and len(chunk) >= 26:
        (tag,) = struct.unpack_from("<H", chunk, 24)
    is_float = tag == FLOAT_TAG
    if (
        tag not in (PCM_TAG, FLOAT_TAG)
        or (bits // 8, is_float) not in NUMPY_TYPES
        or not (num_channels and sample_rate_hz)
    ):
        raise BadAudio(f"a wav of format {tag} with {num_channels} channels of {bits} bits at {sample_rate_hz} Hz")
    return SampleFormat(sample_rate_hz, num_channels, bits // 8, is_float)


def _whole_frames(span: SoundSpan) -> SoundSpan:
    num_bytes = span.end_byte - span.start_byte
    if num_bytes <= 0:
        raise BadAudio("no sound")
    if num_bytes % span.format.frame_bytes:
        raise BadAudio(f"{num_bytes} bytes of sound are no whole number of samples")
    return span
