"""What the flow keeps of open streams, and may come to keep: room for all of it is there before a stream is opened."""

from typing import Protocol

from serve_app.model.flow import Flow
from serve_app.model.paged_chunks import PagedChunks, page_bytes
from serve_app.synthesis.capacity import MemoryBudget
from serve_app.synthesis.render_stage import FlowPrefixCache
from serve_app.synthesis.stream import SpeechStream


class StreamMemory(Protocol):
    """Who is open, and what may still be taken for them."""

    def fits_alone(self, stream: SpeechStream) -> bool:
        """Whether an engine without any other stream would have room for this one."""
        ...

    def take(self, stream: SpeechStream) -> bool:
        """Sets aside what a new stream may need; False, with nothing held, when that is too much now."""
        ...

    def give_back(self, stream: SpeechStream) -> None:
        """What was set aside for it and not used. Idempotent."""
        ...

    @property
    def stream_ids(self) -> set[int]:
        """Who was taken and not given back."""
        ...


def stream_memory(flow: Flow, prefixes: FlowPrefixCache, max_positions: int, limit: int | None) -> StreamMemory:
    """max_positions: more tokens no stream has. limit: bytes for all streams, where each has memory of its own."""
    lengths = Lengths(flow, prefixes, max_positions)
    if isinstance(flow.chunks, PagedChunks):
        return PagedMemory(lengths, flow.chunks, prefixes)
    return OwnMemory(lengths, limit)


class Lengths:
    """Chunks of the flow that a stream consists of."""

    def __init__(self, flow: Flow, prefixes: FlowPrefixCache, max_positions: int) -> None:
        self.flow = flow
        self._prefixes = prefixes
        self._max_positions = max_positions

    def most(self, stream: SpeechStream) -> int:
        """At most, the prompt's included. Exact as soon as the language model has said its last."""
        return self.chunks(self._num_prompt_tokens(stream) + self._most_tokens(stream))

    def prefix(self, stream: SpeechStream) -> int:
        """Those that depend on the voice alone."""
        return self.chunks(self.flow.num_prefix_tokens(self._num_prompt_tokens(stream)))

    def chunks(self, num_tokens: int) -> int:
        return -(-num_tokens // self.flow.dims.chunk_tokens)

    def _num_prompt_tokens(self, stream: SpeechStream) -> int:
        return self._prefixes.num_prompt_tokens(stream.voice)

    def _most_tokens(self, stream: SpeechStream) -> int:
        if stream.progress.generated:
            return len(stream.tokens)
        if stream.interleave is not None and not stream.interleave.complete:
            return self._max_positions
        return min(stream.max_tokens, self._max_positions)


class PagedMemory:
    """Pages of a common pool. A stream adds what it renders itself; the pages of its voice's prefix are there once for
    all its streams, whether the cache still knows the voice or not: what is taken is not free, and only that counts.

    There are at least as many free pages as all open streams may still take together, so none ever lacks one. Each
    takes fewer than was set aside for it unless it is as long as it may get, and once its last token is drawn, what it
    will not need is there for the next one.
    """

    def __init__(self, lengths: Lengths, chunks: PagedChunks, prefixes: FlowPrefixCache) -> None:
        self._lengths = lengths
        self._pool = chunks.pool
        self._prefixes = prefixes
        self._streams: dict[int, SpeechStream] = {}
        # What voices that nobody uses may keep is never there for streams.
        self._num_pages = chunks.pool.num_pages - prefixes.max_bytes // page_bytes(lengths.flow)

    def fits_alone(self, stream: SpeechStream) -> bool:
        return self._own(stream, 0) <= self._num_pages

    def take(self, stream: SpeechStream) -> bool:
        stream.prefix = self._prefixes.hold(stream.voice)
        if self.outstanding(stream) > self.num_spare:
            if stream.prefix is not None:
                stream.prefix.close()
                stream.prefix = None
            return False
        self._streams[stream.stream_id] = stream
        return True

    def give_back(self, stream: SpeechStream) -> None:
        self._streams.pop(stream.stream_id, None)

    @property
    def stream_ids(self) -> set[int]:
        return set(self._streams)

    @property
    def num_spare(self) -> int:
        """Pages that nobody has and no open stream will need."""
        return self._pool.num_free - sum(map(self.outstanding, self._streams.values()))

    def outstanding(self, stream: SpeechStream) -> int:
        """Pages that a stream may still take from the pool, at most."""
        begun = stream.flow or stream.prefix
        return self._own(stream, 0 if begun is None else self._lengths.chunks(begun.num_tokens))

    def _own(self, stream: SpeechStream, num_done: int) -> int:
        """The same, with so many chunks behind it. With a bounded context a page goes back for each that is taken from
        some length on; of the prefix's nobody knows, since other streams may see them."""
        prefix, bound = self._lengths.prefix(stream), self._lengths.flow.left_context_chunks
        after, done_after = self._lengths.most(stream) - prefix, max(0, num_done - prefix)
        if bound is not None:
            after, done_after = min(after, bound + 1), min(done_after, bound + 1)
        return max(0, prefix - num_done) + max(0, after - done_after)


class OwnMemory:
    """Memory of each stream's own, which grows with it."""

    def __init__(self, lengths: Lengths, limit: int | None) -> None:
        """limit: bytes; None: no limit."""
        self._lengths = lengths
        self._budget = MemoryBudget(limit)

    def fits_alone(self, stream: SpeechStream) -> bool:
        return self._budget.fits_alone(self._most_bytes(stream))

    def take(self, stream: SpeechStream) -> bool:
        return self._budget.take(stream.stream_id, self._most_bytes(stream))

    def give_back(self, stream: SpeechStream) -> None:
        self._budget.give_back(stream.stream_id)

    @property
    def stream_ids(self) -> set[int]:
        return set(self._budget.held)

    def _most_bytes(self, stream: SpeechStream) -> int:
        chunks, bound = self._lengths.most(stream), self._lengths.flow.left_context_chunks
        if bound is not None:
            chunks = min(chunks, bound + 1)
        # It grows by half.
        return (chunks + chunks // 2 + 1) * page_bytes(self._lengths.flow)
