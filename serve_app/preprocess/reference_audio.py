"""Uploaded bytes to samples: decoded in this process, with the decoder that the first bytes call for and no other.

Nothing is guessed by a prober: a file whose first bytes are not those of a known audio container is refused, so a
playlist, a subtitle file or a URL never reaches FFmpeg. libsndfile reads what it can; FFmpeg's libraries (PyAV) read
the rest with a fixed demuxer. Neither gets a file name, so neither can open another file. Samples are counted while
they are decoded: a header's claim allocates nothing.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
import soundfile
import soxr
from av.codec.codec import UnknownCodecError

from serve_app.config import MAX_REFERENCE_S, MIN_REFERENCE_S
from serve_app.errors import AudioTooLong, AudioTooShort, InvalidAudio
from serve_app.messages import Float32Array
from serve_app.preprocess.containers import (
    BROKEN,
    check_format,
    check_wav_header,
    recognise,
    with_blank_tags,
    without_leading_tags,
)

_MAX_PACKETS = 13_000
"""30 s of Opus in its shortest packets (2.5 ms) are 12,000; more is a file made to keep us busy (about 40 us each)."""

_MIN_PACKET_BYTES = 2**20
_FORGIVEN_S = 0.1
"""Encoders pad the ends of a clip with up to this much silence."""
_UNKNOWN_S = 1e6
"""libsndfile gives an enormous number of frames for a stream that does not know its length."""
_FFMPEG_OPTIONS = {
    "codec_whitelist": (
        "aac,aac_latm,ac3,eac3,alac,amrnb,amrwb,flac,mp2,mp2float,mp3,mp3float,opus,libopus,vorbis,libvorbis,speex,"
        "wavpack,wmav1,wmav2,wmavoice,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s24be,pcm_s32le,pcm_s32be,pcm_f32le,pcm_f32be,"
        "pcm_u8,pcm_alaw,pcm_mulaw,adpcm_ms,adpcm_ima_wav,adpcm_ima_qt,gsm,gsm_ms"
    ),
    "protocol_whitelist": "",
    "max_streams": "16",
    "probesize": "1000000",
    "analyzeduration": "2000000",
}
"""Audio decoders alone may run, even for FFmpeg's own look at the streams; and nothing may be opened by name."""

_SNDFILE_FORMATS = frozenset({"WAV", "WAVEX", "W64", "RF64", "FLAC", "OGG", "MP3", "AIFF", "AU"})


