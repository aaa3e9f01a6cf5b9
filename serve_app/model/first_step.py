"""The flow's first Euler step without the conditions: the same for every stream at the same chunk, so computed once.

Guidance evaluates each step with and without mu, prompt and speaker (arXiv 2412.10117, section 2.3). At the first step
the state of the solver is the noise, which depends on the position alone; without the conditions nothing else is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from serve_app.model.context import Context, ContextShape
from serve_app.model.flow_estimator import ChunkRun, Estimator
from serve_app.model.past import PositionScores


class FirstStep:
    """Grows with the longest stream so far; what it keeps of a chunk is 1/20 of what a stream keeps of it."""

    def __init__(self, estimator: Estimator, noise: Tensor, left_context: int | None) -> None:
        """noise: [frames, mel_bins]; left_context: chunks before its own that a chunk sees, None: all."""
        self._estimator, self._noise, self.left_context = estimator, noise, left_context
        self._chunk = estimator.context_shape.chunk
        self._context = Context.empty(_shape(estimator), estimator.final_proj.weight)
        self._tails = [estimator.new_tails()[0, :1]]
        self._velocities: dict[tuple[int, int], Tensor] = {}

    @staticmethod
    def chunk_bytes(estimator: Estimator) -> int:
        """What it keeps of one chunk, without the few numbers of velocities and tails."""
        shape = _shape(estimator)
        return (
            2 * shape.layers * shape.heads * shape.head_dim * shape.chunk * estimator.final_proj.weight.element_size()
        )

    def __call__(self, chunks: Sequence[int], num_frames: Sequence[int]) -> Tensor:
        """The velocity of B streams, [B, chunk_frames, mel_bins], whose chunks these are, counted from the prompt's.

        num_frames: real frames of each chunk; behind them are zeros.
        """
        for chunk, count in zip(chunks, num_frames, strict=True):
            while len(self._tails) <= chunk:
                self._compute(len(self._tails) - 1, [self._chunk])
            if (chunk, count) not in self._velocities:
                self._compute(chunk, [count])
        return torch.stack([self._velocities[key] for key in zip(chunks, num_frames, strict=True)])

    @torch.inference_mode()
    def prepare(self, num_chunks: int, frames_per_token: int) -> None:
        """Every chunk up to there, full or ended after any token, so that no stream waits for one."""
        for chunk in range(num_chunks):
            self._compute(chunk, range(frames_per_token, self._chunk + 1, frames_per_token))

    def _compute(self, chunk: int, num_frames: Sequence[int]) -> None:
        """A chunk with so many real frames, ascending; every earlier one is known."""
        start, length = chunk * self._chunk, num_frames[-1]
        bins = self._noise.shape[1]
        known = len(self._tails) - 1
        x = self._tails[0].new_zeros((len(num_frames), length, 4 * bins))
        x[..., :bins] = self._noise[start : start + length]
        first = 0 if self.left_context is None else max(0, chunk - self.left_context) * self._chunk
        places = torch.arange(length, device=x.device)
        visible = places < torch.tensor(num_frames, device=x.device)[:, None]
        # The full chunk, which is the last, becomes the past of what follows.
        is_new = length == self._chunk and chunk == known
        if is_new:
            self._context.reserve()
        past = _SharedPast(self._context, range(first, start), visible, is_new)
        tails = self._tails[chunk].repeat(len(num_frames), 1)[None]
        velocities = self._estimator(x, ChunkRun(past, tails), 0)
        if is_new:
            self._context.commit(length)
            self._tails.append(tails[0, -1:].clone())
        for count, velocity in zip(num_frames, velocities, strict=True):
            self._velocities[chunk, count] = F.pad(velocity[:count], (0, 0, 0, self._chunk - count))


@dataclass(frozen=True, slots=True)
class _SharedPast:
    """Every row sees the same past, and of the chunk itself what is `visible`, bool [B, T].

    seen: positions of the context. keeps: the last row's keys and values are written behind what is committed.
    """

    context: Context
    seen: range
    visible: Tensor
    keeps: bool

    def attend(self, layer: int, step: int, qkv: Tensor, score: PositionScores | None = None) -> Tensor:
        assert score is None
        num_rows = len(qkv)
        queries, *fresh = (part.transpose(1, 2) for part in qkv.unbind(2))
        # [2, 1, heads, P, d]
        past = self.context.layers[layer][step][..., self.seen.start : self.seen.stop, :]
        keys, values = (
            torch.cat((old.expand(num_rows, -1, -1, -1), new), dim=2) for old, new in zip(past, fresh, strict=True)
        )
        mask = F.pad(self.visible, (len(self.seen), 0), value=True)[:, None, None]
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        if self.keeps:
            self.context.extend(layer, step, qkv[-1:, :, 1:], qkv.shape[1])
        return attended.transpose(1, 2).flatten(2)


def _shape(estimator: Estimator) -> ContextShape:
    return replace(estimator.context_shape, steps=1, rows=1)
