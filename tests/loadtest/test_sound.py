"""Headers, and the first audible window, on bytes made by hand."""

import io
import struct
import wave

import numpy as np
import pytest

from serve_app.loadtest.faults import BadAudio
from serve_app.loadtest.measures import measure
from serve_app.loadtest.playback import BodyEvent
from serve_app.loadtest.sound import SampleFormat, SoundSpan, first_audible_frame, locate_pcm, locate_wav

S16 = SampleFormat(24_000)
WINDOW = 480


def wav(
    sound: bytes, data_size: int | None = None, rate_hz: int = 24_000, extra: bytes = b"", tail: bytes = b""
) -> bytes:
    size = len(sound) if data_size is None else data_size
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate_hz, 2 * rate_hz, 2, 16)
    return b"RIFF\xff\xff\xff\xffWAVE" + head + extra + struct.pack("<4sI", b"data", size) + sound + tail


def level(dbfs: float, num_samples: int) -> bytes:
    """A square wave whose RMS is `dbfs`."""
    value = 32768 * 10 ** (dbfs / 20)
    return (np.where(np.arange(num_samples) % 2, value, -value)).astype("<i2").tobytes()


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
def test_a_streamed_wav_goes_to_the_end(size: int) -> None:
    body = wav(b"abcdef", size)
    assert locate_wav(body) == SoundSpan(S16, 44, 50)


def test_other_chunks_are_no_sound() -> None:
    listing = struct.pack("<4sI", b"LIST", 3) + b"xyz\0"
    assert locate_wav(wav(b"abcdef", extra=listing, tail=listing)) == SoundSpan(S16, 56, 62)


def test_a_file_written_by_python_is_found_whole() -> None:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((2, 2, 8000, 0, "NONE", ""))
        out.writeframes(b"abcdefgh")
    span = locate_wav(file.getvalue())
    assert span.format == SampleFormat(8000, 2)
    assert file.getvalue()[span.start_byte : span.end_byte] == b"abcdefgh"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "no RIFF"),
        (b'{"error": "x"}', "no RIFF"),
        (wav(b""), "no sound"),
        (wav(b"abc"), "no whole number"),
        (wav(b"ab", data_size=4), "promised 4 bytes of sound and held 2"),
        (wav(b"ab")[:36], "without data"),
        (wav(b"ab" + wav(b"cd", 0), 0), "second wav header"),
        (wav(b"ab").replace(b"fmt ", b"junk"), "before its format"),
        (wav(b"ab", rate_hz=0), "at 0 Hz"),
    ],
)
def test_what_is_no_wav_is_said(body: bytes, message: str) -> None:
    with pytest.raises(BadAudio, match=message):
        locate_wav(body)


@pytest.mark.parametrize(
    ("body", "message"), [(b"", "no sound"), (b"abc", "no whole"), (wav(b"ab"), "got wav"), (b"ID3\4ab", "got mp3")]
)
def test_what_is_no_pcm_is_said(body: bytes, message: str) -> None:
    with pytest.raises(BadAudio, match=message):
        locate_pcm(body, 24_000)


def test_the_first_window_above_the_threshold_is_found() -> None:
    sound = bytes(2 * 3 * WINDOW) + level(-46, 2 * WINDOW) + level(-44, WINDOW)
    assert first_audible_frame(sound, S16) == 5 * WINDOW
    assert first_audible_frame(sound[: -2 * WINDOW], S16) is None


def test_sound_beyond_the_first_second_is_found() -> None:
    assert first_audible_frame(bytes(2 * 60 * WINDOW) + level(-20, WINDOW), S16) == 60 * WINDOW


def test_one_click_does_not_make_a_window_audible() -> None:
    click = bytearray(2 * WINDOW)
    click[:2] = struct.pack("<h", 3000)
    assert first_audible_frame(bytes(click), S16) is None


def test_a_frame_counts_once_for_all_channels() -> None:
    stereo = SampleFormat(24_000, 2)
    assert first_audible_frame(bytes(4 * WINDOW) + level(-20, 2 * WINDOW), stereo) == WINDOW


def test_float_samples_have_their_own_full_scale() -> None:
    quiet = np.full(WINDOW, 0.005, "<f4")
    loud = np.full(WINDOW, 0.006, "<f4")
    assert first_audible_frame(np.concatenate([quiet, loud]).tobytes(), SampleFormat(24_000, 1, 4, True)) == WINDOW


def test_figures_of_a_hand_made_stream() -> None:
    # header at 0.1; 0.2 s of silence and 0.1 s of sound at 0.3; 0.1 s more at 0.8; the end at 0.9
    silence, sound = bytes(2 * 4800), level(-20, 2400)
    body = wav(silence + sound + sound, 0xFFFFFFFF)
    cut = 44 + len(silence) + len(sound)
    events = [BodyEvent(0.1, body[:44]), BodyEvent(0.3, body[44:cut]), BodyEvent(0.8, body[cut:])]
    figures = measure(events, 0.9, "wav", 0)
    assert figures.ttfb_s == 0.1
    assert figures.ttfp_s == 0.3
    assert figures.audible_ttfa_s == pytest.approx(0.5)  # 0.2 s into what began to play at 0.3
    assert figures.e2e_s == 0.9
    assert figures.audio_s == pytest.approx(0.4)
    assert figures.rtf == pytest.approx(2.25)
    assert [player.num_underruns for player in figures.players] == [1, 1, 1]
    assert [player.stall_s for player in figures.players] == pytest.approx([0.2, 0.2, 0.2])


def test_pcm_is_measured_at_its_stated_rate_and_silence_has_no_audible_time() -> None:
    figures = measure([BodyEvent(0.2, bytes(16_000))], 0.2, "pcm", 8000)
    assert (figures.audio_s, figures.audible_ttfa_s) == (1.0, None)
