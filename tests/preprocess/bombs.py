"""Small files that unpack to much: packed metadata in an MP3 or WAV, a packed second track in Matroska."""

import struct
import zlib

from tests.preprocess.sounds import encoded, speech_like

_RATE_HZ = 24_000


def packed_tag(unpacked: int, num_frames: int = 1) -> bytes:
    """An ID3v2.4 tag of titles, each of which is zlib data of `unpacked` zeros."""
    packed = zlib.compress(bytes(unpacked), 9)
    payload = _seven_bits(unpacked) + packed
    compressed_with_length = b"\0\x09"
    frames = (b"TIT2" + _seven_bits(len(payload)) + compressed_with_length + payload) * num_frames
    return b"ID3\x04\0\0" + _seven_bits(len(frames)) + frames


def mp3_with_packed_tag(num_frames: int) -> bytes:
    """Frame headers that lead nowhere after the tag: libsndfile gives up, and FFmpeg would read the tag."""
    return packed_tag(268_000_000, num_frames) + b"\xff\xfb\x90\x64" + bytes(4000)


def wav_with_packed_tag() -> bytes:
    """A coding that libsndfile does not know, so that FFmpeg is asked, and a tag before the sound."""
    tag = packed_tag(268_000_000)
    form = struct.pack("<HHIIHH", 0x4242, 1, _RATE_HZ, 2 * _RATE_HZ, 2, 16)
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + b"ID3 " + struct.pack("<I", len(tag)) + tag
    chunks += bytes(len(tag) % 2) + b"data" + struct.pack("<I", 2 * _RATE_HZ) + bytes(2 * _RATE_HZ)
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def tagged_mp3() -> bytes:
    """A second of speech behind an ordinary tag with a bomb in it: what is heard is good."""
    return packed_tag(268_000_000) + encoded(speech_like(1.0), _RATE_HZ, "MP3")


def matroska_with_packed_track(num_blocks: int) -> bytes:
    """One second of PCM, and a second track whose every block of 9 KB unpacks to 9 MB."""
    head = _element(b"\x1a\x45\xdf\xa3", _element(b"\x42\x82", b"matroska") + _number(b"\x42\x87", 4))
    info = _element(b"\x15\x49\xa9\x66", _number(b"\x2a\xd7\xb1", 1_000_000))
    tracks = _element(b"\x16\x54\xae\x6b", _track(1, packed=False) + _track(2, packed=True))
    sound = (speech_like(1.0) * 32767).astype("<i2").tobytes()
    packed = zlib.compress(bytes(9_000_000), 9)
    blocks = _block(2, 0, packed) * num_blocks
    blocks += b"".join(_block(1, index * 100, sound[index * 4800 : (index + 1) * 4800]) for index in range(10))
    return head + _element(
        b"\x18\x53\x80\x67", info + tracks + _element(b"\x1f\x43\xb6\x75", _number(b"\xe7", 0) + blocks)
    )


def _seven_bits(number: int) -> bytes:
    return bytes((number >> shift) & 0x7F for shift in (21, 14, 7, 0))


def _element(identifier: bytes, content: bytes) -> bytes:
    return identifier + b"\x01" + len(content).to_bytes(7, "big") + content


def _number(identifier: bytes, number: int) -> bytes:
    return _element(identifier, number.to_bytes(4, "big"))


def _track(number: int, packed: bool) -> bytes:
    audio = _element(b"\xb5", struct.pack(">d", _RATE_HZ)) + _number(b"\x9f", 1) + _number(b"\x62\x64", 16)
    entry = _number(b"\xd7", number) + _number(b"\x73\xc5", number) + _number(b"\x83", 2)
    entry += _element(b"\x86", b"A_PCM/INT/LIT") + _element(b"\xe1", audio)
    if packed:
        by_zlib = _element(b"\x50\x34", _number(b"\x42\x54", 0))
        encoding = _number(b"\x50\x31", 0) + _number(b"\x50\x32", 1) + _number(b"\x50\x33", 0) + by_zlib
        entry += _element(b"\x6d\x80", _element(b"\x62\x40", encoding))
    return _element(b"\xae", entry)


def _block(track: int, time_ms: int, content: bytes) -> bytes:
    return _element(b"\xa3", bytes([0x80 | track]) + struct.pack(">h", time_ms) + b"\x80" + content)
