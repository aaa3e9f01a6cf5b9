"""Qwen2's decoder layers over a slotted key/value cache. Architecture: Qwen2 technical report (arXiv 2407.10671)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serve_app.model.dims import LanguageModelDims
from serve_app.model.layers import Projection, frozen


@dataclass(frozen=True, slots=True)
class Rotary:
    """Cosine and sine of the rotary angles of some positions, each [N, head_dim]."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def at(cls, positions: Tensor, head_dim: int, theta: float) -> "Rotary":
        """positions: [N], integers. Angles as in RoFormer (arXiv 2104.09864), in fp32."""
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
        angles = positions.float()[:, None] * torch.pow(theta, -exponents)
        angles = torch.cat((angles, angles), dim=-1)
        return cls(angles.cos(), angles.sin())

    def rotate(self, x: Tensor) -> Tensor:
        """x: [N, heads, head_dim] -> the same shape and precision. Pairs are (i, i + head_dim / 2)."""
        first, second = x.chunk(2, dim=-1)
        return (x * self.cos[:, None] + torch.cat((-second, first), dim=-1) * self.sin[:, None]).to(x.dtype)


class Reading(Protocol):
    """The slots that a decode reads and writes, and how.

    slots, positions: [B], the latter of the newest entry, which is written before it is read.
    """

    @property
    def slots(self) -> Tensor: ...

    @property
    def positions(self) -> Tensor: ...

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """query: [B, kv_heads, group, d]; keys, values: [slots, kv_heads, max_positions, d] -> like query."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class SpanReading:
    """All streams at once over copies of the same length: of fixed shape, as a CUDA graph needs it.

    mask: [B, 1, 1, span], True where a query may look.
    """

    slots: Tensor
    positions: Tensor
    mask: Tensor

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        span = self.mask.shape[-1]
        own_keys, own_values = (cache[:, :, :span].index_select(0, self.slots) for cache in (keys, values))
        return F.scaled_dot_product_attention(query, own_keys, own_values, attn_mask=self.mask)


@dataclass(frozen=True, slots=True, eq=False)
class RowReading:
    """Stream by stream, each as far as it goes, with no copy: half to a quarter of the time on a CPU.

    rows: slot and number of entries of each.
    """

    slots: Tensor
    positions: Tensor
    rows: Sequence[tuple[int, int]]

    def attend(self, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        attended = [
            F.scaled_dot_product_attention(part, keys[slot, None, :, :count], values[slot, None, :, :count])
            for part, (slot, count) in zip(torch.split(query, 1), self.rows, strict=True)
        ]
        return attended[0] if len(attended) == 1 else torch.cat(attended)


class DecoderLayer(nn.Module):
    """Grouped-query attention, then a gated feed-forward, each behind an RMS norm and added to its input."""

    def __init__(self, dims: LanguageModelDims, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self._dims = dims
        attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
        # Three projections of the same input are one matrix product, and so are gate and up.
        self.qkv = Projection(
            torch.cat([tensors[f"{attention}{name}_proj.weight"] for name in "qkv"]),
            torch.cat([tensors[f"{attention}{name}_proj.bias"] for name in "qkv"]),
        )
        self.out = Projection(tensors[f"{attention}o_proj.weight"])
        self.gate_up = Projection(torch.cat([tensors[f"{mlp}{name}_proj.weight"] for name in ("gate", "up")]))
        self.down = Projection(tensors[f"{mlp}down_proj.weight"])
        self.attention_norm = frozen(tensors[f"{prefix}input_layernorm.weight"])
        self.mlp_norm = frozen(tensors[f"{prefix}post_attention_layernorm.weight"])

    @property
    def norms(self) -> tuple[nn.Parameter, nn.Parameter]:
        return self.attention_norm, self.mlp_norm

    def prefill(
        self,
        x: Tensor,
        rotary: Rotary,
        mask: Tensor,
        keys: Tensor,
        values: Tensor,
        position: int,
        num_wanted: int,
    ) -> Tensor:
        """S new positions of one stream, of which the last W = num_wanted are needed behind this layer.

        x: [S, hidden]; mask: [S, position + S], True where a query may look -> [W, hidden].
        keys, values: [kv_heads, >= position + S, head_dim], this layer's slot; the new positions are written.
        """
        end = position + len(x)
        query, key, value = self._project(x, rotary)
        keys[:, position:end] = key.transpose(0, 1)
        values[:, position:end] = value.transpose(0, 1)
        x, query, mask = x[-num_wanted:], query[-num_wanted:], mask[-num_wanted:]
        # [S, kv_heads * group, d] -> [kv_heads, group, S, d]: a group of query heads shares a key/value head.
        group = self._dims.query_heads // self._dims.kv_heads
        grouped = query.transpose(0, 1).reshape(self._dims.kv_heads, group, len(x), -1)
        attended = F.scaled_dot_product_attention(
            grouped,
            keys[:, None, :end].expand(-1, group, -1, -1),
            values[:, None, :end].expand(-1, group, -1, -1),
            attn_mask=mask,
        )
        return self._finish(x, attended.flatten(0, 1).transpose(0, 1).flatten(1))

    def decode(self, x: Tensor, rotary: Rotary, keys: Tensor, values: Tensor, reading: "Reading") -> Tensor:
        """One new position of each of B streams. x: [B, hidden].

        keys, values: [slots, kv_heads, max_positions, head_dim], this layer's whole cache, written too.
        """
        query, key, value = self._project(x, rotary)
        keys[reading.slots, :, reading.positions] = key
        values[reading.slots, :, reading.positions] = value
        # The query heads of a group stand where a prefill has its query positions: [B, kv_heads, group, d].
        grouped = query.reshape(len(x), self._dims.kv_heads, -1, self._dims.head_dim)
        return self._finish(x, reading.attend(grouped, keys, values).flatten(1))

    def _project(self, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor, Tensor]:
        """x: [N, hidden] -> query [N, query_heads, d], key and value [N, kv_heads, d], positions applied."""
        dims = self._dims
        normed = F.rms_norm(x, (dims.hidden,), self.attention_norm, dims.rms_eps)
        heads = self.qkv(normed).view(len(x), -1, dims.head_dim)
        rotated = rotary.rotate(heads[:, : -dims.kv_heads])
        query, key = torch.split(rotated, [dims.query_heads, dims.kv_heads], dim=1)
        return query, key, heads[:, -dims.kv_heads :]

    def _finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """x: [N, hidden], the layer's input; attended: [N, query_heads * head_dim] -> [N, hidden]."""
        x = torch.add(x, self.out(attended))
        normed = F.rms_norm(x, (self._dims.hidden,), self.mlp_norm, self._dims.rms_eps)
        gate, up = self.gate_up(normed).chunk(2, dim=-1)
        return torch.add(x, self.down(F.silu(gate) * up))
