"""A listener as the server imagines one: who plays each sample as soon as it comes, in order, without a prebuffer."""

from dataclasses import dataclass, field

import numpy as np

from serve_app.messages import SAMPLE_RATE_HZ, Float32Array

AUDIBLE_DBFS = -45.0
"""A window is audible when its RMS is above this; 0 dBFS is the RMS of a full-scale square wave."""
WINDOW_SAMPLES = SAMPLE_RATE_HZ // 50
MIN_STALL_S = 0.001
"""A shorter gap is the jitter of any clock and cannot be heard."""
_LOUD = 10 ** (AUDIBLE_DBFS / 10)
_NOTHING: Float32Array = np.zeros(0, np.float32)


@dataclass(slots=True)
class Listener:
    """One stream of samples at SAMPLE_RATE_HZ, as it is heard. Times are of one clock, in seconds.

    dry_at_s: when what is in hand will have been played; None before the first sound. It does not move while nobody
    waits for samples: a client that reads slowly makes its own gaps.
    ttfa_s: from `asked_at_s` to the first sample. audible_ttfa_s: to when the first window of 20 ms above
    `AUDIBLE_DBFS` is heard; None where there is none yet.
    """

    asked_at_s: float
    ttfa_s: float | None = None
    audible_ttfa_s: float | None = None
    audio_s: float = 0.0
    num_underruns: int = 0
    stall_s: float = 0.0
    dry_at_s: float | None = None
    _waiting_since_s: float = 0.0
    _heard_at_s: float = 0.0
    _tail: Float32Array = field(default_factory=_NOTHING.copy)

    def wait(self, now_s: float) -> None:
        """From now on the listener waits for samples."""
        self._waiting_since_s = now_s

    def hear(self, samples: Float32Array, now_s: float) -> bool:
        """New samples, float32 [S], S >= 0 -> whether there was a gap before them."""
        if not len(samples):
            return False
        if self.ttfa_s is None or self.dry_at_s is None:
            self.ttfa_s = now_s - self.asked_at_s
            self.dry_at_s = now_s
        self._heard_at_s = now_s
        gap_s = now_s - max(self.dry_at_s, self._waiting_since_s)
        self.dry_at_s = max(self.dry_at_s, now_s)
        if self.audible_ttfa_s is None:
            self._look_for_sound(samples)
        self.dry_at_s += len(samples) / SAMPLE_RATE_HZ
        self.audio_s += len(samples) / SAMPLE_RATE_HZ
        if gap_s < MIN_STALL_S:
            return False
        self.num_underruns += 1
        self.stall_s += gap_s
        return True

    @property
    def rtf(self) -> float | None:
        """Seconds from the request to its newest sample, for each second of sound; None without any."""
        return (self._heard_at_s - self.asked_at_s) / self.audio_s if self.audio_s else None

    def _look_for_sound(self, samples: Float32Array) -> None:
        """Windows follow each other from the first sample; one may lie across two chunks."""
        assert self.dry_at_s is not None
        joined = np.concatenate((self._tail, samples))
        num_windows = len(joined) // WINDOW_SAMPLES
        windows = joined[: num_windows * WINDOW_SAMPLES].reshape(num_windows, WINDOW_SAMPLES)
        loud = np.flatnonzero((windows.astype(np.float64) ** 2).mean(axis=1) > _LOUD)
        if len(loud):
            offset = int(loud[0]) * WINDOW_SAMPLES - len(self._tail)
            self.audible_ttfa_s = self.dry_at_s + offset / SAMPLE_RATE_HZ - self.asked_at_s
        self._tail = joined[num_windows * WINDOW_SAMPLES :]
