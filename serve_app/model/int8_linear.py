"""The language model's linear layers with 8-bit weights, for CPUs: less memory to read for each token, so faster.

Weights are rounded per output channel when the model is loaded, activations per row on the way, so that a stream's
numbers do not depend on its company: sums of integers are exact. torch's own dynamic quantisation is faster still, but
gives a whole batch one scale, and is deprecated; its weight-only kernel is faster for one stream and slower for eight,
and rounds activations to bf16.
"""

import torch
from torch import Tensor, nn

from serve_app.model.language_model import LanguageModel
from serve_app.model.layers import Projection

_LINEARS = ("qkv", "out", "gate_up", "down")
_LARGEST = 127
_SMALLEST_SCALE = 1e-12
"""A row of zeros must not divide by zero."""


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows: [N, K], float32 -> int8 [N, K] and scales [N, 1] with rows = int8 * scales, nearly."""
    scales = rows.abs().amax(dim=1, keepdim=True).clamp_min(_SMALLEST_SCALE) / _LARGEST
    return (rows / scales).round_().to(torch.int8), scales


class Int8Linear(nn.Module):
    """A linear layer with weights in 8 bits; float32 in and out."""

    def __init__(self, linear: Projection) -> None:
        super().__init__()
        weight, scales = rounded(linear.weight.detach().t())
        self._weight = weight.t().contiguous()
        self._scales = scales.t().contiguous()
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, in], on the CPU -> [N, out]."""
        rows, scales = rounded(x)
        result = torch._int_mm(rows, self._weight).float().mul_(scales).mul_(self._scales)
        return result if self._bias is None else result.add_(self._bias)


def use_int8(model: LanguageModel) -> None:
    """Replaces the linear layers of the decoder; embeddings and the speech head stay as they are."""
    for layer in model.layers:
        for name in _LINEARS:
            linear = getattr(layer, name)
            assert isinstance(linear, Projection)
            setattr(layer, name, Int8Linear(linear))
