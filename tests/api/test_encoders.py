"""Samples become bytes: exact, saturated, and the same for every cutting."""

import io
import wave

import numpy as np
import pytest

from serve_app.api.encoders import Encoder, PcmEncoder, WavEncoder, to_pcm16
from tests.fakes import tone


def encoded(encoder: Encoder, samples: np.ndarray, cut: int) -> bytes:
    parts = [encoder.encode(samples[start : start + cut]) for start in range(0, len(samples), cut)]
    return b"".join([encoder.begin(), *parts, encoder.flush()])


def test_pcm_saturates_instead_of_wrapping() -> None:
    samples = np.array([0.0, 1.0, -1.0, 1.5, -1.5, 1e9, -1e9, 0.5], np.float32)
    values = np.frombuffer(to_pcm16(samples), "<i2")
    assert values.tolist() == [0, 32767, -32768, 32767, -32768, 32767, -32768, 16384]


def test_wav_header_is_canonical_and_readable_whole() -> None:
    samples = tone(5_000)
    data = encoded(WavEncoder(24_000), samples, 777)
    assert len(data) == 44 + 2 * 5_000
    assert data[4:8] == data[40:44] == b"\xff\xff\xff\xff"
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.readframes(10_000) == to_pcm16(samples)


@pytest.mark.parametrize("cut", [1, 999, 5_000])
def test_bytes_do_not_depend_on_the_cutting(cut: int) -> None:
    samples = tone(5_000)
    assert encoded(PcmEncoder(), samples, cut) == to_pcm16(samples)
