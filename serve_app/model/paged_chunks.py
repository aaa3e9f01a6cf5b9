"""The flow's chunks over pages of a common memory: one call of fixed shape per (batch bucket, context bucket).

The call looks at no data, and all its memory lies at fixed addresses, so that encoder and ten Euler steps of a whole
batch can be captured as one CUDA graph. Streams of one voice share the pages of their prompt instead of copying them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from serve_app.model.chunks import ChunkInputs, Kept
from serve_app.model.flow import Flow
from serve_app.model.flow_estimator import ChunkRun
from serve_app.model.past import NULL_PAGE, SPARE_PAGE, PagedPast, PageMemory, PagePool

CONTEXT_BUCKETS = (2, 4, 6, 8, 12, 16, 24, 32)
"""Chunks that a batch sees, the newest included. One more than fits is a multiple of the last."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64)
_NO_TOKEN = -1

FixedCall = Callable[..., tuple[Tensor, ...]]


def bucket(count: int, sizes: Sequence[int]) -> int:
    """The smallest size that holds `count`; beyond the largest, multiples of it."""
    fitting = [size for size in sizes if size >= count]
    return min(fitting) if fitting else -(-count // max(sizes)) * max(sizes)


@dataclass(eq=False, slots=True)
class PagedKept:
    """The past of one stream.

    pages: in order; the last one is partly filled once the stream has ended.
    left_context: how many pages before its own a chunk sees; None: all.
    tails: [steps, rows, width] of the estimator, [1, width] of the encoder's two convolutions.
    """

    pool: PagePool
    page_bytes: int
    left_context: int | None
    tails: tuple[Tensor, Tensor, Tensor]
    pages: list[int] = field(default_factory=list)

    @property
    def num_bytes(self) -> int:
        """Shared pages count for everyone who uses them."""
        return len(self.pages) * self.page_bytes + sum(tail.nbytes for tail in self.tails)

    def clone(self, *, grows: bool = True) -> "PagedKept":
        """Nothing is copied: pages are shared, and tails are never written in place."""
        self.pool.share(self.pages)
        return PagedKept(self.pool, self.page_bytes, self.left_context, self.tails, list(self.pages))

    def trim(self) -> None:
        """Gives back the pages that the next chunk will not see."""
        if self.left_context is not None and len(self.pages) > self.left_context:
            self.pool.give_back(self.pages[: -self.left_context])
            self.pages = self.pages[-self.left_context :]

    def extend(self) -> None:
        """A page for one more chunk."""
        self.pages.append(self.pool.take())

    def close(self) -> None:
        self.pool.give_back(self.pages)
        self.pages = []


class PagedChunks:
    """Puts a flow's streams into `num_pages` pages. The flow's own `chunks` must be set to this."""

    def __init__(
        self, flow: Flow, num_pages: int, wrap: Callable[[FixedCall], FixedCall], *, poison: bool = False
    ) -> None:
        """wrap: makes of a call of fixed shapes one that is faster: a captured graph for each shape, or the same call.

        poison: fill free pages with NaN (tests).
        """
        self._dims, self._flow = flow.dims, flow
        encoder, estimator = flow.encoder, flow.estimator
        total = num_pages + 2
        self._tokens = PageMemory(encoder.token_shape, total, encoder.projection.weight)
        self._frames = PageMemory(encoder.frame_shape, total, encoder.projection.weight)
        self._velocities = PageMemory(estimator.context_shape, total, estimator.final_proj.weight)
        self.pool = PagePool((self._tokens, self._frames, self._velocities), total, poison=poison)
        encoder.reserve_positions(max(CONTEXT_BUCKETS) * flow.dims.chunk_frames)
        self._page_bytes = page_bytes(flow)
        self._call = wrap(self._chunk)

    @property
    def device(self) -> torch.device:
        return self._flow.noise.device

    def open(self, left_context: int | None, *, poison: bool) -> PagedKept:
        """poison: see the constructor."""
        encoder = self._flow.encoder
        like = encoder.projection.weight
        tails = (
            self._flow.estimator.new_tails(),
            like.new_zeros((1, encoder.lookahead_causal_conv.tail_width)),
            like.new_zeros((1, encoder.upsample_conv.tail_width)),
        )
        return PagedKept(self.pool, self._page_bytes, left_context, tails)

    def trim(self) -> None:
        """Nothing: the pages are there for good."""

    def render(self, kept: Sequence[Kept], inputs: ChunkInputs) -> Tensor:
        """Raises IndexError, with nothing changed, when there are fewer free pages than streams."""
        own = [stream for stream in kept if isinstance(stream, PagedKept)]
        for stream in own:
            stream.trim()
        if self.pool.num_free < len(own):
            raise IndexError(f"{len(own)} chunks need as many pages of the flow, and {self.pool.num_free} are free")
        for stream in own:
            stream.extend()
        batch = bucket(len(own), BATCH_BUCKETS)
        context = bucket(max(len(stream.pages) for stream in own), CONTEXT_BUCKETS)
        idle = batch - len(own)
        unguided = inputs.noise if inputs.unguided is None else inputs.unguided
        mel, *tails = self._call(
            self._ids(inputs.ids, batch),
            *(_pad(tensor, idle) for tensor in (inputs.speakers, inputs.noise, inputs.prompt, unguided)),
            *self._places(own, inputs.num_tokens, batch, context),
            _pad(torch.stack([stream.tails[0] for stream in own]), idle),
            *(_pad(torch.cat([stream.tails[i] for stream in own]), idle) for i in (1, 2)),
        )
        for row, stream in enumerate(own):
            # Copies, since a row would keep what is there for the whole batch.
            stream.tails = (tails[0][row].clone(), tails[1][row, None].clone(), tails[2][row, None].clone())
        return mel[: len(own)]

    def rehearse(self, max_streams: int, max_context: int) -> None:
        """Runs every bucket once, with padding alone: what captures graphs captures them now."""
        if self._flow.is_guided:
            self._flow.first_step.prepare(max_context, self._dims.token_mel_ratio)
        for batch in (size for size in BATCH_BUCKETS if size <= bucket(max_streams, BATCH_BUCKETS)):
            for context in (size for size in CONTEXT_BUCKETS if size <= bucket(max_context, CONTEXT_BUCKETS)):
                new, dims = self.open(None, poison=False), self._dims
                mel = self._flow.noise.new_zeros((batch, dims.chunk_frames, dims.mel_bins))
                self._call(
                    self._ids((), batch),
                    mel[:, 0],
                    mel,
                    mel,
                    mel,
                    *self._places((), (), batch, context),
                    _pad(new.tails[0][None], batch - 1),
                    *(_pad(tail, batch - 1) for tail in new.tails[1:]),
                )

    def _ids(self, ids: Sequence[Tensor], batch: int) -> Tensor:
        """[batch, chunk and lookahead], filled up with _NO_TOKEN."""
        table = torch.full((batch, self._dims.chunk_tokens + self._dims.lookahead), _NO_TOKEN)
        for row, tokens in zip(table, ids, strict=False):
            row[: len(tokens)] = tokens
        return table.to(self.device, non_blocking=True)

    def _places(
        self, kept: Sequence[PagedKept], num_tokens: Sequence[int], batch: int, context: int
    ) -> tuple[Tensor, Tensor]:
        """Pages [batch, context], and the tokens among them that a stream sees, from and to, [batch, 2].

        Rows that are nobody's write to the spare page and see it alone.
        """
        chunk = self._dims.chunk_tokens
        pages = torch.full((batch, context), NULL_PAGE)
        pages[:, -1] = SPARE_PAGE
        seen = torch.tensor([[(context - 1) * chunk, context * chunk]]).repeat(batch, 1)
        for row, (stream, count) in enumerate(zip(kept, num_tokens, strict=True)):
            pages[row, context - len(stream.pages) :] = torch.tensor(stream.pages)
            seen[row, 0] = (context - len(stream.pages)) * chunk
            seen[row, 1] = (context - 1) * chunk + count
        return pages.to(self.device, non_blocking=True), seen.to(self.device, non_blocking=True)

    def _chunk(
        self,
        ids: Tensor,
        speakers: Tensor,
        noise: Tensor,
        prompt: Tensor,
        unguided: Tensor,
        pages: Tensor,
        seen: Tensor,
        estimator_tails: Tensor,
        lookahead_tails: Tensor,
        upsample_tails: Tensor,
    ) -> tuple[Tensor, ...]:
        """The mel [B, T, mel_bins], and the three tails as they are after it.

        estimator_tails: [B, steps, rows, width]. Nothing here may depend on what a tensor holds.
        """
        encoder, ratio = self._flow.encoder, self._dims.token_mel_ratio
        places = torch.arange(pages.shape[1] * self._dims.chunk_tokens, device=ids.device)
        tokens_seen = (places >= seen[:, :1]) & (places < seen[:, 1:])
        frames_seen = tokens_seen.repeat_interleave(ratio, dim=1)
        # A table of zeros where there is no token: upstream pads behind the embedding.
        x = F.embedding(ids.clamp(min=0), encoder.embedding) * (ids != _NO_TOKEN)[..., None]
        mu = encoder.encode(
            x,
            lookahead_tails,
            upsample_tails,
            PagedPast(self._tokens, pages, tokens_seen[:, None, None]),
            PagedPast(self._frames, pages, frames_seen[:, None, None]),
        )
        # [B, steps, rows, width] -> [steps, B * rows, width]
        tails = estimator_tails.transpose(0, 1).flatten(1, 2)
        run = ChunkRun(PagedPast(self._velocities, pages, frames_seen[:, None, None]), tails)
        known = unguided if self._flow.is_guided else None
        mel = self._flow.solve(mu, speakers, noise, prompt, known, run)
        after = tails.view(len(tails), len(pages), -1, tails.shape[-1]).transpose(0, 1)
        return mel, after, lookahead_tails, upsample_tails


def page_bytes(flow: Flow) -> int:
    """What one chunk of one stream keeps, in pages or in memory of its own."""
    encoder, estimator = flow.encoder, flow.estimator
    like = encoder.projection.weight
    shared = PageMemory.page_bytes(encoder.token_shape, like) + PageMemory.page_bytes(encoder.frame_shape, like)
    return shared + PageMemory.page_bytes(estimator.context_shape, estimator.final_proj.weight)


def _pad(tensor: Tensor, rows: int) -> Tensor:
    """Rows of zeros behind those of a tensor; always a new one, since the call writes the tails."""
    return torch.cat((tensor, tensor.new_zeros((rows, *tensor.shape[1:]))))
