"""Sounds made for tests: something voiced like speech, and the containers to send it in."""

import io

import av
import numpy as np
import soundfile

from serve_app.messages import Float32Array


def speech_like(seconds: float, rate_hz: int = 24_000, seed: int = 0, pitch_hz: float = 120.0) -> Float32Array:
    """Syllables of a pulse train through moving formants: float32 [S], peak 0.5, nothing above 4 kHz worth naming."""
    rng = np.random.default_rng(seed)
    num = round(seconds * rate_hz)
    t = np.arange(num) / rate_hz
    pitch = pitch_hz * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * t + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(pitch) / rate_hz
    knots = np.arange(0, seconds + 0.5, 0.2)
    formants = [
        np.interp(t, knots, rng.uniform(lo, hi, len(knots))) for lo, hi in ((300, 800), (900, 2200), (2300, 3000))
    ]
    sound = np.zeros(num)
    for harmonic in range(1, int(3800 / (pitch_hz * 1.1)) + 1):
        frequency = harmonic * pitch
        gain = sum(np.exp(-(((frequency - f) / 120.0) ** 2)) for f in formants) + 0.02
        sound += gain * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 2.2 * t) + 0.6, 0, 1)
    sound *= syllables
    return np.asarray(0.5 * sound / max(1e-9, np.abs(sound).max()), dtype=np.float32)


def encoded(samples: Float32Array, rate_hz: int, file_format: str = "WAV", subtype: str | None = None) -> bytes:
    """`samples` ([S] or [S, C]) as a file that libsndfile writes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=file_format, subtype=subtype)
    return buffer.getvalue()


def encoded_by_ffmpeg(samples: Float32Array, rate_hz: int, muxer: str, codec: str) -> bytes:
    """Mono `samples` [S] as a file that FFmpeg's libraries write."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.layout = "mono"
        pcm = (np.clip(samples, -1, 1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(pcm[None, :], format="s16", layout="mono")
        frame.sample_rate = rate_hz
        for packet in stream.encode(frame):
            container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return buffer.getvalue()
