"""Keys and values of a stream's past, and the memory that they lie in."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from serve_app.model.context import RESERVED_CHUNKS, Context, ContextShape, Memory, SpareMemory

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


def bytes_of(context: Context, num_positions: int) -> int:
    return sum(layer[..., :num_positions, :].nbytes for layer in context.layers)


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
    assert context.num_bytes == bytes_of(context, 30)


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


def test_room_for_a_usual_utterance_is_there_at_once_and_takes_memory_where_it_is_written(
    generator: torch.Generator,
) -> None:
    shape = ContextShape(layers=2, steps=10, rows=2, heads=8, head_dim=64, chunk=50)
    before = resident_bytes()
    context = Context.empty(shape, torch.empty(0))
    context.reserve()
    addresses = [layer.data_ptr() for layer in context.layers]
    chunk = torch.randn(2, 50, 2, 8, 64, generator=generator)
    for _ in range(RESERVED_CHUNKS):
        if context.length == 150:
            # Pages of 4 KiB, of which a run of positions fills the first and the last in part.
            assert 0 < resident_bytes() - before < 2 * bytes_of(context, 150) < bytes_of(context, context.capacity) / 4
        context.reserve()
        for layer in range(2):
            keys, _ = context.extend(layer, 3, chunk, 50)
            for step in range(10):
                context.extend(layer, step, chunk, 50)
            assert torch.equal(keys[:, :, -50:], chunk[:, :, 0].transpose(1, 2))
        context.commit(50)
    assert [layer.data_ptr() for layer in context.layers] == addresses, "nothing was copied"
    context.reserve()
    assert context.capacity > RESERVED_CHUNKS * 50
    keys, _ = context.extend(1, 3, chunk, 50)
    assert torch.equal(keys[:, :, :50], chunk[:, :, 0].transpose(1, 2)), "nor was anything lost when it grew after all"
    context.close()
    assert context.spare.num_bytes == 2 * 10 * 2 * 2 * 8 * 64 * 4 * (RESERVED_CHUNKS + 1) * 50


WITHOUT_PROMISES = """
import resource
from pathlib import Path
import torch
from serve_app.model.context import Context, ContextShape
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 2**28, in_use + 2**28))
context = Context.empty(ContextShape(layers=2, steps=10, rows=2, heads=8, head_dim=64, chunk=100), torch.empty(0))
for number in range(4):
    context.reserve()
    for layer in range(2):
        for step in range(10):
            keys, _ = context.extend(layer, step, torch.full((2, 100, 2, 8, 64), float(number)), 100)
            assert keys[0, 0, ::100, 0].tolist() == list(range(number + 1))
    context.commit(100)
print(context.capacity)
"""


def test_where_the_system_gives_no_more_than_it_has_a_context_grows_by_copying() -> None:
    finished = subprocess.run([sys.executable, "-c", WITHOUT_PROMISES], capture_output=True, text=True, check=True)
    assert 400 <= int(finished.stdout) < RESERVED_CHUNKS * 100


def test_a_bounded_context_reserves_nothing() -> None:
    context = Context.empty(SHAPE, torch.empty(0), max_chunks=2)
    for _ in range(20):
        context.reserve()
        context.commit(SHAPE.chunk)
        assert context.capacity <= 5 * SHAPE.chunk


def resident_bytes() -> int:
    status = Path("/proc/self/statm").read_text().split()
    return int(status[1]) * resource.getpagesize()


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
    assert spare.num_bytes == bytes_of(grown(SpareMemory(), 9), 9 * SHAPE.chunk)

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
    spare.put(Memory(small.layers, small.written))
    assert spare.take(large.layers, large.capacity) is None
    spare.put(Memory(large.layers, large.written))
    assert spare.num_bytes == large.num_bytes, "the oldest goes"
    other = Context.empty(ContextShape(2, 3, 2, 2, head_dim=8, chunk=5), torch.empty(0))
    assert spare.take(other.layers, 5) is None
    none = SpareMemory(max_bytes=0)
    none.put(Memory(large.layers, large.written))
    assert none.num_bytes == 0
