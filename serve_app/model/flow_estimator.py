"""The flow's velocity estimator, one chunk at a time. Architecture: upstream `cosyvoice/flow/decoder.py`
(`CausalConditionalDecoder`), a U-Net of Matcha-TTS (arXiv 2309.03199) with a single resolution.

Under the streaming mask nothing of a chunk depends on later chunks, so an Euler step of a chunk needs of the past only
the keys and values of that step, and two inputs of each convolution.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from serve_app.model.context import Context, ContextShape, SpareMemory
from serve_app.model.dims import EstimatorDims
from serve_app.model.layers import (
    CausalConv,
    Norm,
    Projection,
    frozen,
    gather_tails,
    mish,
    scatter_tails,
)
from serve_app.model.past import Past, RaggedPast

_KERNEL = 3
_FF_FACTOR = 4
_NORM_EPS = 1e-5
_TIME_SCALE = 1000


def expected_tensors(dims: EstimatorDims) -> dict[str, tuple[int, ...]]:
    """Name -> shape, without the prefix `decoder.estimator.`."""
    C, inner, hidden = dims.channels, dims.num_heads * dims.attention_head_dim, _FF_FACTOR * dims.channels
    shapes: dict[str, tuple[int, ...]] = {
        "time_mlp.linear_1.weight": (hidden, dims.in_channels),
        "time_mlp.linear_1.bias": (hidden,),
        "time_mlp.linear_2.weight": (hidden, hidden),
        "time_mlp.linear_2.bias": (hidden,),
        "final_proj.weight": (dims.out_channels, C, 1),
        "final_proj.bias": (dims.out_channels,),
    }

    def block(prefix: str, width: int) -> None:
        shapes[f"{prefix}block.0.weight"] = (C, width, _KERNEL)
        shapes[f"{prefix}block.0.bias"] = shapes[f"{prefix}block.2.weight"] = shapes[f"{prefix}block.2.bias"] = (C,)

    block("final_block.", C)
    for stage, width, has_conv in _stages(dims):
        resnet = f"{stage}0."
        block(f"{resnet}block1.", width)
        block(f"{resnet}block2.", C)
        shapes |= {f"{resnet}mlp.1.weight": (C, hidden), f"{resnet}mlp.1.bias": (C,)}
        shapes |= {f"{resnet}res_conv.weight": (C, width, 1), f"{resnet}res_conv.bias": (C,)}
        for index in range(dims.n_blocks):
            layer = f"{stage}1.{index}."
            for norm in ("norm1", "norm3"):
                shapes |= {f"{layer}{norm}.weight": (C,), f"{layer}{norm}.bias": (C,)}
            shapes |= {f"{layer}attn1.to_{name}.weight": (inner, C) for name in "qkv"}
            shapes |= {f"{layer}attn1.to_out.0.weight": (C, inner), f"{layer}attn1.to_out.0.bias": (C,)}
            shapes |= {f"{layer}ff.net.0.proj.weight": (hidden, C), f"{layer}ff.net.0.proj.bias": (hidden,)}
            shapes |= {f"{layer}ff.net.2.weight": (C, hidden), f"{layer}ff.net.2.bias": (C,)}
        if has_conv:
            shapes |= {f"{stage}2.weight": (C, C, _KERNEL), f"{stage}2.bias": (C,)}
    return shapes


def _stages(dims: EstimatorDims) -> list[tuple[str, int, bool]]:
    """Prefix, input width and whether a convolution ends it, for the way down, the middle and the way up."""
    middle = [(f"mid_blocks.{index}.", dims.channels, False) for index in range(dims.num_mid_blocks)]
    return [("down_blocks.0.", dims.in_channels, True), *middle, ("up_blocks.0.", 2 * dims.channels, True)]


@dataclass(eq=False, slots=True)
class EstimatorState:
    """What one stream keeps. tails: [steps, rows, width], the last inputs of every convolution."""

    context: Context
    tails: Tensor

    @property
    def num_bytes(self) -> int:
        return self.context.num_bytes + self.tails.nbytes

    def clone(self, *, grows: bool = True) -> "EstimatorState":
        """As `Context.clone` says."""
        return EstimatorState(self.context.clone(grows=grows), self.tails.clone())

    def close(self) -> None:
        """Idempotent."""
        self.context.close()


@dataclass(slots=True)
class ChunkRun:
    """One chunk of B streams on its way through the Euler steps.

    tails: [steps, B * rows, width], gathered; each becomes the last inputs of its convolution.
    What the layers take of it, in their order: the state of the next convolution and of the next attention.
    """

    past: Past
    tails: Tensor
    step: int = 0
    _next_tails: Iterator[Tensor] = field(default_factory=lambda: iter(()))
    _next_layer: Iterator[int] = field(default_factory=itertools.count)

    def begin_step(self, step: int, num_rows: int, tail_widths: list[int]) -> None:
        """num_rows: B * rows, or B where the first row of each stream runs alone."""
        self.step = step
        tails = self.tails[step][:: self.tails.shape[1] // num_rows]
        self._next_tails = iter(torch.split(tails, tail_widths, dim=-1))
        self._next_layer = itertools.count()

    def next_tail(self) -> Tensor:
        return next(self._next_tails)

    def attend(self, qkv: Tensor) -> Tensor:
        """[B * rows, T, 3, heads, head_dim] -> [B * rows, T, heads * head_dim]."""
        return self.past.attend(next(self._next_layer), self.step, qkv)


class _Block(nn.Module):
    """Causal convolution, layer norm, Mish."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self.conv = CausalConv(tensors[f"{prefix}block.0.weight"], tensors[f"{prefix}block.0.bias"])
        self.norm = Norm(tensors[f"{prefix}block.2.weight"], tensors[f"{prefix}block.2.bias"], _NORM_EPS)

    def forward(self, x: Tensor, run: ChunkRun) -> Tensor:
        return mish(self.norm(self.conv(x, run.next_tail())))


