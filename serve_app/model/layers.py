"""Layers, of the flow above all, that keep state from chunk to chunk. The state is passed in; a layer holds only
weights."""

from collections.abc import Sequence

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
        """x: [..., in], of any precision -> [..., out], in that of the weight."""
        rows = x.reshape(-1, x.shape[-1]).to(self.weight.dtype)
        y = rows @ self.weight if self.bias is None else torch.addmm(self.bias, rows, self.weight)
        return y.view(*x.shape[:-1], -1)


def mish(x: Tensor) -> Tensor:
    """x tanh(ln(1 + e^x)), as x - 2 x / (1 + (1 + e^x)^2): half the time of torch's own on a CPU."""
    return x.addcdiv(x, torch.exp(x).add_(1).square_().add_(1), value=-2)


def gather_tails(tails: Sequence[Tensor]) -> Tensor:
    """[steps, rows, width] of each of B streams -> [steps, B * rows, width]; of one stream, the tensor itself."""
    return tails[0] if len(tails) == 1 else torch.cat(list(tails), dim=1)


def scatter_tails(batch: Tensor, tails: Sequence[Tensor]) -> None:
    """The reverse of `gather_tails`, into the streams' own tensors."""
    if len(tails) > 1:
        for tail, part in zip(tails, batch.chunk(len(tails), dim=1), strict=True):
            tail.copy_(part)
