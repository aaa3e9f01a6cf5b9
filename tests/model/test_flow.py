"""The chunk-cached flow against upstream's recompute, alone, in company, and from a shared voice."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from serve_app.model.flow import MAX_FRAMES, Flow, FlowState, draw_noise, expected_tensors
from serve_app.model.ragged_chunks import RaggedKept
from serve_app.model.toy_checkpoint import Draw, flow_tensors
from tests.model.upstream_networks import FLOW_DIMS, UpstreamFlow

CHUNK, LOOKAHEAD, RATIO = FLOW_DIMS.chunk_tokens, FLOW_DIMS.lookahead, FLOW_DIMS.token_mel_ratio
WINDOW = CHUNK + LOOKAHEAD
BOUND = 1e-4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def upstream() -> UpstreamFlow:
    return UpstreamFlow.build(FLOW_DIMS, seed=1)


@pytest.fixture(scope="module")
def flow(upstream: UpstreamFlow) -> Flow:
    return Flow.from_tensors(FLOW_DIMS, upstream.tensors)


class Utterance:
    """Random tokens behind a random prompt."""

    def __init__(self, num_prompt: int, num_tokens: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(100 * seed + num_prompt)
        self.num_prompt = num_prompt
        self.ids = torch.randint(0, FLOW_DIMS.vocab, (num_prompt + num_tokens,), generator=generator)
        self.mel = torch.randn((RATIO * num_prompt, FLOW_DIMS.mel_bins), generator=generator)
        self.speaker = torch.randn(FLOW_DIMS.speaker_dim, generator=generator)

    def open(self, flow: Flow) -> FlowState:
        return flow.open(self.speaker, self.ids[: self.num_prompt], self.mel, poison=True)

    def window(self, state: FlowState) -> Tensor:
        return self.ids[state.num_tokens : state.num_tokens + WINDOW]

    def stream(self, flow: Flow, state: FlowState) -> list[Tensor]:
        """Every chunk from the state on."""
        chunks = []
        while state.num_tokens < len(self.ids):
            chunks += flow.render([state], [self.window(state)])
        return chunks


def render_together(flow: Flow, utterances: Sequence[Utterance], states: Sequence[FlowState]) -> list[Tensor]:
    """The mel of each, all chunks of those that still have tokens in one batch."""
    parts: list[list[Tensor]] = [[] for _ in utterances]
    while busy := [i for i, state in enumerate(states) if state.num_tokens < len(utterances[i].ids)]:
        chunks = flow.render([states[i] for i in busy], [utterances[i].window(states[i]) for i in busy])
        for index, chunk in zip(busy, chunks, strict=True):
            parts[index].append(chunk)
    return [torch.cat(chunks) for chunks in parts]


def test_names_and_shapes_are_upstreams(upstream: UpstreamFlow) -> None:
    theirs = {name: tuple(tensor.shape) for name, tensor in upstream.network.state_dict().items()}
    assert expected_tensors(FLOW_DIMS) == theirs


def test_noise_is_upstreams_and_leaves_the_global_generator_alone(upstream: UpstreamFlow) -> None:
    before = torch.get_rng_state()
    noise = draw_noise(FLOW_DIMS.mel_bins)
    assert torch.equal(torch.get_rng_state(), before)
    assert noise.is_contiguous()
    assert torch.equal(noise.T[None], upstream.network.decoder.rand_noise)


@pytest.mark.parametrize(
    ("num_prompt", "num_tokens"), [(0, 32), (24, 28), (25, 27), (26, 24), (27, 25), (28, 23), (49, 3), (53, 26)]
)
def test_every_hop_equals_upstreams_recompute(
    flow: Flow, upstream: UpstreamFlow, num_prompt: int, num_tokens: int
) -> None:
    utterance = Utterance(num_prompt, num_tokens)
    state = utterance.open(flow)
    assert state.num_tokens == CHUNK * max(0, (num_prompt - LOOKAHEAD) // CHUNK)
    voiced: list[Tensor] = []
    while state.num_tokens < len(utterance.ids):
        skip = max(0, RATIO * (num_prompt - state.num_tokens))
        voiced += [flow.render([state], [utterance.window(state)])[0][skip:]]
        if state.num_tokens <= num_prompt:
            continue
        ended = state.num_tokens + LOOKAHEAD > len(utterance.ids)
        given = utterance.ids if ended else utterance.ids[: state.num_tokens + LOOKAHEAD]
        theirs = upstream.render(given, utterance.mel, utterance.speaker, num_prompt, ended=ended)
        # All frames so far: a chunk that is right when it is new must stay right.
        ours = torch.cat(voiced)
        assert (ours - theirs[: len(ours)]).abs().max() < BOUND


def test_prompt_of_87_tokens_gives_its_first_hop_after_16(flow: Flow, upstream: UpstreamFlow) -> None:
    """The first hop is the 13 tokens to the next chunk's edge, and needs 3 more (MODEL.md)."""
    utterance = Utterance(87, 16)
    state = utterance.open(flow)
    assert state.num_tokens == 75
    mel = flow.render([state], [utterance.window(state)])[0]
    theirs = upstream.render(utterance.ids, utterance.mel, utterance.speaker, 87, ended=False)
    assert len(theirs) == RATIO * 13
    assert (mel[RATIO * 12 :] - theirs).abs().max() < BOUND