class _Resnet(nn.Module):
    """Two blocks with the time embedding between them, and a linear shortcut."""

    def __init__(self, tensors: Mapping[str, Tensor], prefix: str, times: Tensor) -> None:
        """times: [steps, hidden], the time embeddings behind their Mish."""
        super().__init__()
        self.block1 = _Block(tensors, f"{prefix}block1.")
        self.block2 = _Block(tensors, f"{prefix}block2.")
        self.shortcut = Projection(tensors[f"{prefix}res_conv.weight"][:, :, 0], tensors[f"{prefix}res_conv.bias"])
        self.time_shift = frozen(F.linear(times, tensors[f"{prefix}mlp.1.weight"], tensors[f"{prefix}mlp.1.bias"]))

    def forward(self, x: Tensor, run: ChunkRun) -> Tensor:
        y = self.block1(x, run).add_(self.time_shift[run.step])
        result: Tensor = self.block2(y, run).add_(self.shortcut(x))
        return result


class _TransformerBlock(nn.Module):
    """Attention without positions, then a feed-forward with exact GELU, each behind a layer norm."""

    def __init__(self, dims: EstimatorDims, tensors: Mapping[str, Tensor], prefix: str) -> None:
        super().__init__()
        self._heads = (3, dims.num_heads, dims.attention_head_dim)
        self.norm1 = Norm(tensors[f"{prefix}norm1.weight"], tensors[f"{prefix}norm1.bias"], _NORM_EPS)
        self.norm3 = Norm(tensors[f"{prefix}norm3.weight"], tensors[f"{prefix}norm3.bias"], _NORM_EPS)
        self.qkv = Projection(torch.cat([tensors[f"{prefix}attn1.to_{name}.weight"] for name in "qkv"]))
        self.out = Projection(tensors[f"{prefix}attn1.to_out.0.weight"], tensors[f"{prefix}attn1.to_out.0.bias"])
        self.widen = Projection(tensors[f"{prefix}ff.net.0.proj.weight"], tensors[f"{prefix}ff.net.0.proj.bias"])
        self.narrow = Projection(tensors[f"{prefix}ff.net.2.weight"], tensors[f"{prefix}ff.net.2.bias"])

    def forward(self, x: Tensor, run: ChunkRun) -> Tensor:
        """Adds to x in place."""
        x += self.out(run.attend(self.qkv(self.norm1(x)).unflatten(-1, self._heads)))
        x += self.narrow(F.gelu(self.widen(self.norm3(x))))
        return x


class _Stage(nn.Module):
    def __init__(self, dims: EstimatorDims, tensors: Mapping[str, Tensor], prefix: str, times: Tensor) -> None:
        super().__init__()
        self.resnet = _Resnet(tensors, f"{prefix}0.", times)
        self.blocks = nn.ModuleList(
            _TransformerBlock(dims, tensors, f"{prefix}1.{index}.") for index in range(dims.n_blocks)
        )

    def forward(self, x: Tensor, run: ChunkRun) -> Tensor:
        x = self.resnet(x, run)
        for block in self.blocks:
            x = block(x, run)
        return x


