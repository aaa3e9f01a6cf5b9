"""The first Euler step without conditions, shared by all streams, against each stream's own evaluation."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from serve_app.model.chunks import ChunkInputs, Kept
from serve_app.model.first_step import FirstStep
from serve_app.model.flow import Flow
from serve_app.model.ragged_chunks import RaggedChunks
from serve_app.model.toy_checkpoint import Draw, flow_tensors
from tests.model.test_flow import CHUNK, RATIO, Utterance, render_together
from tests.model.upstream_networks import FLOW_DIMS

BOUND = 1e-5
UTTERANCES = ((60, 47), (0, 40), (10, 90), (28, 1), (28, 110))


class EvaluatedChunks(RaggedChunks):
    """Every step of every stream is evaluated with and without its conditions."""

    def render(self, kept: Sequence[Kept], inputs: ChunkInputs) -> Tensor:
        return super().render(kept, replace(inputs, unguided=None))


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.set_num_threads(1)
    return flow_tensors(FLOW_DIMS, Draw(7))


@pytest.mark.parametrize("left_context", [None, 1, 2])
def test_streams_that_share_it_equal_those_that_evaluate_it(
    tensors: dict[str, Tensor], left_context: int | None
) -> None:
    """Streams ahead and behind, whose last chunks end anywhere; the past of the others is poisoned with NaN."""
    evaluated, sharing = (Flow.from_tensors(FLOW_DIMS, tensors) for _ in range(2))
    evaluated.chunks = EvaluatedChunks(evaluated)
    utterances = [Utterance(*lengths, seed=index) for index, lengths in enumerate(UTTERANCES)]
    mels = []
    for flow in (evaluated, sharing):
        flow.left_context_chunks = left_context
        mels.append(render_together(flow, utterances, [utterance.open(flow) for utterance in utterances]))
    for expected, mel in zip(*mels, strict=True):
        assert (mel - expected).abs().max() < BOUND * expected.abs().max()


@torch.inference_mode()
def test_what_was_prepared_is_what_is_computed_when_it_is_needed(tensors: dict[str, Tensor]) -> None:
    flow = Flow.from_tensors(FLOW_DIMS, tensors)
    prepared, late = (FirstStep(flow.estimator, flow.noise, None) for _ in range(2))
    prepared.prepare(3, RATIO)
    wanted = ([2, 0, 1, 0], [RATIO * 7, RATIO * CHUNK, RATIO * CHUNK, RATIO])
    expected, ours = late(*wanted), prepared(*wanted)
    assert ours.shape == (4, RATIO * CHUNK, FLOW_DIMS.mel_bins)
    assert (ours - expected).abs().max() < BOUND * expected.abs().max()
    assert expected[0, RATIO * 7 :].abs().max() == 0
    assert FirstStep.chunk_bytes(flow.estimator) * 3 <= sum(layer.nbytes for layer in prepared._context.layers)


def test_without_guidance_there_is_none(tensors: dict[str, Tensor]) -> None:
    flow = Flow.from_tensors(replace(FLOW_DIMS, cfg_rate=0.0), tensors)
    utterance = Utterance(0, 30)
    assert len(torch.cat(utterance.stream(flow, utterance.open(flow)))) == RATIO * 30
    assert flow._first_step is None
