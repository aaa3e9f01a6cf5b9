"""What users upload: good clips in every container, and files that are broken or lie."""

import io
import struct
import time
import tracemalloc
import wave
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
import soundfile

from serve_app.errors import AudioTooLong, AudioTooShort, InvalidAudio
from serve_app.messages import Float32Array
from serve_app.preprocess.reference_audio import Clip, decode
from tests.preprocess.bombs import (
    matroska_with_packed_track,
    mp3_with_packed_tag,
    tagged_mp3,
    wav_with_packed_tag,
)
from tests.preprocess.sounds import encoded, encoded_by_ffmpeg, speech_like

SNDFILE_KINDS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "PCM_24"),
    ("WAV", "PCM_32"),
    ("WAV", "FLOAT"),
    ("WAV", "DOUBLE"),
    ("WAV", "ULAW"),
    ("WAV", "MS_ADPCM"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("W64", "PCM_16"),
    ("RF64", "PCM_16"),
]
FFMPEG_KINDS = [
    ("ipod", "aac"),
    ("mp4", "alac"),
    ("mov", "aac"),
    ("adts", "aac"),
    ("webm", "libopus"),
    ("matroska", "libopus"),
    ("wv", "wavpack"),
]


def assert_same_sound(clip: Clip, original: Float32Array, rate_hz: int) -> None:
    """Lossy or not, shifted by an encoder's delay or not: the spectra over time agree."""
    assert clip.samples.dtype == np.float32
    assert clip.samples.ndim == 1
    assert abs(clip.duration_s - len(original) / rate_hz) < 0.12
    ours, theirs = (np.abs(np.fft.rfft(x, 1 << 18)) for x in (clip.resampled(rate_hz).samples, original))
    smooth = np.ones(50) / 50
    ours, theirs = np.convolve(ours, smooth), np.convolve(theirs, smooth)
    assert float(ours @ theirs / np.sqrt((ours @ ours) * (theirs @ theirs))) > 0.97


@pytest.mark.parametrize(("file_format", "subtype"), SNDFILE_KINDS)
def test_what_libsndfile_writes_is_read(file_format: str, subtype: str) -> None:
    original = speech_like(1.5, 24_000)
    clip = decode(encoded(original, 24_000, file_format, subtype))
    assert clip.sample_rate_hz in (24_000, 48_000)
    assert_same_sound(clip, original, 24_000)


@pytest.mark.parametrize(("muxer", "codec"), FFMPEG_KINDS)
def test_what_ffmpeg_writes_is_read(muxer: str, codec: str) -> None:
    rate_hz = 48_000 if codec == "libopus" else 24_000
    original = speech_like(1.5, rate_hz)
    clip = decode(encoded_by_ffmpeg(original, rate_hz, muxer, codec))
    assert clip.sample_rate_hz == rate_hz
    assert_same_sound(clip, original, rate_hz)


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 96_000, 192_000])
def test_rates_from_8_to_192_khz(rate_hz: int) -> None:
    clip = decode(encoded(speech_like(1.0, rate_hz), rate_hz))
    assert clip.sample_rate_hz == rate_hz
    assert len(clip.resampled(16_000).samples) == pytest.approx(16_000, abs=2)


def test_stereo_is_averaged() -> None:
    left, right = speech_like(1.0, seed=1), speech_like(1.0, seed=2)
    clip = decode(encoded(np.stack([left, right], axis=1), 24_000, subtype="FLOAT"))
    assert np.allclose(clip.samples, (left + right) / 2, atol=1e-7)


def test_channels_that_cancel_each_other_do_not_give_silence() -> None:
    left = speech_like(1.0)
    clip = decode(encoded(np.stack([left, -left], axis=1), 24_000, subtype="FLOAT"))
    assert np.abs(clip.samples).max() == pytest.approx(0.5, abs=0.01)


def test_float_samples_beyond_full_scale_are_scaled_back() -> None:
    clip = decode(encoded(speech_like(1.0) * np.float32(32768), 24_000, subtype="FLOAT"))
    assert np.abs(clip.samples).max() == pytest.approx(1.0)


def test_a_wav_that_was_streamed_is_read_to_its_end() -> None:
    original = speech_like(1.0)
    for size in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00"):
        data = bytearray(encoded(original, 24_000))
        data[4:8] = data[40:44] = size
        assert_same_sound(decode(bytes(data)), original, 24_000)


