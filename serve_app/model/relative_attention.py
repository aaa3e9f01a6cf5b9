"""Attention with relative positions (Transformer-XL, arXiv 1901.02860, section 3.3) for the newest positions only.

Upstream: `cosyvoice/transformer/attention.py` (`RelPositionMultiHeadedAttention`) and `embedding.py`
(`EspnetRelPositionalEncoding`), which compute every query against every key.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serve_app.model.layers import Norm, Projection, frozen
from serve_app.model.past import Past

_NORM_EPS = 1e-12
_FIRST_TABLE = 512


def expected_tensors(prefix: str, size: int, heads: int, linear_units: int) -> dict[str, tuple[int, ...]]:
    """Name -> shape of one layer."""
    attention, ff = f"{prefix}self_attn.", f"{prefix}feed_forward."
    shapes: dict[str, tuple[int, ...]] = {f"{attention}linear_{name}.weight": (size, size) for name in "qkv"}
    shapes |= {f"{attention}linear_{name}.bias": (size,) for name in ("q", "k", "v", "out")}
    shapes |= {f"{attention}linear_{name}.weight": (size, size) for name in ("out", "pos")}
    shapes |= {f"{attention}pos_bias_{name}": (heads, size // heads) for name in "uv"}
    shapes |= {f"{ff}w_1.weight": (linear_units, size), f"{ff}w_1.bias": (linear_units,)}
    shapes |= {f"{ff}w_2.weight": (size, linear_units), f"{ff}w_2.bias": (size,)}
    for norm in ("norm_ff", "norm_mha"):
        shapes |= {f"{prefix}{norm}.weight": (size,), f"{prefix}{norm}.bias": (size,)}
    return shapes


def sinusoids(distances: Tensor, size: int) -> Tensor:
    """distances: [N], query minus key position -> [N, size]: sine and cosine of each rate in turn."""
    rates = torch.exp(torch.arange(0, size, 2, dtype=torch.float32) * -(math.log(10000.0) / size))
    angles = distances.float()[:, None] * rates
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class RelativeLayer(nn.Module):
    """Attention, then a feed-forward with SiLU, each behind a layer norm and added to its input."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        """tensors: as `expected_tensors` says, and others."""
        super().__init__()
        attention, ff = f"{prefix}self_attn.", f"{prefix}feed_forward."
        u, v = tensors[f"{attention}pos_bias_u"], tensors[f"{attention}pos_bias_v"]
        self._heads = (3, *u.shape)
        self._scale = 1 / math.sqrt(u.shape[1])
        biases = [tensors[f"{attention}linear_{name}.bias"] for name in "qkv"]
        # The queries' bias of the content term is part of their projection; the position term needs another.
        biases[0] = biases[0] + u.flatten()
        self.position_bias = frozen(v - u)
        self.qkv = Projection(
            torch.cat([tensors[f"{attention}linear_{name}.weight"] for name in "qkv"]), torch.cat(biases)
        )
        self.out = Projection(tensors[f"{attention}linear_out.weight"], tensors[f"{attention}linear_out.bias"])
        self.position = Projection(tensors[f"{attention}linear_pos.weight"])
        self.widen = Projection(tensors[f"{ff}w_1.weight"], tensors[f"{ff}w_1.bias"])
        self.narrow = Projection(tensors[f"{ff}w_2.weight"], tensors[f"{ff}w_2.bias"])
        self.norm_mha = Norm(tensors[f"{prefix}norm_mha.weight"], tensors[f"{prefix}norm_mha.bias"], _NORM_EPS)
        self.norm_ff = Norm(tensors[f"{prefix}norm_ff.weight"], tensors[f"{prefix}norm_ff.bias"], _NORM_EPS)
        # How each distance scores is a matter of weights alone: computed once, and again for twice as many distances
        # when a stream outgrows it. No result depends on its size.
        self._table: Tensor
        self._outgrown: list[Tensor] = []
        self.register_buffer("_table", self.position.weight.new_empty(0), persistent=False)

    def forward(self, x: Tensor, layer: int, past: Past) -> Tensor:
        """A chunk of B streams, as layer number `layer` of their past. x: [B, T, size] -> the same shape."""
        qkv = self.qkv(self.norm_mha(x)).unflatten(-1, self._heads)
        x = x + self.out(past.attend(layer, 0, qkv, self._score_positions))
        x += self.narrow(F.silu(self.widen(self.norm_ff(x))))
        return x

    def _score_positions(self, queries: Tensor, start: int, num_keys: int) -> Tensor:
        """queries: [B, heads, T, head_dim] behind `start` keys -> [B, heads, T, num_keys], scaled."""
        num_streams, num_heads, num_queries, _ = queries.shape
        end = start + num_queries
        table = self._distances(end)
        first = table.shape[2] // 2 + 1 - end
        width = num_queries + num_keys - 1
        scores = torch.matmul(queries + self.position_bias[:, None], table.narrow(2, first, width))
        # A column is a distance, falling. Query i needs those from T - 1 - i on: a view whose rows are one shorter.
        strides = (num_heads * num_queries * width, num_queries * width, width - 1, 1)
        return scores.as_strided((num_streams, num_heads, num_queries, num_keys), strides, num_queries - 1)

    def reserve(self, num_positions: int) -> None:
        """Makes the table for streams of so many positions before any of them needs it."""
        self._distances(num_positions)

    def _distances(self, num_positions: int) -> Tensor:
        """[heads, head_dim, 2 N - 1] for the distances N - 1 .. 1 - N, N >= num_positions."""
        size = self._table.shape[-1] // 2 + 1 if self._table.numel() else 0
        if size < num_positions:
            size = max(_FIRST_TABLE, 2 * size)
            while size < num_positions:
                size *= 2
            weight = self.position.weight
            encoding = sinusoids(torch.arange(size - 1, -size, -1), len(weight)).to(weight)
            projected = self.position(encoding).mul_(self._scale)
            # A captured graph reads the old one for as long as it lives.
            self._outgrown.append(self._table)
            self._table = projected.view(2 * size - 1, *self._heads[1:]).permute(1, 2, 0).contiguous()
        return self._table
