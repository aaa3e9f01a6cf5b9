"""How far an answer has come, in seconds of sound, and how soon and how fast it came."""

import time
from dataclasses import dataclass, field

from serve_app.sound_output import HEADER_BYTES

_UNHEARD = {"wav": HEADER_BYTES, "pcm": 0}
"""Formats whose bytes can be counted as sound, and how many of them at the start are none."""


@dataclass
class SpeechProgress:
    """Counts from its construction, which is when the request is sent."""

    audio_format: str
    sample_rate_hz: int = 24_000
    num_bytes: int = 0
    first_sound_s: float | None = None
    last_byte_s: float = 0.0
    _started_s: float = field(default_factory=time.monotonic)

    def add(self, num_bytes: int) -> None:
        """So many bytes arrived just now."""
        self.num_bytes += num_bytes
        self.last_byte_s = time.monotonic() - self._started_s
        if self.first_sound_s is None and self.num_bytes > _UNHEARD.get(self.audio_format, 0):
            self.first_sound_s = self.last_byte_s

    @property
    def heard_s(self) -> float | None:
        """Seconds of sound so far; None for compressed formats, whose bytes do not say."""
        if self.audio_format not in _UNHEARD:
            return None
        return max(0, self.num_bytes - _UNHEARD[self.audio_format]) / 2 / self.sample_rate_hz

    def line(self, heard_s: float | None) -> str:
        """One line: what arrived, time to the first sound, real-time factor."""
        parts = [f"{self.num_bytes / 1024:.0f} KiB" if heard_s is None else f"{heard_s:.1f} s of speech"]
        if self.first_sound_s is not None:
            parts.append(f"first sound after {self.first_sound_s:.2f} s")
        if heard_s:
            parts.append(f"real-time factor {self.last_byte_s / heard_s:.2f}")
        return ", ".join(parts)
