"""The compressed formats, encoded in process by ffmpeg's libraries: no program is started and no file is written."""

import io
import math
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np

from serve_app.messages import Float32Array

STREAMED = {"flush_packets": "1", "fflags": "+bitexact"}
"""Every packet at once, and equal bytes for equal samples (Ogg's serial number is random otherwise)."""


@dataclass(frozen=True, slots=True)
class Codec:
    """A container format and the codec in it.

    bit_rates: up to 24 kHz, and above; 0 where a codec has none.
    lead_packets: packets at the start, up to 24 kHz, that hold nothing but the encoder's delay; they are not sent.
    delay_samples: by which encoder and decoder are late together, less a millisecond or two; a packet at the end that
    begins later than the sound ends is not sent. 0 where the container tells all this.
    """

    container: str
    name: str
    sample_format: str
    bit_rates: tuple[int, int]
    codec_options: tuple[tuple[str, str], ...] = ()
    container_options: tuple[tuple[str, str], ...] = ()
    lead_packets: int = 0
    delay_samples: int = 0


# LAME delays by 576 samples, one frame up to 24 kHz, and decoders by 529 more. Files tell their player so in a first
# frame that also states their length, which a stream cannot; instead the frame of delay is left out. Without the bit
# reservoir no later frame needs it.
MP3 = Codec("mp3", "libmp3lame", "fltp", (64_000, 96_000), (("reservoir", "0"),), (("id3v2_version", "0"),), 1, 1045)
# 60 ms pages: the default of one second would hold the first sound back for as long
OPUS = Codec("ogg", "libopus", "flt", (48_000, 64_000), (("frame_duration", "20"),), (("page_duration", "60000"),))
AAC = Codec("adts", "aac", "fltp", (64_000, 128_000))
FLAC = Codec("flac", "flac", "s16", (0, 0))


class Sink:
    """A file that is only written; `take` empties it."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self.data)
        self.data.clear()
        return taken


class Track:
    """One mono audio track in one container, written to `file`."""

    def __init__(self, file: Sink | io.BytesIO, codec: Codec, rate_hz: int) -> None:
        options = {**STREAMED, **dict(codec.container_options)}
        self.container = av.open(file, "w", format=codec.container, container_options=options)
        self.stream = self.container.add_stream(
            codec.name, rate=rate_hz, layout="mono", options=dict(codec.codec_options)
        )
        if codec.bit_rates[0]:
            self.stream.bit_rate = codec.bit_rates[rate_hz > 24_000]
        self.sample_format = codec.sample_format
        self.rate_hz = rate_hz
        self.num_samples = 0
        self.num_packets = 0
        self.first_packet = codec.lead_packets if rate_hz <= 24_000 else 0
        self.end_packet = math.inf
        self.delay_samples = codec.delay_samples

    def write(self, samples: Float32Array) -> None:
        """samples: float32 [S]; saturated at full scale."""
        if not len(samples):
            return
        if self.sample_format == "s16":
            row = np.clip(np.rint(samples * np.float32(32768.0)), -32768, 32767).astype(np.int16)
        else:
            row = np.clip(samples, -1.0, 1.0)
        frame = av.AudioFrame.from_ndarray(row[None], format=self.sample_format, layout="mono")
        frame.sample_rate = self.rate_hz
        frame.time_base = Fraction(1, self.rate_hz)
        frame.pts = self.num_samples
        self.num_samples += len(samples)
        self.mux(frame)

    def finish(self) -> None:
        if self.delay_samples:
            self.end_packet = math.ceil((self.num_samples + self.delay_samples) / self.stream.frame_size)
        self.mux(None)
        self.container.close()

    def mux(self, frame: av.AudioFrame | None) -> None:
        for packet in self.stream.encode(frame):
            if self.first_packet <= self.num_packets < self.end_packet:
                self.container.mux(packet)
            self.num_packets += 1


class CodecEncoder:
    """An `Encoder` that gives each packet as soon as the codec does."""

    def __init__(self, codec: Codec, rate_hz: int) -> None:
        self.sink = Sink()
        self.track = Track(self.sink, codec, rate_hz)

    def begin(self) -> bytes:
        return b""

    def encode(self, samples: Float32Array) -> bytes:
        self.track.write(samples)
        return self.sink.take()

    def flush(self) -> bytes:
        self.track.finish()
        return self.sink.take()


class WholeFileEncoder:
    """An `Encoder` that gives everything at the end, when the header can say how much there is.

    For FLAC, because libsndfile refuses a file of unknown length.
    """

    def __init__(self, codec: Codec, rate_hz: int) -> None:
        self.file = io.BytesIO()
        self.track = Track(self.file, codec, rate_hz)

    def begin(self) -> bytes:
        return b""

    def encode(self, samples: Float32Array) -> bytes:
        self.track.write(samples)
        return b""

    def flush(self) -> bytes:
        self.track.finish()
        return self.file.getvalue()
