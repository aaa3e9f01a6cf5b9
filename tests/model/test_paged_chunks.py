"""Chunks over pages against chunks over memory of each stream's own, and the accounts of the pages."""

import pytest
import torch
from torch import Tensor

from serve_app.model.flow import Flow
from serve_app.model.paged_chunks import FixedCall, PagedChunks, PagedKept, bucket, page_bytes
from serve_app.model.ragged_chunks import RaggedKept
from serve_app.model.toy_checkpoint import Draw, flow_tensors
from tests.model.test_flow import BOUND, CHUNK, Utterance, render_together
from tests.model.upstream_networks import FLOW_DIMS

UTTERANCES = ((60, 47), (0, 40), (10, 90), (28, 1), (28, 110))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.set_num_threads(1)
    return flow_tensors(FLOW_DIMS, Draw(7))


@pytest.fixture(scope="module")
def ragged(tensors: dict[str, Tensor]) -> Flow:
    return Flow.from_tensors(FLOW_DIMS, tensors)


def paged_flow(tensors: dict[str, Tensor], num_pages: int, shapes: list[tuple[int, ...]] | None = None) -> Flow:
    """shapes: gets the pages' shape of each call."""

    def wrap(call: FixedCall) -> FixedCall:
        def watched(*inputs: Tensor) -> tuple[Tensor, ...]:
            if shapes is not None:
                shapes.append(tuple(inputs[5].shape))
            return call(*inputs)

        return watched

    flow = Flow.from_tensors(FLOW_DIMS, tensors)
    flow.chunks = PagedChunks(flow, num_pages, wrap, poison=True)
    return flow


def pages(flow: Flow) -> PagedChunks:
    assert isinstance(flow.chunks, PagedChunks)
    return flow.chunks


def test_streams_at_different_positions_equal_each_in_its_own_memory(tensors: dict[str, Tensor], ragged: Flow) -> None:
    shapes: list[tuple[int, ...]] = []
    flow = paged_flow(tensors, 40, shapes)
    utterances = [Utterance(*lengths, seed=index) for index, lengths in enumerate(UTTERANCES)]
    expected = [torch.cat(utterance.stream(ragged, utterance.open(ragged))) for utterance in utterances]
    states = [utterance.open(flow) for utterance in utterances]
    for whole, mel in zip(expected, render_together(flow, utterances, states), strict=True):
        assert (mel - whole).abs().max() < BOUND
    assert {shape[0] for shape in shapes} <= {1, 2, 4, 8}
    assert {shape[1] for shape in shapes} <= {2, 4, 6}
    for state in states:
        state.close()
        state.close()
    assert pages(flow).pool.num_free == 40


def test_streams_of_one_voice_share_its_pages(tensors: dict[str, Tensor], ragged: Flow) -> None:
    flow = paged_flow(tensors, 10)
    utterance = Utterance(60, 20)
    prefix = utterance.open(flow)
    assert isinstance(prefix.kept, PagedKept)
    assert pages(flow).pool.num_free == 8
    streams = [prefix.clone(), prefix.clone()]
    assert pages(flow).pool.num_free == 8
    prefix.close()
    expected = torch.cat(utterance.stream(ragged, utterance.open(ragged)))
    for stream in streams:
        assert (torch.cat(utterance.stream(flow, stream)) - expected).abs().max() < BOUND
        stream.close()
    assert pages(flow).pool.num_free == 10


@pytest.mark.parametrize("left_context", [1, 2])
def test_a_bounded_context_is_flat_and_the_same_in_both_memories(tensors: dict[str, Tensor], left_context: int) -> None:
    ragged, paged = Flow.from_tensors(FLOW_DIMS, tensors), paged_flow(tensors, 4)
    exact, utterance = Flow.from_tensors(FLOW_DIMS, tensors), Utterance(28, 260)
    ragged.left_context_chunks = paged.left_context_chunks = left_context
    state, most = utterance.open(ragged), 0
    mels = []
    while state.num_tokens < len(utterance.ids):
        mels += ragged.render([state], [utterance.window(state)])
        assert isinstance(state.kept, RaggedKept)
        most = max(most, sum(layer.nbytes for layer in state.kept.estimator.context.layers))
    assert most < 4 * (left_context + 1) * page_bytes(ragged), "of 11 chunks"
    other = utterance.open(paged)
    assert (torch.cat(utterance.stream(paged, other)) - torch.cat(mels)).abs().max() < BOUND
    whole = torch.cat(utterance.stream(exact, utterance.open(exact)))
    deviation = (torch.cat(mels) - whole).abs()
    assert deviation[: left_context * 2 * CHUNK].max() < BOUND, "the first chunks see everything"
    assert deviation.max() > BOUND, "the setting is not exact, and is not called so"


def test_without_a_free_page_nothing_changes(tensors: dict[str, Tensor]) -> None:
    flow = paged_flow(tensors, 1)
    utterance = Utterance(0, 80)
    state = utterance.open(flow)
    flow.render([state], [utterance.window(state)])
    with pytest.raises(IndexError, match="pages of the flow"):
        flow.render([state], [utterance.window(state)])
    assert state.num_tokens == CHUNK
    state.close()
    assert pages(flow).pool.num_free == 1


def test_a_stale_read_fails_loudly(tensors: dict[str, Tensor]) -> None:
    flow = paged_flow(tensors, 3)
    utterance = Utterance(0, 80)
    state = utterance.open(flow)
    flow.render([state], [utterance.window(state)])
    assert isinstance(state.kept, PagedKept)
    pages(flow).pool.give_back(state.kept.pages)
    pages(flow).pool.take()  # it is somebody else's now, who has not written it yet
    assert flow.render([state], [utterance.window(state)])[0].isnan().all()


def test_a_rehearsal_meets_every_bucket_and_takes_no_page(tensors: dict[str, Tensor], ragged: Flow) -> None:
    shapes: list[tuple[int, ...]] = []
    flow = paged_flow(tensors, 4, shapes)
    pages(flow).rehearse(max_streams=3, max_context=5)
    assert sorted(shapes) == [(batch, context) for batch in (1, 2, 4) for context in (2, 4, 6)]
    assert pages(flow).pool.num_free == 4
    utterance = Utterance(10, 60)
    expected = torch.cat(utterance.stream(ragged, utterance.open(ragged)))
    assert (torch.cat(utterance.stream(flow, utterance.open(flow))) - expected).abs().max() < BOUND


@pytest.mark.parametrize(("count", "size"), [(1, 2), (2, 2), (3, 4), (8, 8), (9, 16), (17, 24)])
def test_a_bucket_holds_what_is_asked_and_little_more(count: int, size: int) -> None:
    assert bucket(count, (2, 4, 8)) == size
