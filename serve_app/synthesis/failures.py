"""What a batch that raised means: for each of its streams, and for the engine."""

import logging

import torch

from serve_app.errors import GenerationFailed, Overloaded, SpeechError
from serve_app.synthesis.render_stage import FlowPrefixCache
from serve_app.synthesis.scheduler import Batch, Work
from serve_app.synthesis.stream import SpeechStream

MAX_FAILED_BATCHES = 3
"""So many in a row, without a step that succeeds between them: then not a stream is at fault but the engine."""

log = logging.getLogger(__name__)


class Mark:
    """Where one stream stood before a step that may fail."""

    def __init__(self, work: Work, stream: SpeechStream) -> None:
        self.stream = stream
        self._is_repeatable = work is Work.DECODE
        self._position = stream.position
        self._state = self._seen()

    def rewind(self) -> bool:
        """Takes the stream back to where it stood. False where that cannot be done: its step must not be repeated.

        A decode step writes to the cache behind the stream's position, which moves on after the forward; a step that
        failed before a token was taken is as if it had not been. Flow and vocoder move on piece by piece, on the way
        through their layers: a chunk that failed in the middle cannot be rendered again.
        """
        if not self._is_repeatable or self._seen() != self._state:
            return False
        self.stream.position = self._position
        return True

    def _seen(self) -> tuple[object, ...]:
        """All that a decode step changes when it takes a token, or ends the stream."""
        stream = self.stream
        return len(stream.outputs), len(stream.tokens), stream.slot, stream.progress.unread, stream.progress.generated


class Failures:
    """Says what streams are told, gives back memory, and counts failures that follow one another."""

    def __init__(self, prefixes: FlowPrefixCache) -> None:
        """prefixes: given up when memory runs out."""
        self._prefixes = prefixes
        self._num_in_a_row = 0

    def note_success(self) -> None:
        self._num_in_a_row = 0

    def note(self, batch: Batch, error: Exception) -> None:
        """A batch has failed: what it may have left too little of is given back before anything is tried again."""
        log.error("a %s batch of %d failed", batch.work.value, len(batch.stream_ids), exc_info=error)
        if is_out_of_memory(error):
            self._prefixes.clear()
            torch.cuda.empty_cache()

    def answer(self, error: Exception) -> SpeechError:
        """What a stream is told whose own step failed."""
        if is_out_of_memory(error):
            return Overloaded("the device has no memory left for this request")
        return GenerationFailed("the engine failed on this request")

    def judge(self, error: Exception, *, num_unharmed: int) -> None:
        """After all were tried: raises the batch's error when the engine itself is at fault."""
        self._num_in_a_row = 0 if num_unharmed else self._num_in_a_row + 1
        if self._num_in_a_row >= MAX_FAILED_BATCHES:
            raise error


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError)
