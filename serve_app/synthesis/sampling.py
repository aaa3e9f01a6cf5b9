"""Repetition-aware sampling for a batch of streams, with random numbers that belong to each stream alone.

Method: VALL-E 2, section 3.2, as CosyVoice2 uses it (upstream `cosyvoice/utils/common.py`, `ras_sampling`): draw from
the nucleus; a draw that already occurs among the last outputs is banned and replaced by one from the full distribution.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from serve_app.model.dims import SamplingDims

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def _splitmix64(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function (Steele et al., 2014): a bijection that scrambles a counter."""
    state = (state ^ (state >> np.uint64(30))) * _MIX_1
    state = (state ^ (state >> np.uint64(27))) * _MIX_2
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed


def uniforms(seeds: NDArray[np.uint64], steps: NDArray[np.uint64], count: int) -> NDArray[np.float32]:
    """Counter-based uniform numbers: float32 [B, count] in [0, 1), a function of seed and step alone.

    seeds, steps: uint64 [B]. Company in the batch therefore never changes a stream's draws.
    """
    draws = np.arange(count, dtype=np.uint64)[None, :]
    counters = _splitmix64(seeds)[:, None] + (steps[:, None] * np.uint64(count) + draws) * _GOLDEN
    mantissas: NDArray[np.float32] = (_splitmix64(counters) >> np.uint64(40)).astype(np.float32)
    mantissas *= np.float32(2.0**-24)
    return mantissas


def utterance_seed(seed: int, utterance: int) -> int:
    """Seed of one utterance of a request, so that equal sentences in one request do not share their draws."""
    # Arrays, not scalars: numpy lets them wrap around without a warning.
    mixed = np.array([seed], dtype=np.uint64) + np.array([utterance + 1], dtype=np.uint64) * _GOLDEN
    return int(_splitmix64(mixed)[0])


class Draw(Protocol):
    """What the language stage needs of `Sampler`; parity tests force tokens here."""

    @property
    def window(self) -> int: ...

    def __call__(self, logits: Tensor, recent: Tensor, stops_allowed: Tensor, random: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True)
class Sampler:
    """Draws one token per stream."""

    dims: SamplingDims

    @property
    def window(self) -> int:
        """How many of a stream's last outputs a draw looks at."""
        return self.dims.win_size

    def __call__(self, logits: Tensor, recent: Tensor, stops_allowed: Tensor, random: Tensor) -> Tensor:
        """Tokens int64 [B].

        logits: [B, V]. recent: int64 [B, window], the last outputs, padded with -1. stops_allowed: bool [B, N], False
        masks one of the last N ids, which are not speech. random: float [B, 2] in [0, 1).
        """
        scores = logits.to(torch.float32, copy=True)
        scores[:, -stops_allowed.shape[1] :].masked_fill_(~stops_allowed, -torch.inf)
        probabilities = scores.softmax(-1)

        top, ids = probabilities.topk(min(self.dims.top_k, probabilities.shape[-1]), dim=-1)
        before = top.cumsum(-1) - top
        nucleus = top.masked_fill(before >= self.dims.top_p, 0.0)
        drawn = ids.gather(1, _inverse_cdf(nucleus, random[:, :1])).squeeze(1)

        repeats = (recent == drawn[:, None]).sum(-1)
        banned = probabilities.scatter(1, drawn[:, None], 0.0)
        replacement = _inverse_cdf(banned, random[:, 1:2]).squeeze(1)
        # If nothing but the banned token is possible there is nothing to draw from.
        replaceable = (repeats >= self.dims.win_size * self.dims.tau_r) & (banned.sum(-1) > 0)
        return torch.where(replaceable, replacement, drawn)


def _inverse_cdf(weights: Tensor, random: Tensor) -> Tensor:
    """Index [B, 1] drawn in proportion to `weights` [B, N], which need not sum to one, by `random` [B, 1] in [0, 1)."""
    cumulative = weights.cumsum(-1)
    # A point at or past the last step (rounding) must still land on an index of positive weight.
    point = torch.minimum(random * cumulative[:, -1:], cumulative[:, -1:] * (1 - 1e-6))
    return torch.searchsorted(cumulative, point, right=True).clamp_(max=weights.shape[-1] - 1)
