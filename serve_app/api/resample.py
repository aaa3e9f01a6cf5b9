"""Another sample rate, with the filter's state carried from chunk to chunk."""

import numpy as np
import soxr

from serve_app.messages import Float32Array


class Resampler:
    """One stream of samples. Its chunks, joined, do not depend on how the input was cut."""

    def __init__(self, from_hz: int, to_hz: int) -> None:
        self.stream = soxr.ResampleStream(from_hz, to_hz, 1, dtype="float32", quality="HQ")

    def resample(self, samples: Float32Array) -> Float32Array:
        """float32 [S] to float32 [T]; T may be 0 while the filter fills."""
        resampled: Float32Array = self.stream.resample_chunk(samples)
        return resampled

    def flush(self) -> Float32Array:
        """float32 [T]: what the filter still held."""
        resampled: Float32Array = self.stream.resample_chunk(np.zeros(0, np.float32), last=True)
        return resampled
