"""Samples become bytes: exact where the format is, saturated, readable by others, and the same for every cutting."""

import io
import shutil
import subprocess
import wave
from typing import get_args

import numpy as np
import pytest
import soundfile

from serve_app.api.encoders import Encoder, encoded_rate_hz, encoder_for, to_pcm16
from serve_app.api.resample import Resampler
from serve_app.api.schema import AudioFormat
from serve_app.messages import Float32Array
from tests.fakes import tone

FORMATS: tuple[AudioFormat, ...] = get_args(AudioFormat)
RATES = (8000, 16000, 22050, 24000, 44100, 48000)


def encoded(encoder: Encoder, samples: Float32Array, cut: int) -> bytes:
    parts = [encoder.encode(samples[start : start + cut]) for start in range(0, len(samples), cut)]
    return b"".join([encoder.begin(), *parts, encoder.flush()])


def decoded(data: bytes, rate_hz: int) -> Float32Array:
    """By ffmpeg's program, as mono samples; its log must hold no complaint but the one about a WAV without length."""
    assert shutil.which("ffmpeg"), "ffmpeg is needed (apt-get install ffmpeg)"
    command = ["ffmpeg", "-v", "error", "-i", "-", "-f", "f32le", "-ac", "1", "-ar", str(rate_hz), "-"]
    run = subprocess.run(command, input=data, capture_output=True, check=True)
    assert not run.stderr
    return np.frombuffer(run.stdout, np.float32)


def test_pcm_saturates_instead_of_wrapping() -> None:
    samples = np.array([0.0, 1.0, -1.0, 1.5, -1.5, 1e9, -1e9, 0.5], np.float32)
    values = np.frombuffer(to_pcm16(samples), "<i2")
    assert values.tolist() == [0, 32767, -32768, 32767, -32768, 32767, -32768, 16384]


@pytest.mark.parametrize("audio_format", FORMATS)
def test_overload_saturates_in_every_format(audio_format: AudioFormat) -> None:
    """A sine at six times full scale comes back as a square wave, not as noise that wrapped around."""
    loud = tone(24_000, hz=100, level=6.0)
    data = encoded(encoder_for(audio_format, 24_000), loud, 4_800)
    samples = np.frombuffer(data, "<i2") / 32768 if audio_format == "pcm" else decoded(data, 24_000)
    spectrum = np.abs(np.fft.rfft(samples[4_000:16_000]))
    in_tune = spectrum[::50].sum()  # bins of 2 Hz: 0, 100, 200 ... Hz
    assert in_tune > 0.8 * spectrum.sum()


def test_wav_header_is_canonical_and_readable_whole() -> None:
    samples = tone(5_000)
    data = encoded(encoder_for("wav", 24_000), samples, 777)
    assert len(data) == 44 + 2 * 5_000
    assert data[4:8] == data[40:44] == b"\xff\xff\xff\xff"
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 24_000)
        assert file.readframes(10_000) == to_pcm16(samples)


@pytest.mark.parametrize("rate_hz", [24_000, 22_050])
@pytest.mark.parametrize("audio_format", FORMATS)
def test_bytes_do_not_depend_on_the_cutting(audio_format: AudioFormat, rate_hz: int) -> None:
    samples = tone(9_000)
    whole = encoded(encoder_for(audio_format, rate_hz), samples, len(samples))
    for cut in (331, 4_800):
        assert encoded(encoder_for(audio_format, rate_hz), samples, cut) == whole


EXCESS_MS = {"mp3": 50.0, "aac": 50.0}
"""The codec's delay and the filling of its last frame, which these two formats cannot tell of. The others are exact."""


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("audio_format", [f for f in FORMATS if f != "pcm"])
def test_duration_is_right_however_many_samples_there_are(audio_format: AudioFormat, rate_hz: int) -> None:
    rate = encoded_rate_hz(audio_format, rate_hz)
    for num_samples in (5_000, 12_345, 24_000, 24_123, 30_001, 40_321):
        samples = decoded(encoded(encoder_for(audio_format, rate_hz), tone(num_samples), 2_400), rate)
        excess_ms = 1000 * (len(samples) / rate - num_samples / 24_000)
        assert -0.1 < excess_ms < EXCESS_MS.get(audio_format, 0.1), num_samples


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("audio_format", [f for f in FORMATS if f != "pcm"])
def test_pitch_and_level_of_what_ffmpeg_decodes(audio_format: AudioFormat, rate_hz: int) -> None:
    rate = encoded_rate_hz(audio_format, rate_hz)
    data = encoded(encoder_for(audio_format, rate_hz), tone(24_123, hz=440), 2_400)
    samples = decoded(data, rate)
    middle = samples[rate // 4 : rate // 4 + rate // 2]
    assert np.argmax(np.abs(np.fft.rfft(middle))) * 2 == 440
    assert 0.9 < np.sqrt(2 * np.mean(middle**2)) / 0.5 < 1.1


@pytest.mark.parametrize("audio_format", ["flac", "wav"])
def test_lossless_formats_are_exact(audio_format: AudioFormat) -> None:
    samples = tone(10_000)
    data = encoded(encoder_for(audio_format, 24_000), samples, 999)
    read, rate = soundfile.read(io.BytesIO(data), dtype="int16")
    assert rate == 24_000
    assert read.astype("<i2").tobytes() == to_pcm16(samples)


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "flac", "wav"])
def test_libsndfile_reads_it(audio_format: AudioFormat) -> None:
    read, rate = soundfile.read(io.BytesIO(encoded(encoder_for(audio_format, 24_000), tone(24_000), 4_800)))
    assert rate == 24_000
    assert abs(len(read) / rate - 1.0) < 0.05


@pytest.mark.parametrize("audio_format", ["mp3", "opus", "aac", "wav", "pcm"])
def test_sound_leaves_with_the_first_chunk(audio_format: AudioFormat) -> None:
    """Of 480 ms of sound at least half is in the bytes at once: no encoder hoards."""
    encoder = encoder_for(audio_format, 24_000)
    first = encoder.begin() + encoder.encode(tone(11_520))
    if audio_format == "pcm":
        assert len(first) == 2 * 11_520
    else:
        assert len(decoded(first, 24_000)) > 11_520 / 2


@pytest.mark.parametrize("rate_hz", [8000, 22050, 48000])
def test_resampling_streamed_is_resampling_whole(rate_hz: int) -> None:
    samples = tone(10_000)

    def resampled(cut: int) -> Float32Array:
        resampler = Resampler(24_000, rate_hz)
        parts = [resampler.resample(samples[start : start + cut]) for start in range(0, len(samples), cut)]
        return np.concatenate([*parts, resampler.flush()])

    whole = resampled(len(samples))
    assert abs(len(whole) - 10_000 * rate_hz / 24_000) <= 1
    for cut in (1, 777, 4_800):
        np.testing.assert_allclose(resampled(cut), whole, atol=1e-6)


def test_streams_of_equal_samples_are_equal_bytes() -> None:
    """Nothing random goes into a file: an answer and its repetition can be compared."""
    for audio_format in FORMATS:
        files = {encoded(encoder_for(audio_format, 24_000), tone(5_000), 5_000) for _ in range(2)}
        assert len(files) == 1