def test_length_limits() -> None:
    with pytest.raises(AudioTooShort, match=r"0\.40 s; at least 0\.5 s"):
        decode(encoded(speech_like(0.4), 24_000))
    with pytest.raises(AudioTooLong, match="longer than 30 s"):
        decode(encoded(np.full(24_000 * 31, 0.1, np.float32), 24_000))
    clip = decode(encoded(np.full(8_000 * 30 + 500, 0.1, np.float32), 8_000))
    assert clip.duration_s == 30.0
    assert decode(encoded(speech_like(0.4), 24_000), min_s=0.3).duration_s == pytest.approx(0.4)


def wav_header(
    channels: int = 1, rate_hz: int = 24_000, bits: int = 16, data_size: int = 48_000, wave_format: int = 1
) -> bytes:
    align = channels * bits // 8 & 0xFFFF
    fmt = struct.pack("<HHIIHH", wave_format, channels, rate_hz, (rate_hz * align) & 0xFFFFFFFF, align, bits)
    return (
        b"RIFF"
        + struct.pack("<I", 36 + data_size)
        + b"WAVEfmt \x10\0\0\0"
        + fmt
        + b"data"
        + struct.pack("<I", data_size)
    )


def compressed_movie_header(unpacked: int) -> bytes:
    """A QuickTime file whose header is a zlib bomb: FFmpeg would unpack it to the size that it names."""
    packed = zlib.compress(bytes(unpacked), 9)
    cmvd = struct.pack(">I4sI", 12 + len(packed), b"cmvd", unpacked) + packed
    cmov = struct.pack(">I4s", 8 + 12 + len(cmvd), b"cmov") + struct.pack(">I4s4s", 12, b"dcom", b"zlib") + cmvd
    return struct.pack(">I4s4sI", 16, b"ftyp", b"qt  ", 0) + struct.pack(">I4s", 8 + len(cmov), b"moov") + cmov


def flac_claiming(seconds: float) -> bytes:
    """A one-second FLAC whose STREAMINFO claims `seconds`."""
    data = bytearray(encoded(speech_like(1.0), 24_000, "FLAC"))
    field = int.from_bytes(data[18:26], "big")
    data[18:26] = ((field >> 36 << 36) | int(seconds * 24_000)).to_bytes(8, "big")
    return bytes(data)


