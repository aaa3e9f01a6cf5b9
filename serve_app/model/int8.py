"""The language model's linear layers with 8-bit weights, for CPUs: less memory to read for each token, so faster.

Weights are rounded per output channel when the model is loaded, activations per row on the way, so that a stream's
numbers do not depend on its company: sums of integers are exact. torch's own dynamic quantisation gives a whole batch
one scale, and is deprecated; its weight-only kernel is slower for eight streams, and rounds activations to bf16.
"""

import functools

import torch
from torch import Tensor, nn

from serve_app.model.language_model import LanguageModel
from serve_app.model.layers import Projection

_LARGEST = 127
_ZERO = 128
_SMALLEST_SCALE = 1e-12
"""A row of zeros must not divide by zero."""


def rounded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """rows: [N, K], float32 -> whole numbers from -127 to 127, float32 [N, K], and scales [N, 1] with rows = numbers *
    scales, nearly."""
    scales = rows.abs().amax(dim=1, keepdim=True).clamp_min(_SMALLEST_SCALE) / _LARGEST
    return (rows / scales).round_(), scales


def _packed_product(numbers: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """numbers: as `rounded` gives them; scales, zeros: of the weights -> float32.

    What inductor compiles quantised layers to: half the time of `torch._int_mm`, which lays out the weights anew.
    """
    # Unsigned: for signed rows oneDNN has no fast product.
    rows = (numbers + _ZERO).to(torch.uint8)
    result: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, _ZERO, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return result


@functools.cache
def packs_exactly() -> bool:
    """Whether oneDNN's product is there, and exact: older CPUs add up pairs of products in 16 bits, and overflow."""
    weight = torch.full((64, 256), _LARGEST, dtype=torch.int8)
    weight[::2] = -_LARGEST
    numbers = torch.full((2, 256), float(_LARGEST))
    numbers[1, ::2] = -_LARGEST
    try:
        packed = torch.ops.onednn.qlinear_prepack(weight, None)
        ours = _packed_product(numbers, packed, torch.ones(len(weight)), torch.zeros(len(weight), dtype=torch.int64))
    except (AttributeError, RuntimeError):
        return False
    return torch.equal(ours, numbers @ weight.float().t())


class Int8Linear(nn.Module):
    """A linear layer with weights in 8 bits; float32 in and out."""

    def __init__(self, linear: Projection) -> None:
        super().__init__()
        numbers, scales = rounded(linear.weight.detach().t().contiguous())
        weight = numbers.to(torch.int8)
        self._scales = scales.flatten()
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._packed = torch.ops.onednn.qlinear_prepack(weight, None) if packs_exactly() else None
        self._weight = weight.t().contiguous() if self._packed is None else None
        self._bias = None if linear.bias is None else linear.bias.detach()

    def forward(self, x: Tensor) -> Tensor:
        """x: [N, in], on the CPU -> [N, out]."""
        numbers, scales = rounded(x)
        if self._packed is None:
            assert self._weight is not None
            result = torch._int_mm(numbers.to(torch.int8), self._weight).float().mul_(self._scales)
        else:
            result = _packed_product(numbers, self._packed, self._scales, self._zeros)
        return result.mul_(scales) if self._bias is None else torch.addcmul(self._bias, result, scales)


def use_int8(model: LanguageModel) -> None:
    """Replaces the linear layers of the decoder; embeddings and the speech head stay as they are."""
    for layer in model.layers:
        for name, child in layer.named_children():
            if isinstance(child, Projection):
                setattr(layer, name, Int8Linear(child))
