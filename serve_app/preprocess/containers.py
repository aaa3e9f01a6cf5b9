"""Which kind of audio file some bytes are, and whether a WAV's header is to be believed."""

import re
import struct

from serve_app.errors import AudioTooShort, InvalidAudio

MIN_RATE_HZ, MAX_RATE_HZ = 8_000, 192_000
_MAX_CHANNELS = 2

_NOT_AUDIO = "The reference clip is not an audio file that can be read; send WAV, FLAC, OGG, MP3 or M4A."
BROKEN = "The reference clip is damaged and cannot be decoded."

_SIGNATURES: tuple[tuple[bytes, str, bool], ...] = (
    # first bytes (a dot is any byte), FFmpeg's demuxer, whether libsndfile is asked first
    (rb"RIFF....WAVE", "wav", True),
    (rb"(RF64|RIFX)....WAVE", "wav", True),
    (rb"riff\x2e\x91\xcf\x11", "w64", True),
    (rb"fLaC", "flac", True),
    (rb"OggS", "ogg", True),
    (rb"FORM....AIF[FC]", "aiff", True),
    (rb"\.snd", "au", True),
    (rb"caff", "caf", False),
    (rb"ID3", "mp3", True),
    (rb"\xff[\xf0\xf1\xf8\xf9]", "aac", False),
    (rb"\xff[\xe2-\xff]", "mp3", True),
    (rb"....ftyp", "mov", False),
    (rb"....(moov|mdat|wide|free|skip)", "mov", False),
    (rb"\x1a\x45\xdf\xa3", "matroska", False),
    (rb"#!AMR", "amr", False),
    (rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "asf", False),
    (rb"wvpk", "wv", False),
)
_ID3 = re.compile(rb"ID3[\x02-\x04][\x00-\x7f][\x00-\xff]([\x00-\x7f]{4})", re.DOTALL)
_COMPRESSED_MOVIE_HEADER = re.compile(rb"moov....cmov", re.DOTALL)
"""A QuickTime header that names its own unpacked size; FFmpeg believes it. No phone or recorder writes one."""


def without_leading_tags(data: bytes) -> bytes:
    """The file from its sound on: ID3v2 tags, which may unpack to anything (268 MB from 260 KB), are never parsed."""
    start = 0
    while found := _ID3.match(data, start):
        size = sum(byte << shift for byte, shift in zip(found[1], (21, 14, 7, 0), strict=True))
        start = min(len(data), start + 10 + size)
    return data[start:]


def with_blank_tags(data: bytes) -> bytes:
    """The same bytes without the marks of ID3v2 tags inside them, which FFmpeg's demuxers would look for."""
    return _ID3.sub(lambda tag: bytes(3) + tag.group()[3:], data)


def recognise(data: bytes) -> tuple[str, bool]:
    """FFmpeg's demuxer for a file, and whether libsndfile is asked first. Raises InvalidAudio for anything unknown."""
    for pattern, demuxer, by_libsndfile in _SIGNATURES:
        if re.match(pattern, data, re.DOTALL):
            if demuxer == "mov" and _COMPRESSED_MOVIE_HEADER.search(data):
                break
            return demuxer, by_libsndfile
    raise InvalidAudio(_NOT_AUDIO)


def check_wav_header(data: bytes) -> None:
    """Refuses a WAV that is cut short or lies: decoders would quietly return what there is.

    A data size of 0, 0x7ffff000 or more is a recorder or a stream that never knew it; the file's end decides then.
    """
    if data[:4] != b"RIFF":
        return
    position, format_seen = 12, False
    while position + 8 <= len(data):
        name, size = data[position : position + 4], struct.unpack_from("<I", data, position + 4)[0]
        if name == b"fmt " and position + 24 <= len(data):
            format_seen = True
            channels, rate_hz = struct.unpack_from("<HI", data, position + 10)
            check_format(rate_hz, channels)
        if name == b"data":
            there = len(data) - position - 8
            if there == 0:
                raise AudioTooShort("The reference clip holds no sound.")
            # One missing byte is a writer that forgot the pad of an odd chunk.
            if size < 0x7FFFF000 and there < size - 1:
                raise InvalidAudio(
                    f"The reference clip is cut short: {there} of the {size} bytes of sound it announces."
                )
            if not format_seen:
                break
            return
        position += 8 + size + size % 2
    raise InvalidAudio(BROKEN)


def check_format(rate_hz: int, num_channels: int) -> None:
    """Raises InvalidAudio unless it is 8-192 kHz, mono or stereo."""
    if not 1 <= num_channels <= _MAX_CHANNELS:
        raise InvalidAudio(f"The reference clip has {num_channels} channels; send mono or stereo.")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise InvalidAudio(f"The reference clip has a sample rate of {rate_hz} Hz; 8000 to 192000 Hz are accepted.")