def bad_files() -> Iterator[tuple[str, bytes, type[InvalidAudio]]]:
    """Name, bytes, and the error that each must give."""
    sound = speech_like(1.0)
    pcm = (sound * 32767).astype("<i2").tobytes()
    whole = encoded(sound, 24_000)
    m4a = encoded_by_ffmpeg(sound, 24_000, "ipod", "aac")
    nan, inf = sound.copy(), sound.copy()
    nan[500], inf[700] = np.nan, -np.inf
    yield "no bytes", b"", InvalidAudio
    yield "text", b"hello, this is not audio at all" * 10, InvalidAudio
    yield "random bytes", np.random.default_rng(0).bytes(50_000), InvalidAudio
    yield "zeros", bytes(100_000), InvalidAudio
    yield "wav cut in the header", whole[:30], InvalidAudio
    yield "wav without samples", whole[:44], AudioTooShort
    yield "wav cut in the sound", whole[: len(whole) // 2], InvalidAudio
    yield "wav claiming an hour", wav_header(data_size=2 * 24_000 * 3600) + pcm, InvalidAudio
    yield "wav with 0 channels", wav_header(channels=0) + pcm, InvalidAudio
    yield "wav with 6 channels", wav_header(channels=6) + pcm, InvalidAudio
    yield "wav with 65535 channels", wav_header(channels=65535) + pcm, InvalidAudio
    yield "wav at 0 Hz", wav_header(rate_hz=0) + pcm, InvalidAudio
    yield "wav at 4 kHz", wav_header(rate_hz=4000) + pcm, InvalidAudio
    yield "wav at 768 kHz", wav_header(rate_hz=768_000) + pcm, InvalidAudio
    yield "wav of unknown coding", wav_header(wave_format=0x4242) + pcm, InvalidAudio
    yield "wav of 0 bits", wav_header(bits=0) + pcm, InvalidAudio
    yield "wav whose chunks run away", whole[:12] + b"junk\xff\xff\xff\x7f" + whole[12:], InvalidAudio
    yield "NaN", encoded(nan, 24_000, subtype="FLOAT"), InvalidAudio
    yield "infinity", encoded(inf, 24_000, subtype="DOUBLE"), InvalidAudio
    yield "silence", encoded(np.zeros(24_000, np.float32), 24_000), InvalidAudio
    yield "flac claiming an hour", flac_claiming(3600), AudioTooLong
    yield "flac claiming 20 s", flac_claiming(20), InvalidAudio
    yield "flac cut", encoded(sound, 24_000, "FLAC")[:9000], InvalidAudio
    yield "ogg cut", encoded(sound, 24_000, "OGG", "VORBIS")[:2000], InvalidAudio
    yield "m4a cut", m4a[: len(m4a) // 2], InvalidAudio
    yield "m4a header alone", m4a[:28], InvalidAudio
    yield "playlist", b"#EXTM3U\n#EXTINF:5,\nhttp://127.0.0.1:9/a.wav\n#EXT-X-ENDLIST\n", InvalidAudio
    yield "concat list", b"ffconcat version 1.0\nfile /etc/hostname\n", InvalidAudio
    yield "pls", b"[playlist]\nFile1=file:///etc/hostname\n", InvalidAudio
    yield "sdp", b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=audio 9 RTP/AVP 0\r\n", InvalidAudio
    yield "dash manifest", b"<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011'></MPD>", InvalidAudio
    yield "zip", b"PK\x03\x04" + bytes(200), InvalidAudio
    yield "png", b"\x89PNG\r\n\x1a\n" + bytes(200), InvalidAudio
    yield "unpacking movie header", compressed_movie_header(200_000_000), InvalidAudio
    # An hour of silence packs well: the file is small, the sound is not.
    yield "flac bomb", encoded(np.zeros(8_000 * 1800, np.int16), 8_000, "FLAC"), AudioTooLong
    yield "u8 bomb", wav_header(bits=8, rate_hz=8000, data_size=8_000_000) + bytes(8_000_000), AudioTooLong
    yield "mp3 with packed tags", mp3_with_packed_tag(20), InvalidAudio
    yield "wav with a packed tag", wav_with_packed_tag(), InvalidAudio
    yield "matroska with a packed track", matroska_with_packed_track(300), InvalidAudio


BAD_FILES = list(bad_files())


@pytest.mark.parametrize(("data", "error"), [(d, e) for _, d, e in BAD_FILES], ids=[name for name, _, _ in BAD_FILES])
def test_bad_files_get_one_clear_error_soon(data: bytes, error: type[InvalidAudio]) -> None:
    started = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(InvalidAudio) as caught:
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert type(caught.value) is error
    assert caught.value.message.startswith("The reference clip")
    assert caught.value.message.endswith(".")
    assert time.perf_counter() - started < 2.0
    assert peak < 64 * 2**20 + 2 * len(data)


def test_a_tag_is_passed_over_unread() -> None:
    tagged, unpacked = tagged_mp3(), matroska_with_packed_track(0)
    started = time.process_time()
    assert decode(tagged).duration_s == pytest.approx(1.0, abs=0.1)
    assert decode(unpacked).duration_s == pytest.approx(1.0)
    assert time.process_time() - started < 0.5


def test_mutated_files_never_raise_anything_else(capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(7)
    sound = speech_like(0.6)
    originals = [encoded(sound, 24_000, kind) for kind in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "RF64")]
    originals += [encoded_by_ffmpeg(sound, 24_000, muxer, "aac") for muxer in ("ipod", "adts")]
    outcomes = {"read": 0, "refused": 0}
    for original in originals:
        for _ in range(40):
            data = bytearray(original)
            for position in rng.integers(0, rng.choice([64, 400, len(data)]), size=4):
                data[position] = rng.choice([0, 1, 127, 128, 255])
            try:
                clip = decode(bytes(data))
            except InvalidAudio:
                outcomes["refused"] += 1
            else:
                outcomes["read"] += 1
                assert np.isfinite(clip.samples).all()
    assert min(outcomes.values()) > 30, outcomes
    assert "Traceback" not in capfd.readouterr().err


def test_what_pythons_own_wave_module_writes_is_read() -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(16_000)
        writer.writeframes((speech_like(1.0, 16_000) * 32767).astype("<i2").tobytes())
    assert decode(buffer.getvalue()).duration_s == 1.0
    assert soundfile.info(io.BytesIO(buffer.getvalue())).frames == 16_000
