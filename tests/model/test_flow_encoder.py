"""The flow's encoder, chunk by chunk, against upstream's on the whole sequence."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from serve_app.model import relative_attention
from serve_app.model.context import Context, ContextShape
from serve_app.model.flow_encoder import FlowEncoder
from serve_app.model.past import RaggedPast
from serve_app.model.relative_attention import RelativeLayer, sinusoids
from serve_app.model.toy_checkpoint import Draw
from tests.model.upstream_networks import FLOW_DIMS, UpstreamFlow

CHUNK, LOOKAHEAD = FLOW_DIMS.chunk_tokens, FLOW_DIMS.lookahead
SIZE, HEADS, UNITS = 24, 3, 32
BOUND = 1e-5


@pytest.fixture(scope="module")
def upstream() -> UpstreamFlow:
    torch.set_num_threads(1)
    return UpstreamFlow.build(FLOW_DIMS, seed=1)


@pytest.fixture(scope="module")
def encoder(upstream: UpstreamFlow) -> FlowEncoder:
    with torch.no_grad():
        return FlowEncoder(FLOW_DIMS, upstream.tensors)


def whole(upstream: UpstreamFlow, ids: Tensor) -> Tensor:
    """ids: [N], all of an utterance -> [2 N, mel_bins]."""
    network = upstream.network
    hidden, _ = network.encoder(network.input_embedding(ids)[None], torch.tensor([len(ids)]), streaming=True)
    mu: Tensor = network.encoder_proj(hidden)[0]
    return mu


def random_ids(count: int, seed: int) -> Tensor:
    return torch.randint(0, FLOW_DIMS.vocab, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 25, 26, 27, 28, 29, 77])
@torch.inference_mode()
def test_streamed_equals_whole(encoder: FlowEncoder, upstream: UpstreamFlow, count: int) -> None:
    ids = random_ids(count, count)
    state, parts = encoder.open(poison=True), []
    for start in range(0, count, CHUNK):
        parts += encoder([state], [ids[start : start + CHUNK + LOOKAHEAD]], [min(CHUNK, count - start)])
    assert (torch.cat(parts) - whole(upstream, ids)).abs().max() < BOUND


@torch.inference_mode()
def test_streams_of_a_batch_keep_to_themselves(encoder: FlowEncoder, upstream: UpstreamFlow) -> None:
    """One chunk ahead of another, and one ending; the shorter one's padding reaches nothing."""
    ahead, ending = random_ids(60, 1), random_ids(9, 2)
    states = [encoder.open(poison=True) for _ in range(2)]
    encoder(states[:1], [ahead[:28]], [25])
    clone = states[0].clone()
    first, second = encoder(states, [ahead[25:53], ending], [25, 9])
    assert (first - whole(upstream, ahead)[50:100]).abs().max() < BOUND
    assert (second[:18] - whole(upstream, ending)).abs().max() < BOUND
    again = encoder([clone], [ahead[25:53]], [25])
    assert (again[0] - first).abs().max() < BOUND
    assert clone.num_bytes >= states[0].num_bytes


def upstream_layer(tensors: dict[str, Tensor]) -> Any:
    from cosyvoice.transformer.attention import RelPositionMultiHeadedAttention
    from cosyvoice.transformer.encoder_layer import ConformerEncoderLayer
    from cosyvoice.transformer.positionwise_feed_forward import PositionwiseFeedForward

    feed_forward = PositionwiseFeedForward(SIZE, UNITS, 0.0, nn.SiLU())
    attention = RelPositionMultiHeadedAttention(HEADS, SIZE, 0.0)
    layer = ConformerEncoderLayer(SIZE, attention, feed_forward, None, None, 0.0, True)
    layer.load_state_dict(tensors)
    return layer.eval()


@pytest.mark.parametrize("first_table", [2, 64])
@torch.inference_mode()
def test_relative_attention_of_new_queries_equals_whole(
    first_table: int, upstream: UpstreamFlow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table of distances grows on the way, or is large from the start."""
    monkeypatch.setattr(relative_attention, "_FIRST_TABLE", first_table)
    tensors = Draw(5).weights(relative_attention.expected_tensors("", SIZE, HEADS, UNITS))
    layer = RelativeLayer(tensors, "")
    x = torch.randn(1, 23, SIZE, generator=torch.Generator().manual_seed(1))
    context = Context.empty(ContextShape(1, 1, 1, HEADS, SIZE // HEADS, chunk=5), x, poison=True)
    parts = []
    for part in torch.split(x, 5, dim=1):
        context.reserve()
        parts.append(layer(part, 0, RaggedPast([context], [part.shape[1]])))
        context.commit(part.shape[1])

    places = torch.arange(23)
    mask = places < (places[:, None] // 5 + 1) * 5
    encoding = sinusoids(torch.arange(22, -23, -1), SIZE)
    expected = upstream_layer(tensors)(x, mask[None], encoding[None])[0]
    assert (torch.cat(parts, dim=1) - expected).abs().max() < BOUND


def test_position_encodings_are_upstreams(upstream: UpstreamFlow) -> None:
    theirs = upstream.network.encoder.embed.pos_enc.position_encoding(offset=0, size=40)
    ours = sinusoids(torch.arange(39, -40, -1), FLOW_DIMS.encoder.output_size)
    assert (theirs[0] - ours).abs().max() < 1e-6
