"""What a batch that raised means: for its streams, and for the engine."""

import logging

import torch

from serve_app.errors import GenerationFailed, Overloaded, SpeechError
from serve_app.synthesis.render_stage import FlowPrefixCache
from serve_app.synthesis.scheduler import Batch

MAX_FAILED_BATCHES = 3
"""So many in a row, without one that succeeds between them: then not a stream is at fault but the engine."""

log = logging.getLogger(__name__)


class Failures:
    """Counts batches that failed one after another."""

    def __init__(self, prefixes: FlowPrefixCache) -> None:
        """prefixes: given up when memory runs out."""
        self._prefixes = prefixes
        self._num_in_a_row = 0

    def note_success(self) -> None:
        self._num_in_a_row = 0

    def answer(self, batch: Batch, error: Exception) -> SpeechError:
        """What the streams of a failed batch are told. Raises the error again when the engine itself is at fault."""
        self._num_in_a_row += 1
        if self._num_in_a_row >= MAX_FAILED_BATCHES:
            raise error
        log.error("a %s batch of %d failed", batch.work.value, len(batch.stream_ids), exc_info=error)
        if isinstance(error, torch.OutOfMemoryError | MemoryError):
            self._prefixes.clear()
            torch.cuda.empty_cache()
            return Overloaded("the device has no memory left for this request")
        return GenerationFailed("the engine failed on this request")
