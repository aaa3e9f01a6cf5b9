"""Speech tokens to the flow's condition at the frame rate, one chunk at a time. Architecture: upstream
`cosyvoice/transformer/upsample_encoder.py` (`UpsampleConformerEncoder`) with its streaming mask.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from serve_app.model import relative_attention
from serve_app.model.context import Context, ContextShape, SpareMemory
from serve_app.model.dims import FlowDims
from serve_app.model.layers import (
    CausalConv,
    Norm,
    Projection,
    frozen,
    gather_tails,
    scatter_tails,
)
from serve_app.model.past import Past, RaggedPast
from serve_app.model.relative_attention import RelativeLayer

_NORM_EPS = 1e-5
_LOOKAHEAD_SLOPE = 0.01
_CONV_KERNEL = 3


def expected_tensors(dims: FlowDims) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the token embedding, the encoder and the projection behind it."""
    encoder, C = dims.encoder, dims.encoder.output_size
    shapes: dict[str, tuple[int, ...]] = {
        "input_embedding.weight": (dims.vocab, dims.input_size),
        "encoder_proj.weight": (dims.mel_bins, C),
        "encoder_proj.bias": (dims.mel_bins,),
        "encoder.after_norm.weight": (C,),
        "encoder.after_norm.bias": (C,),
    }
    for name, kernel in (
        ("pre_lookahead_layer.conv1", dims.lookahead + 1),
        ("pre_lookahead_layer.conv2", _CONV_KERNEL),
        ("up_layer.conv", 2 * dims.token_mel_ratio + 1),
    ):
        shapes |= {f"encoder.{name}.weight": (C, C, kernel), f"encoder.{name}.bias": (C,)}
    for name in ("embed", "up_embed"):
        shapes |= {f"encoder.{name}.out.0.weight": (C, encoder.input_size), f"encoder.{name}.out.0.bias": (C,)}
        shapes |= {f"encoder.{name}.out.1.weight": (C,), f"encoder.{name}.out.1.bias": (C,)}
    for part, count in (("encoders", encoder.num_blocks), ("up_encoders", encoder.num_up_blocks)):
        for index in range(count):
            shapes |= relative_attention.expected_tensors(
                f"encoder.{part}.{index}.", C, encoder.attention_heads, encoder.linear_units
            )
    return shapes


@dataclass(eq=False, slots=True)
class EncoderState:
    """What one stream keeps.

    tokens, frames: contexts of the layers at the token and at the frame rate.
    lookahead_tail, upsample_tail: [1, 1, width], the last inputs of the two causal convolutions.
    """

    tokens: Context
    frames: Context
    lookahead_tail: Tensor
    upsample_tail: Tensor

    @property
    def num_bytes(self) -> int:
        tails = self.lookahead_tail.nbytes + self.upsample_tail.nbytes
        return self.tokens.num_bytes + self.frames.num_bytes + tails

    def clone(self, *, grows: bool = True) -> "EncoderState":
        """As `Context.clone` says."""
        tokens, frames = self.tokens.clone(grows=grows), self.frames.clone(grows=grows)
        return EncoderState(tokens, frames, self.lookahead_tail.clone(), self.upsample_tail.clone())

    def close(self) -> None:
        """Idempotent."""
        self.tokens.close()
        self.frames.close()


