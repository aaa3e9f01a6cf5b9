"""Silence before the first word, left out of what is delivered: what a listener waits for is a voice, not a chunk."""

from dataclasses import dataclass

import numpy as np

from serve_app.messages import SAMPLE_RATE_HZ, Float32Array

THRESHOLD = 10 ** (-50 / 20)
"""Peak below which 10 ms are silence: quieter than a breath, louder than what a vocoder makes of nothing."""
MAX_TRIM_S = 1.0
"""A longer silence may be meant; what goes beyond this is delivered."""
_WINDOW = SAMPLE_RATE_HZ // 100
_KEPT = 3 * _WINDOW
"""Before the first loud window: the soft onset of a word."""
_FADE = SAMPLE_RATE_HZ // 200


@dataclass(slots=True)
class LeadingSilence:
    """How much of one utterance may still be left out.

    left: samples, a multiple of the window; 0 from the first sound on.
    held: the newest silence, which is delivered if the next chunk begins with a sound. [S], S <= _KEPT.
    """

    left: int = round(MAX_TRIM_S * SAMPLE_RATE_HZ)
    held: Float32Array | None = None

    def trim(self, samples: Float32Array, *, last: bool) -> Float32Array:
        """What of the next samples is delivered now, [S] -> [S'], S' <= S plus what was held.

        last: nothing follows. An utterance without any sound is left out as far as `left` goes.
        """
        if self.left == 0:
            return samples
        held = self.held
        if held is not None:
            samples = np.concatenate((held, samples))
        loud = np.abs(samples) >= THRESHOLD
        onset = int(loud.argmax()) if loud.any() else len(samples)
        cut = min(max(0, onset - _KEPT), self.left)
        self.left -= cut
        if onset == len(samples) and self.left > 0 and not last:
            self.held = samples[cut:]
            return samples[:0]
        was_trimmed = self.left < round(MAX_TRIM_S * SAMPLE_RATE_HZ)
        self.left, self.held = 0, None
        kept: Float32Array = samples[cut:].copy()
        if was_trimmed:
            # It may have been cut where the signal is not quite zero.
            fade = min(_FADE, len(kept))
            kept[:fade] *= np.linspace(0.0, 1.0, fade, dtype=np.float32)
        return kept
