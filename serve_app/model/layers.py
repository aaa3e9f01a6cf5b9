"""Layers, of the flow above all, that keep state from chunk to chunk. The state is passed in; a layer holds only
weights."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def frozen(tensor: Tensor) -> nn.Parameter:
    """A weight that is never trained."""
    return nn.Parameter(tensor, requires_grad=False)


class CausalConv(nn.Module):
    """Convolution over time that looks only left: `kernel - 1` inputs of the past are its state."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight: [out, in, kernel], as torch's Conv1d stores it; bias: [out]."""
        super().__init__()
        self.out_channels, self.in_channels, self.kernel = weight.shape
        # One matrix product over windows of the input: on a CPU faster than conv1d, which would also need [B, C, T].
        self.weight = frozen(weight.permute(2, 1, 0).reshape(-1, self.out_channels))
        self.bias = frozen(bias)

    @property
    def tail_width(self) -> int:
        """Numbers of state for one row."""
        return (self.kernel - 1) * self.in_channels

    def forward(self, x: Tensor, tail: Tensor) -> Tensor:
        """x: [B, T, in]; tail: [B, tail_width], the inputs before x, zeros at the start; becomes the last inputs.

        Returns [B, T, out].
        """
        padded = torch.cat((tail.view(len(x), self.kernel - 1, self.in_channels), x), dim=1)
        tail.copy_(padded[:, x.shape[1] :].flatten(1))
        return self.valid(padded)

    def valid(self, padded: Tensor) -> Tensor:
        """padded: [B, T + kernel - 1, in], contiguous -> [B, T, out]."""
        num_rows, length, channels = padded.shape
        num_outputs = length - self.kernel + 1
        # A window's inputs lie beside each other in memory, so windows are a view with overlapping rows.
        windows = padded.as_strided(
            (num_rows, num_outputs, self.kernel * channels), (length * channels, channels, 1), padded.storage_offset()
        )
        y = torch.addmm(self.bias, windows.reshape(num_rows * num_outputs, -1), self.weight)
        return y.view(num_rows, num_outputs, -1)


class Norm(nn.Module):
    """Layer norm over the last axis."""

    def __init__(self, weight: Tensor, bias: Tensor, eps: float) -> None:
        """weight, bias: [C]."""
        super().__init__()
        self.weight = frozen(weight)
        self.bias = frozen(bias)
        self._shape = (len(weight),)
        self._eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self._shape, self.weight, self.bias, self._eps)


class Projection(nn.Module):
    """Linear map of the last axis."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """weight: [out, in]; bias: [out]."""
        super().__init__()
        # As [in, out] a product with some rows is faster on a CPU: by a tenth to a third, with eight by half.
        self.weight = frozen(weight.T.contiguous())
        self.bias = None if bias is None else frozen(bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., in] -> [..., out]."""
        rows = x.reshape(-1, x.shape[-1])
        y = rows @ self.weight if self.bias is None else torch.addmm(self.bias, rows, self.weight)
        return y.view(*x.shape[:-1], -1)


def mish(x: Tensor) -> Tensor:
    """x tanh(ln(1 + e^x)), as x - 2 x / (1 + (1 + e^x)^2): half the time of torch's own on a CPU."""
    return x.addcdiv(x, torch.exp(x).add_(1).square_().add_(1), value=-2)


@dataclass(frozen=True, slots=True)
class ContextShape:
    """What decides the size of a `Context`.

    steps, rows: evaluations of the network for one chunk, one after another and side by side.
    chunk: positions in a chunk.
    """

    layers: int
    steps: int
    rows: int
    heads: int
    head_dim: int
    chunk: int


@dataclass(eq=False, slots=True)
class Context:
    """The keys and values that one stream has committed, of every attention layer of a network.

    layers: for each, [steps, 2, rows, heads, capacity, head_dim]: keys, then values. Positions from `length` on are
        spare; a chunk is written there in place, so that nothing of the past is copied for it.
        There may be no layer at all.
    length: committed positions that are held. capacity: positions that there is room for.
    max_chunks: so many committed chunks are seen, older ones forgotten; None: all.
    poison: fill the spare positions with NaN, so that a read of one fails loudly (tests).
    """

    layers: list[Tensor]
    chunk: int
    poison: bool
    max_chunks: int | None = None
    length: int = 0
    capacity: int = 0

    @classmethod
    def empty(cls, shape: ContextShape, like: Tensor, poison: bool, max_chunks: int | None = None) -> "Context":
        """like: gives type and device."""
        size = (shape.steps, 2, shape.rows, shape.heads, 0, shape.head_dim)
        return cls([like.new_empty(size) for _ in range(shape.layers)], shape.chunk, poison, max_chunks)

    @property
    def num_bytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers)

    def clone(self) -> "Context":
        """An independent copy with room for two more chunks."""
        copy = Context(list(self.layers), self.chunk, self.poison, self.max_chunks, self.length)
        copy._resize(self.length + 2 * self.chunk)
        return copy

    def reserve(self) -> None:
        """Makes room for one more chunk. Capacity grows by half, so a position is copied three times at most; what
        nobody will see again goes then."""
        if self.capacity < self.length + self.chunk:
            unseen = self._first_seen()
            num_chunks = (self.length - unseen) // self.chunk
            self._resize((num_chunks + 1 + num_chunks // 2) * self.chunk, unseen)

    def _first_seen(self) -> int:
        return 0 if self.max_chunks is None else max(0, self.length - self.max_chunks * self.chunk)

    def extend(self, layer: int, step: int, fresh: Tensor, num_valid: int) -> tuple[Tensor, Tensor]:
        """Writes a chunk's keys and values, and returns those that its queries may see.

        fresh: [rows, T, 2, heads, head_dim], T <= chunk, of which the first num_valid positions are real.
        Returns keys and values, each [rows, heads, positions seen + num_valid, head_dim]. `commit` makes them
        permanent.
        """
        buffer, first = self.layers[layer][step], self._first_seen()
        buffer.narrow(3, self.length, fresh.shape[1]).copy_(fresh.permute(2, 0, 3, 1, 4))
        keys, values = buffer.narrow(3, first, self.length - first + num_valid).unbind(0)
        return keys, values

    def commit(self, num_positions: int) -> None:
        self.length += num_positions

    def _resize(self, capacity: int, first: int = 0) -> None:
        """first: positions before it are dropped."""
        self.capacity, end = capacity, self.length
        self.length -= first
        # One layer at a time: the peak is one layer above what is kept.
        for index, old in enumerate(self.layers):
            new = old.new_empty((*old.shape[:4], capacity, old.shape[5]))
            new[..., : self.length, :] = old[..., first:end, :]
            if self.poison:
                new[..., self.length :, :] = torch.nan
            self.layers[index] = new


def gather_tails(tails: Sequence[Tensor]) -> Tensor:
    """[steps, rows, width] of each of B streams -> [steps, B * rows, width]; of one stream, the tensor itself."""
    return tails[0] if len(tails) == 1 else torch.cat(list(tails), dim=1)


def scatter_tails(batch: Tensor, tails: Sequence[Tensor]) -> None:
    """The reverse of `gather_tails`, into the streams' own tensors."""
    if len(tails) > 1:
        for tail, part in zip(tails, batch.chunk(len(tails), dim=1), strict=True):
            tail.copy_(part)