class _Embed(nn.Module):
    """Linear, layer norm, and the scale that goes with position encodings."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.linear = Projection(tensors[f"{prefix}out.0.weight"], tensors[f"{prefix}out.0.bias"])
        scale = math.sqrt(len(tensors[f"{prefix}out.1.weight"]))
        self.norm = Norm(tensors[f"{prefix}out.1.weight"] * scale, tensors[f"{prefix}out.1.bias"] * scale, _NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.linear(x))
        return y


class FlowEncoder(nn.Module):
    def __init__(self, dims: FlowDims, tensors: Mapping[str, Tensor]) -> None:
        """tensors: as `expected_tensors` says, and others."""
        super().__init__()
        self._dims = dims
        # A token's embedding, its linear map and norm depend on nothing else: one table.
        self.embedding = frozen(_Embed(tensors, "encoder.embed.")(tensors["input_embedding.weight"]))
        self.lookahead_conv = _conv(tensors, "encoder.pre_lookahead_layer.conv1.")
        self.lookahead_causal_conv = _conv(tensors, "encoder.pre_lookahead_layer.conv2.")
        self.upsample_conv = _conv(tensors, "encoder.up_layer.conv.")
        self.upsample_embed = _Embed(tensors, "encoder.up_embed.")
        encoder = dims.encoder
        self.token_layers = _layers(tensors, "encoder.encoders.", encoder.num_blocks)
        self.frame_layers = _layers(tensors, "encoder.up_encoders.", encoder.num_up_blocks)
        self.after_norm = Norm(tensors["encoder.after_norm.weight"], tensors["encoder.after_norm.bias"], _NORM_EPS)
        self.projection = Projection(tensors["encoder_proj.weight"], tensors["encoder_proj.bias"])

        heads, head_dim = encoder.attention_heads, encoder.head_dim
        self.token_shape = ContextShape(encoder.num_blocks, 1, 1, heads, head_dim, dims.chunk_tokens)
        self.frame_shape = ContextShape(encoder.num_up_blocks, 1, 1, heads, head_dim, dims.chunk_frames)

    def open(self, poison: bool, max_chunks: int | None = None, spare: SpareMemory | None = None) -> EncoderState:
        """spare: None for memory of its own."""
        like = self.projection.weight
        return EncoderState(
            tokens=Context.empty(self.token_shape, like, poison=poison, spare=spare, max_chunks=max_chunks),
            frames=Context.empty(self.frame_shape, like, poison=poison, spare=spare, max_chunks=max_chunks),
            lookahead_tail=like.new_zeros((1, 1, self.lookahead_causal_conv.tail_width)),
            upsample_tail=like.new_zeros((1, 1, self.upsample_conv.tail_width)),
        )

    def forward(self, states: Sequence[EncoderState], ids: Sequence[Tensor], num_valid: Sequence[int]) -> Tensor:
        """The next chunk of B streams. Commits it.

        ids: [num_valid_i + lookahead_i] of each, where a lookahead shorter than `dims.lookahead` means that the stream
            ends there.
        num_valid: tokens in each chunk, T the most of them -> [B, T * token_mel_ratio, mel_bins].
        """
        ratio = self._dims.token_mel_ratio
        for state in states:
            state.tokens.reserve()
            state.frames.reserve()
        lookahead_tail = gather_tails([state.lookahead_tail for state in states])
        upsample_tail = gather_tails([state.upsample_tail for state in states])
        mu = self.encode(
            self._embed(ids, max(num_valid)),
            lookahead_tail[0],
            upsample_tail[0],
            RaggedPast([state.tokens for state in states], num_valid),
            RaggedPast([state.frames for state in states], [ratio * count for count in num_valid]),
        )
        scatter_tails(lookahead_tail, [state.lookahead_tail for state in states])
        scatter_tails(upsample_tail, [state.upsample_tail for state in states])
        for state, count in zip(states, num_valid, strict=True):
            state.tokens.commit(count)
            state.frames.commit(ratio * count)
        return mu

    def encode(self, x: Tensor, lookahead_tail: Tensor, upsample_tail: Tensor, tokens: Past, frames: Past) -> Tensor:
        """x: [B, T + lookahead, C], embedded -> [B, T * token_mel_ratio, mel_bins].

        The tails, [B, width], become the last inputs of their convolutions.
        """
        x = self._look_ahead(x, lookahead_tail)
        for index, layer in enumerate(self.token_layers):
            x = layer(x, index, tokens)
        x = self.upsample_conv(x.repeat_interleave(self._dims.token_mel_ratio, dim=1), upsample_tail)
        x = self.upsample_embed(x)
        for index, layer in enumerate(self.frame_layers):
            x = layer(x, index, frames)
        mu: Tensor = self.projection(self.after_norm(x))
        return mu

    def reserve_positions(self, num_frames: int) -> None:
        """Makes the tables of distances for streams of so many frames."""
        for layer in (*self.token_layers, *self.frame_layers):
            assert isinstance(layer, RelativeLayer)
            layer.reserve(num_frames)

    def _embed(self, ids: Sequence[Tensor], num_tokens: int) -> Tensor:
        """-> [B, num_tokens + lookahead, C], zeros where a stream has no token: upstream pads behind the embedding."""
        x = self.embedding.new_zeros((len(ids), num_tokens + self._dims.lookahead, self.embedding.shape[1]))
        for row, tokens in zip(x, ids, strict=True):
            row[: len(tokens)] = F.embedding(tokens.to(x.device), self.embedding)
        return x

    def _look_ahead(self, x: Tensor, tail: Tensor) -> Tensor:
        """x: [B, T + lookahead, C]; tail: [B, width] -> [B, T, C]."""
        y = F.leaky_relu(self.lookahead_conv.valid(x), _LOOKAHEAD_SLOPE)
        result: Tensor = self.lookahead_causal_conv(y, tail) + x[:, : y.shape[1]]
        return result


def _conv(tensors: Mapping[str, Tensor], prefix: str) -> CausalConv:
    return CausalConv(tensors[f"{prefix}weight"], tensors[f"{prefix}bias"])


def _layers(tensors: Mapping[str, Tensor], prefix: str, count: int) -> nn.ModuleList:
    return nn.ModuleList(RelativeLayer(tensors, f"{prefix}{index}.") for index in range(count))