class _Bytes(io.BytesIO):
    """Bytes as a file that refuses a seek the way C does: libsndfile calls it where an exception has no way out."""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return -1


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One channel of finite samples within -1..1. samples: float32 [S]."""

    samples: Float32Array
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        """Seconds of sound."""
        return len(self.samples) / self.sample_rate_hz

    def resampled(self, rate_hz: int) -> "Clip":
        """The same sound at another rate (soxr, high quality)."""
        if rate_hz == self.sample_rate_hz:
            return self
        samples = soxr.resample(self.samples, self.sample_rate_hz, rate_hz, quality="HQ")
        return Clip(np.asarray(samples, dtype=np.float32), rate_hz)


def decode(data: bytes, min_s: float = MIN_REFERENCE_S, max_s: float = MAX_REFERENCE_S) -> Clip:
    """Decodes an uploaded file of 8-192 kHz, mono or stereo, to one channel at its own rate.

    Time and memory are bounded by the file's size and by `max_s`, whatever its header claims.
    Raises InvalidAudio, AudioTooShort (under `min_s`) or AudioTooLong (over `max_s`).
    """
    data = without_leading_tags(data)
    if not data:
        raise InvalidAudio("The reference clip is empty.")
    demuxer, by_libsndfile = recognise(data)
    if demuxer == "wav":
        check_wav_header(data)
    decoded = None
    if by_libsndfile:
        decoded = _decode_by_libsndfile(data, max_s)
    if decoded is None:
        decoded = _decode_by_ffmpeg(data, demuxer, max_s)
    channels, rate_hz = decoded
    if len(channels) < min_s * rate_hz:
        raise AudioTooShort(
            f"The reference clip lasts {len(channels) / rate_hz:.2f} s; at least {min_s:g} s are needed."
        )
    if not np.isfinite(channels).all():
        raise InvalidAudio("The reference clip holds samples that are not numbers (NaN or infinity).")
    samples = _mono(channels)
    peak = float(np.abs(samples).max())
    if peak == 0.0:
        raise InvalidAudio("The reference clip is silent.")
    if peak > 1.0:
        samples = samples / np.float32(peak)
    return Clip(samples, rate_hz)


def wav_file(clip: Clip) -> bytes:
    """A whole WAV file, s16le, saturated at full scale."""
    file = io.BytesIO()
    soundfile.write(file, clip.samples, clip.sample_rate_hz, format="WAV", subtype="PCM_16")
    return file.getvalue()


def _check_claim(claimed_s: float, max_s: float) -> None:
    if claimed_s > max_s + _FORGIVEN_S:
        raise AudioTooLong(f"The reference clip is longer than {max_s:g} s.")


def _check_whole(decoded_s: float, claimed_s: float) -> None:
    """Refuses a file that ends early. A tenth is forgiven: MP3 and AAC lengths are rounded to whole packets."""
    if decoded_s < 0.9 * claimed_s - _FORGIVEN_S:
        raise InvalidAudio(f"The reference clip is cut short: {decoded_s:.1f} of the {claimed_s:.1f} s it announces.")


def _joined(blocks: Iterator[Float32Array], rate_hz: int, max_s: float) -> Float32Array:
    """Blocks [S, C] as one array of at most `max_s`; stops as soon as they are longer than what is forgiven."""
    kept: list[Float32Array] = []
    num_samples = 0
    for block in blocks:
        kept.append(block)
        num_samples += len(block)
        _check_claim(num_samples / rate_hz, max_s)
    return np.concatenate(kept)[: round(max_s * rate_hz)] if kept else np.zeros((0, 1), np.float32)


def _decode_by_libsndfile(data: bytes, max_s: float) -> tuple[Float32Array, int] | None:
    """[S, C] and the rate, or None when libsndfile does not know the coding or finds no sound in it."""
    try:
        with soundfile.SoundFile(_Bytes(data)) as file:
            if file.format not in _SNDFILE_FORMATS:
                return None
            check_format(file.samplerate, file.channels)
            rate_hz, claimed_s = int(file.samplerate), file.frames / file.samplerate
            if claimed_s > _UNKNOWN_S:
                claimed_s = 0.0
            _check_claim(claimed_s, max_s)

            def blocks() -> Iterator[Float32Array]:
                while len(block := file.read(rate_hz, dtype="float32", always_2d=True)):
                    yield block

            channels = _joined(blocks(), rate_hz, max_s)
    except soundfile.LibsndfileError:
        return None
    _check_whole(len(channels) / rate_hz, claimed_s)
    return (channels, rate_hz) if len(channels) else None


def _decode_by_ffmpeg(data: bytes, demuxer: str, max_s: float) -> tuple[Float32Array, int]:
    """[S, C] and the rate. Only `demuxer` may read the bytes; video, subtitles and attachments are never decoded."""
    try:
        file = io.BytesIO(with_blank_tags(data))
        with av.open(file, format=demuxer, options=_FFMPEG_OPTIONS, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise InvalidAudio("The reference clip holds no sound.")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise InvalidAudio(
                    "The reference clip uses a coding that cannot be read; send WAV, FLAC, OGG, MP3 or M4A."
                )
            stream.thread_type = "NONE"
            rate_hz, num_channels = int(stream.rate or 0), int(stream.channels)
            check_format(rate_hz, num_channels)
            # These headers know their length; elsewhere FFmpeg estimates it from a bit rate.
            knows = demuxer in ("mov", "flac")
            claimed_s = float((stream.duration or 0) * stream.time_base) if knows else 0.0
            _check_claim(claimed_s, max_s)
            max_bytes = 2 * len(data) + _MIN_PACKET_BYTES
            blocks = _ffmpeg_blocks(container, stream, rate_hz, num_channels, max_bytes)
            channels = _joined(blocks, rate_hz, max_s)
            _check_whole(len(channels) / rate_hz, claimed_s)
            return channels, rate_hz
    except (av.FFmpegError, UnknownCodecError) as error:
        raise InvalidAudio(BROKEN) from error


def _ffmpeg_blocks(
    container: "av.container.InputContainer", stream: "av.AudioStream", rate_hz: int, num_channels: int, max_bytes: int
) -> Iterator[Float32Array]:
    """float32 [S, C] for each decoded frame, at the rate and layout that the stream began with.

    max_bytes: of all packets, of the other streams too: Matroska's may be packed, and unpack as they are read.
    """
    layout = "mono" if num_channels == 1 else "stereo"
    resampler = av.AudioResampler(format="flt", layout=layout, rate=rate_hz)
    num_bytes = 0
    for number, packet in enumerate(container.demux()):
        num_bytes += packet.size
        if number > _MAX_PACKETS or num_bytes > max_bytes:
            raise InvalidAudio(BROKEN)
        if packet.stream.index != stream.index:
            continue
        for frame in stream.decode(packet):
            for even in resampler.resample(frame):
                yield even.to_ndarray().reshape(-1, num_channels)


def _mono(channels: Float32Array) -> Float32Array:
    """The mean of the channels, or the louder one where they cancel each other (one wired the wrong way round)."""
    mean: Float32Array = channels.mean(axis=1, dtype=np.float32)
    if channels.shape[1] == 1:
        return mean
    power = np.square(channels, dtype=np.float64).mean(axis=0)
    loudest = int(power.argmax())
    if np.square(mean, dtype=np.float64).mean() < 0.01 * power[loudest]:
        return np.ascontiguousarray(channels[:, loudest])
    return mean
