"""Layers with state: streamed equals whole, and nothing reads what it should not."""

import pytest
import torch
from torch.nn import functional as F

from serve_app.model.layers import CausalConv, gather_tails, scatter_tails


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("cuts", [(17,), (5, 5, 7), (1,) * 17])
def test_causal_convolution_streamed_equals_whole(
    kernel: int, cuts: tuple[int, ...], generator: torch.Generator
) -> None:
    weight, bias = torch.randn(6, 4, kernel, generator=generator), torch.randn(6, generator=generator)
    x = torch.randn(2, 17, 4, generator=generator)
    conv = CausalConv(weight, bias)
    tail = torch.zeros(2, conv.tail_width)
    streamed = torch.cat([conv(part, tail) for part in torch.split(x, list(cuts), dim=1)], dim=1)
    whole = F.conv1d(F.pad(x.transpose(1, 2), (kernel - 1, 0)), weight, bias).transpose(1, 2)
    assert (streamed - whole).abs().max() < 1e-5
    assert torch.equal(tail.view(2, kernel - 1, 4), x[:, 17 - kernel + 1 :])


def test_tails_are_gathered_and_scattered(generator: torch.Generator) -> None:
    tails = [torch.randn(3, 2, 7, generator=generator) for _ in range(3)]
    copies = [tail.clone() for tail in tails]
    batch = gather_tails(tails)
    assert torch.equal(batch, torch.cat(tails, dim=1))
    batch += 1
    scatter_tails(batch, tails)
    assert all(torch.equal(tail, copy + 1) for tail, copy in zip(tails, copies, strict=True))
    alone = gather_tails(tails[:1])
    assert alone is tails[0]
    scatter_tails(alone, tails[:1])
