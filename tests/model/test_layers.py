"""Layers with state: streamed equals whole, and nothing reads what it should not."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from serve_app.model.layers import CausalConv, Context, ContextShape, gather_tails, scatter_tails

SHAPE = ContextShape(layers=2, steps=3, rows=2, heads=2, head_dim=4, chunk=5)


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


def fresh(length: int, generator: torch.Generator) -> Tensor:
    return torch.randn(SHAPE.rows, length, 2, SHAPE.heads, SHAPE.head_dim, generator=generator)


def test_context_returns_what_was_committed_and_the_chunk(generator: torch.Generator) -> None:
    context = Context.empty(SHAPE, torch.empty(0), poison=True)
    written: dict[tuple[int, int], list[Tensor]] = {}
    for _ in range(6):
        context.reserve()
        for layer in range(SHAPE.layers):
            for step in range(SHAPE.steps):
                past = written.setdefault((layer, step), [])
                past.append(fresh(5, generator))
                keys, values = context.extend(layer, step, past[-1], 5)
                expected = torch.cat(past, dim=1).permute(2, 0, 3, 1, 4)
                assert torch.equal(keys, expected[0])
                assert torch.equal(values, expected[1])
        context.commit(5)
    assert context.length == 30
    assert context.num_bytes == sum(layer.nbytes for layer in context.layers)


def test_padding_of_a_partial_chunk_is_not_seen(generator: torch.Generator) -> None:
    context = Context.empty(SHAPE, torch.empty(0), poison=True)
    context.reserve()
    chunk = fresh(5, generator)
    keys, values = context.extend(0, 0, chunk, 3)
    assert torch.equal(keys, chunk[:, :3, 0].transpose(1, 2))
    assert torch.equal(values, chunk[:, :3, 1].transpose(1, 2))


def test_room_grows_rarely_and_spare_room_is_poisoned() -> None:
    context = Context.empty(SHAPE, torch.empty(0), poison=True)
    growths = 0
    for _ in range(40):
        before = context.capacity
        context.reserve()
        growths += context.capacity != before
        assert context.capacity >= context.length + SHAPE.chunk
        assert context.layers[0].shape[4] == context.capacity
        assert context.layers[0][..., context.length :, :].isnan().all()
        for layer in context.layers:
            layer[..., context.length : context.length + SHAPE.chunk, :] = 1
        context.commit(SHAPE.chunk)
    assert growths < 12
    assert context.capacity <= 1.5 * context.length + SHAPE.chunk


def test_clones_share_nothing() -> None:
    context = Context.empty(SHAPE, torch.empty(0), poison=False)
    context.reserve()
    context.layers[0].zero_()
    context.commit(SHAPE.chunk)
    copy = context.clone()
    copy.layers[0].fill_(1)
    copy.commit(SHAPE.chunk)
    assert context.length == SHAPE.chunk
    assert (context.layers[0] == 0).all()


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
