"""Where speech goes as it arrives: a file, a pipe, or this machine's loudspeaker."""

import importlib
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, Protocol

HEADER_BYTES = 44
"""Of the WAV that the service streams; its two sizes are 0xFFFFFFFF."""


class SoundOutput(Protocol):
    """Takes the bytes of one answer. Either `finish` or `abandon` is the last call."""

    def write(self, data: bytes) -> None:
        """Raises OSError."""

    def finish(self) -> None:
        """The answer was whole."""

    def abandon(self) -> str:
        """The answer broke off: says what became of its beginning, or nothing."""


class FileOutput:
    """A file that has its name only once it is whole; until then, and if the answer breaks off, `NAME.partial.EXT`.

    Nothing is made before the first byte. A WAV gets its true sizes, whole or not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        if self._file is None:
            self._file = self.partial.open("w+b")
        self._file.write(data)
        self._file.flush()  # whoever follows the file hears it grow

    def finish(self) -> None:
        if self._file is None:
            self._file = self.partial.open("w+b")
        self._close(self._file)
        self.partial.replace(self.path)

    def abandon(self) -> str:
        if self._file is None:
            return ""
        self._close(self._file)
        return f"what arrived is in {self.partial}"

    def _close(self, file: BinaryIO) -> None:
        with file:
            state_wav_sizes(file)


class PipeOutput:
    """Standard output, a named pipe, a device: bytes go out at once and cannot be taken back.

    closes: whether the stream ends with the answer.
    """

    def __init__(self, stream: BinaryIO, closes: bool = False) -> None:
        self._stream = stream
        self._closes = closes

    def write(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()

    def finish(self) -> None:
        if self._closes:
            self._stream.close()

    def abandon(self) -> str:
        self.finish()
        return ""


class PlayerOutput:
    """The default loudspeaker, through PortAudio. Takes s16le mono.

    Raises ImportError when sounddevice is not installed, OSError when PortAudio or a loudspeaker is missing.
    """

    def __init__(self, sample_rate_hz: int) -> None:
        sounddevice: Any = importlib.import_module("sounddevice")  # optional: most servers have no loudspeaker
        try:
            self._device = sounddevice.RawOutputStream(samplerate=sample_rate_hz, channels=1, dtype="int16")
            self._device.start()
        except sounddevice.PortAudioError as error:
            raise OSError(str(error)) from error
        self._odd = b""

    def write(self, data: bytes) -> None:
        data = self._odd + data
        whole = len(data) // 2 * 2  # a chunk of the network may end within a sample
        self._odd = data[whole:]
        self._device.write(data[:whole])

    def finish(self) -> None:
        self._device.stop()  # returns when everything was heard
        self._device.close()

    def abandon(self) -> str:
        self._device.abort()
        self._device.close()
        return ""


def open_output(path: Path) -> SoundOutput:
    """A file by its name; what is there already and is no regular file (`/dev/null`, a FIFO) is written as it is."""
    if path.exists() and not path.is_file():
        return PipeOutput(path.open("wb", buffering=0), closes=True)
    return FileOutput(path)


def state_wav_sizes(file: BinaryIO) -> None:
    """Writes the true sizes into a canonical WAV header; any other content stays as it is."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    header = file.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES or header[:4] != b"RIFF" or header[8:16] != b"WAVEfmt " or header[36:40] != b"data":
        return
    for place, value in ((4, size - 8), (40, size - HEADER_BYTES)):
        file.seek(place)
        file.write(struct.pack("<I", min(value, 0xFFFFFFFF)))
