"""Keys and values of a stream's past, and the memory that they lie in."""

import pytest
import torch
from torch import Tensor

from serve_app.model.context import Context, ContextShape, SpareMemory

SHAPE = ContextShape(layers=2, steps=3, rows=2, heads=2, head_dim=4, chunk=5)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def grown(spare: SpareMemory, num_chunks: int) -> Context:
    context = Context.empty(SHAPE, torch.empty(0), poison=True, spare=spare)
    for _ in range(num_chunks):
        context.reserve()
        context.commit(SHAPE.chunk)
    return context


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


def test_a_copy_that_does_not_grow_takes_no_more_than_it_holds() -> None:
    context = grown(SpareMemory(), 6)
    assert context.capacity > context.length
    assert context.clone(grows=False).capacity == context.length
    assert context.clone().capacity >= context.length + 2 * SHAPE.chunk


def test_memory_of_an_ended_context_serves_the_next_one(generator: torch.Generator) -> None:
    spare = SpareMemory()
    prefix, ended = grown(spare, 1), grown(spare, 9)
    for layer in prefix.layers:
        layer[..., : SHAPE.chunk, :] = torch.randn(layer[..., : SHAPE.chunk, :].shape, generator=generator)
    memory, capacity = [layer.data_ptr() for layer in ended.layers], ended.capacity
    ended.close()
    ended.close()
    assert spare.num_bytes == sum(layer.nbytes for layer in grown(SpareMemory(), 9).layers)

    copy = prefix.clone()
    assert [layer.data_ptr() for layer in copy.layers] == memory
    assert copy.capacity == capacity and spare.num_bytes == 0
    for mine, theirs in zip(copy.layers, prefix.layers, strict=True):
        assert torch.equal(mine[..., : SHAPE.chunk, :], theirs[..., : SHAPE.chunk, :])
        assert mine[..., SHAPE.chunk :, :].isnan().all(), "what the last stream said can be read"
    assert {layer.data_ptr() for layer in prefix.clone().layers}.isdisjoint(memory)


def test_spare_memory_is_bounded_and_of_one_kind() -> None:
    small, large = grown(SpareMemory(), 1), grown(SpareMemory(), 9)
    spare = SpareMemory(max_bytes=large.num_bytes)
    spare.put(small.layers)
    assert spare.take(large.layers, large.capacity) is None
    spare.put(large.layers)
    assert spare.num_bytes == large.num_bytes, "the oldest goes"
    other = Context.empty(ContextShape(2, 3, 2, 2, head_dim=8, chunk=5), torch.empty(0))
    assert spare.take(other.layers, 5) is None
    none = SpareMemory(max_bytes=0)
    none.put(large.layers)
    assert none.num_bytes == 0