class Estimator(nn.Module):
    """The velocity of a chunk at one Euler step."""

    def __init__(
        self, dims: EstimatorDims, tensors: Mapping[str, Tensor], times: Sequence[float], rows: int, chunk_frames: int
    ) -> None:
        """tensors: as `expected_tensors` says; times: of the Euler steps, from 0 on.

        rows: evaluations of each step side by side, with and without the conditions where there is guidance.
        """
        super().__init__()
        embedding = mish(_embed_times(dims, tensors, times))
        self.stages = nn.ModuleList(_Stage(dims, tensors, prefix, embedding) for prefix, _, _ in _stages(dims))
        self.down_conv = CausalConv(tensors["down_blocks.0.2.weight"], tensors["down_blocks.0.2.bias"])
        self.up_conv = CausalConv(tensors["up_blocks.0.2.weight"], tensors["up_blocks.0.2.bias"])
        self.final_block = _Block(tensors, "final_block.")
        self.final_proj = Projection(tensors["final_proj.weight"][:, :, 0], tensors["final_proj.bias"])
        num_layers = (dims.num_mid_blocks + 2) * dims.n_blocks
        self.context_shape = ContextShape(
            num_layers, len(times), rows, dims.num_heads, dims.attention_head_dim, chunk_frames
        )
        self._tail_widths = self._list_tail_widths()

    def _list_tail_widths(self) -> list[int]:
        """In the order in which `forward` meets the convolutions."""
        convs: list[CausalConv] = []
        for index, stage in enumerate(self.stages):
            assert isinstance(stage, _Stage)
            convs += [stage.resnet.block1.conv, stage.resnet.block2.conv]
            if index == 0:
                convs.append(self.down_conv)
        convs += [self.up_conv, self.final_block.conv]
        return [conv.tail_width for conv in convs]

    @property
    def dtype(self) -> torch.dtype:
        return self.final_proj.weight.dtype

    def open(self, poison: bool, max_chunks: int | None = None, spare: SpareMemory | None = None) -> EstimatorState:
        """spare: None for memory of its own."""
        like = self.final_proj.weight
        context = Context.empty(self.context_shape, like, poison=poison, spare=spare, max_chunks=max_chunks)
        return EstimatorState(context, self.new_tails())

    def new_tails(self) -> Tensor:
        """[steps, rows, width]: the state of the convolutions of a new stream."""
        shape = self.context_shape
        return self.final_proj.weight.new_zeros((shape.steps, shape.rows, sum(self._tail_widths)))

    def begin(self, states: Sequence[EstimatorState], num_valid: Sequence[int]) -> ChunkRun:
        """Gathers B streams for one chunk. num_valid: real frames of each; the rest of a chunk is padding."""
        for state in states:
            state.context.reserve()
        past = RaggedPast([state.context for state in states], num_valid)
        return ChunkRun(past, gather_tails([state.tails for state in states]))

    def commit(self, run: ChunkRun, states: Sequence[EstimatorState], num_valid: Sequence[int]) -> None:
        """Scatters: the chunk becomes part of each stream's past."""
        scatter_tails(run.tails, [state.tails for state in states])
        for state, count in zip(states, num_valid, strict=True):
            state.context.commit(count)

    def forward(self, x: Tensor, run: ChunkRun, step: int) -> Tensor:
        """x: [B * rows, T, in_channels], a stream's rows beside each other -> [B * rows, T, out_channels].

        Or [B, T, in_channels] for the first row of each stream alone.
        """
        run.begin_step(step, len(x), self._tail_widths)
        first, *middle, last = self.stages
        skip = first(x, run)
        x = self.down_conv(skip, run.next_tail())
        for stage in middle:
            x = stage(x, run)
        x = last(torch.cat((x, skip), dim=-1), run)
        x = self.final_block(self.up_conv(x, run.next_tail()), run)
        velocity: Tensor = self.final_proj(x)
        return velocity


def _embed_times(dims: EstimatorDims, tensors: Mapping[str, Tensor], times: Sequence[float]) -> Tensor:
    """Sinusoids, then two linear maps with SiLU between -> [steps, hidden]."""
    half = dims.in_channels // 2
    like = tensors["time_mlp.linear_1.weight"]
    rates = torch.exp(torch.arange(half, dtype=torch.float32) * -(math.log(10000) / (half - 1)))
    angles = _TIME_SCALE * torch.tensor(times, dtype=torch.float32)[:, None] * rates
    sinusoids = torch.cat((angles.sin(), angles.cos()), dim=-1).to(like)
    hidden = F.silu(F.linear(sinusoids, like, tensors["time_mlp.linear_1.bias"]))
    return F.linear(hidden, tensors["time_mlp.linear_2.weight"], tensors["time_mlp.linear_2.bias"])