def test_without_guidance_there_is_one_row_and_the_result_is_upstreams() -> None:
    dims = replace(FLOW_DIMS, cfg_rate=0.0)
    upstream = UpstreamFlow.build(dims, seed=1)
    flow = Flow.from_tensors(dims, upstream.tensors)
    utterance = Utterance(28, 40)
    state = utterance.open(flow)
    assert isinstance(state.kept, RaggedKept)
    assert state.kept.estimator.tails.shape[:2] == (dims.num_steps, 1)
    mel = torch.cat(utterance.stream(flow, state))[RATIO * (28 - CHUNK) :]
    theirs = upstream.render(utterance.ids, utterance.mel, utterance.speaker, 28, ended=True)
    assert (mel - theirs).abs().max() < BOUND


def test_a_batch_at_different_positions_equals_each_alone(flow: Flow) -> None:
    utterances = [Utterance(60, 47), Utterance(0, 40), Utterance(10, 90), Utterance(28, 1)]
    alone = [torch.cat(utterance.stream(flow, utterance.open(flow))) for utterance in utterances]
    together = render_together(flow, utterances, [utterance.open(flow) for utterance in utterances])
    for expected, mel in zip(alone, together, strict=True):
        assert (mel - expected).abs().max() < BOUND


def test_interleaved_equals_sequential_to_the_bit(flow: Flow) -> None:
    first, second = Utterance(30, 40), Utterance(5, 60)
    expected = [torch.cat(utterance.stream(flow, utterance.open(flow))) for utterance in (first, second)]
    states = [first.open(flow), second.open(flow)]
    chunks: list[list[Tensor]] = [[], []]
    for _ in range(3):
        for index, utterance in enumerate((first, second)):
            if states[index].num_tokens < len(utterance.ids):
                chunks[index] += flow.render([states[index]], [utterance.window(states[index])])
    for ours, theirs in zip(chunks, expected, strict=True):
        assert torch.equal(torch.cat(ours), theirs)


def test_one_prefix_serves_many_streams(flow: Flow) -> None:
    """Clones neither change the prefix nor each other, however far they run."""
    first, second = Utterance(30, 60, seed=1), Utterance(30, 40, seed=2)
    second.ids[:30], second.mel, second.speaker = first.ids[:30], first.mel, first.speaker
    expected = [torch.cat(utterance.stream(flow, utterance.open(flow))) for utterance in (first, second)]
    prefix = first.open(flow)
    one, other = prefix.clone(), prefix.clone()
    assert one.num_bytes >= prefix.num_bytes > 0
    head = flow.render([one], [first.window(one)])
    assert torch.equal(torch.cat(second.stream(flow, other)), expected[1])
    assert torch.equal(torch.cat(head + first.stream(flow, one)), expected[0])
    assert torch.equal(torch.cat(first.stream(flow, prefix.clone())), expected[0])


@pytest.mark.parametrize("num_blocks", [0, 1])
def test_an_encoder_without_token_layers(num_blocks: int) -> None:
    dims = replace(FLOW_DIMS, encoder=replace(FLOW_DIMS.encoder, num_blocks=num_blocks))
    flow = Flow.from_tensors(dims, flow_tensors(dims, Draw(3)))
    utterance = Utterance(28, 30)
    mel = torch.cat(utterance.stream(flow, utterance.open(flow).clone()))
    assert len(mel) == RATIO * (len(utterance.ids) - CHUNK)
    assert mel.isfinite().all()


def test_what_cannot_be_rendered_is_refused_and_changes_nothing(flow: Flow) -> None:
    utterance = Utterance(10, 16)
    with pytest.raises(ValueError, match="10 prompt tokens need a mel of"):
        flow.open(utterance.speaker, utterance.ids[:10], utterance.mel[1:])
    state = utterance.open(flow)
    with pytest.raises(ValueError, match="at least one token"):
        flow.render([state], [utterance.ids[:0]])
    flow.render([state], [utterance.ids])
    assert (state.num_tokens, state.num_left) == (25, 1)
    with pytest.raises(ValueError, match="ends after 1 more"):
        flow.render([state], [utterance.ids])
    assert len(flow.render([state], [utterance.ids[25:]])[0]) == RATIO
    with pytest.raises(ValueError, match="at least one token"):
        flow.render([state], [utterance.ids[:0]])
    with pytest.raises(ValueError, match="ends after 0 more"):
        flow.render([state], [utterance.ids])
    state = utterance.open(flow)
    state.num_tokens = MAX_FRAMES // RATIO - 24
    with pytest.raises(ValueError, match="longer than 15000 frames"):
        flow.render([state], [utterance.ids])
    assert state.num_tokens == MAX_FRAMES // RATIO - 24
