"""The streaming vocoder against upstream's on whole utterances, and against itself for any cut."""

import math
from dataclasses import replace
from itertools import accumulate
from unittest import mock

import pytest
import torch
from torch import Tensor

from serve_app.model.dims import VocoderDims
from serve_app.model.vocoder import Vocoder, VocoderState, expected_tensors
from serve_app.model.vocoder_source import HarmonicSource
from tests.model.upstream_networks import VOCODER_DIMS, UpstreamVocoder

SAMPLES = VOCODER_DIMS.samples_per_frame
BOUND = 1e-4
OTHER_RATES = replace(
    VOCODER_DIMS,
    upsample_rates=(5, 3, 2),
    upsample_kernel_sizes=(11, 7, 4),
    istft_n_fft=64,
    istft_hop_len=16,
    resblock_kernel_sizes=(3, 7),
    resblock_dilation_sizes=((1, 3), (1, 3)),
    source_resblock_kernel_sizes=(7, 7, 7),
    source_resblock_dilation_sizes=((1,), (1,), (1,)),
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module", params=[VOCODER_DIMS, OTHER_RATES], ids=["rates 8 5 3", "rates 5 3 2"])
def dims(request: pytest.FixtureRequest) -> VocoderDims:
    assert isinstance(request.param, VocoderDims)
    return request.param


@pytest.fixture(scope="module")
def upstream(dims: VocoderDims) -> UpstreamVocoder:
    return UpstreamVocoder.build(dims, seed=1)


@pytest.fixture(scope="module")
def vocoder(dims: VocoderDims, upstream: UpstreamVocoder) -> Vocoder:
    return Vocoder.from_tensors(dims, upstream.tensors)


def random_mel(num_frames: int, seed: int) -> Tensor:
    return torch.randn(num_frames, VOCODER_DIMS.in_channels, generator=torch.Generator().manual_seed(seed)) * 1.3


def render(vocoder: Vocoder, state: VocoderState, mel: Tensor, cuts: list[int]) -> Tensor:
    parts = list(torch.split(mel, cuts))
    outputs = [vocoder.render([state], [part], [index == len(parts) - 1])[0] for index, part in enumerate(parts)]
    return torch.cat(outputs)


def whole(vocoder: Vocoder, mel: Tensor, seed: int) -> Tensor:
    return vocoder.render([vocoder.open(seed)], [mel], [True])[0]


def test_names_and_shapes_are_upstreams(dims: VocoderDims, upstream: UpstreamVocoder) -> None:
    assert expected_tensors(dims) == {name: tuple(tensor.shape) for name, tensor in upstream.tensors.items()}


@torch.inference_mode()
def test_decoder_equals_upstreams_on_the_same_excitation(vocoder: Vocoder, upstream: UpstreamVocoder) -> None:
    mel = random_mel(40, 1)
    excitation = torch.randn(1, 40 * SAMPLES, generator=torch.Generator().manual_seed(2)) * 0.1
    theirs = upstream.network.decode(mel.T[None], excitation[None])
    assert theirs.std() > 0.01
    ours = vocoder.decoder(mel[None], excitation, range(40))
    assert (ours - theirs).abs().max() < BOUND


@torch.inference_mode()
def test_mel_to_samples_equals_upstreams(dims: VocoderDims, upstream: UpstreamVocoder, vocoder: Vocoder) -> None:
    """Upstream runs in fp64: its fp32 phase is the less exact one. Its noise is replaced by ours."""
    mel, seed = random_mel(70, 3), 4
    network = UpstreamVocoder.build(dims, seed=1).network.double()
    network.stft_window = network.stft_window.double()
    noise = torch.randn(70, SAMPLES, generator=torch.Generator().manual_seed(seed)).flatten()[None, :, None].double()
    weight = network.m_source.l_linear.weight[0]
    # Upstream adds noise to each tone and mixes the tones; this much on each gives ours in sum.
    per_tone = noise * weight / weight.norm()
    with mock.patch.object(torch, "randn_like", lambda like: per_tone if like.shape == per_tone.shape else like):
        theirs, _ = network.inference(speech_feat=mel.T[None].double())
    voiced = network.f0_predictor(mel.T[None].double()) > dims.nsf_voiced_threshold_hz
    assert voiced.any()
    assert not voiced.all()
    assert (whole(vocoder, mel, seed) - theirs[0]).abs().max() < BOUND


@pytest.mark.parametrize("cuts", [[50, 40], [7, 50, 32, 1], [3, 1, 16, 1, 9, 60], [89, 1]], ids=str)
def test_streamed_equals_whole(vocoder: Vocoder, cuts: list[int]) -> None:
    """At every joint, and in the first 20 ms and the last 40 ms."""
    mel = random_mel(90, 5)
    streamed = render(vocoder, vocoder.open(6), mel, cuts)
    assert len(streamed) == 90 * SAMPLES
    assert (streamed - whole(vocoder, mel, 6)).abs().max() < BOUND


@pytest.mark.parametrize("num_frames", [1, 2, 44])
def test_one_frame_at_a_time_equals_whole(vocoder: Vocoder, num_frames: int) -> None:
    mel = random_mel(num_frames, 7)
    streamed = render(vocoder, vocoder.open(8), mel, [1] * num_frames)
    assert (streamed - whole(vocoder, mel, 8)).abs().max() < BOUND


def test_frames_come_out_as_soon_as_the_lookahead_allows(vocoder: Vocoder) -> None:
    state, held = vocoder.open(1), vocoder.lookahead_frames
    lengths = [len(vocoder.render([state], [random_mel(count, 1)], [False])[0]) for count in (held, 5, 0, 20)]
    assert lengths == [0, 5 * SAMPLES, 0, 20 * SAMPLES]
    assert len(vocoder.render([state], [random_mel(0, 1)], [True])[0]) == held * SAMPLES
    with pytest.raises(ValueError, match="has ended"):
        vocoder.render([state], [random_mel(1, 1)], [False])
    assert len(vocoder.render([vocoder.open(1)], [random_mel(0, 1)], [True])[0]) == 0


def test_a_batch_equals_each_alone(vocoder: Vocoder) -> None:
    """Streams in step, out of step, ending and silent."""
    plans = [[50, 20, 5], [50, 20, 5], [30, 20, 25], [3, 2, 70]]
    mels = [random_mel(75, seed) for seed in range(4)]
    alone = [render(vocoder, vocoder.open(seed), mels[seed], plan) for seed, plan in enumerate(plans)]
    states = [vocoder.open(seed) for seed in range(4)]
    parts = [torch.split(mel, plan) for mel, plan in zip(mels, plans, strict=True)]
    together: list[list[Tensor]] = [[], [], [], []]
    for turn in range(3):
        for row, samples in enumerate(vocoder.render(states, [part[turn] for part in parts], [turn == 2] * 4)):
            together[row].append(samples)
    for expected, outputs in zip(alone, together, strict=True):
        assert (torch.cat(outputs) - expected).abs().max() < BOUND


def test_interleaved_equals_sequential_to_the_bit(vocoder: Vocoder) -> None:
    mels = [random_mel(60, seed) for seed in range(2)]
    expected = [render(vocoder, vocoder.open(seed), mels[seed], [40, 20]) for seed in range(2)]
    states = [vocoder.open(seed) for seed in range(2)]
    first = [vocoder.render([states[row]], [mels[row][:40]], [False])[0] for row in range(2)]
    last = [vocoder.render([states[row]], [mels[row][40:]], [True])[0] for row in range(2)]
    for row in range(2):
        assert torch.equal(torch.cat((first[row], last[row])), expected[row])


def test_noise_depends_on_the_seed_alone(vocoder: Vocoder) -> None:
    mel = random_mel(20, 9)
    before = torch.get_rng_state()
    first = whole(vocoder, mel, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(whole(vocoder, mel, 1), first)
    assert not torch.equal(whole(vocoder, mel, 2), first)


def test_a_state_does_not_grow(vocoder: Vocoder) -> None:
    state = vocoder.open(1)
    sizes = [vocoder.render([state], [random_mel(50, 1)], [False]) and state.num_bytes for _ in range(5)]
    assert sizes[1] == sizes[-1]


def test_a_shorter_first_lookahead_changes_only_the_first_output(vocoder: Vocoder) -> None:
    mel, held = random_mel(90, 5), vocoder.lookahead_frames
    state = vocoder.open(6, first_lookahead_frames=4)
    outputs = [vocoder.render([state], [mel[:40]], [False])[0], vocoder.render([state], [mel[40:]], [True])[0]]
    expected = whole(vocoder, mel, 6)
    assert len(outputs[0]) == 36 * SAMPLES
    difference = (torch.cat(outputs) - expected).abs()
    assert difference[: (40 - held) * SAMPLES].max() < BOUND
    assert difference[36 * SAMPLES :].max() < BOUND
    assert difference[: 36 * SAMPLES].max() < expected.abs().max()


def test_the_lookahead_is_the_decoders_reach(vocoder: Vocoder, dims: VocoderDims) -> None:
    assert vocoder.lookahead_frames == vocoder.decoder.reach.right + 1
    if dims == VOCODER_DIMS:
        assert vocoder.lookahead_frames == 16
    assert Vocoder.from_tensors(dims, dict(vocoder_tensors(dims)), lookahead_frames=5).lookahead_frames == 5


def vocoder_tensors(dims: VocoderDims) -> dict[str, Tensor]:
    return {name: torch.zeros(shape) for name, shape in expected_tensors(dims).items()}


@torch.inference_mode()
def test_the_phase_of_a_minute_does_not_drift() -> None:
    """Against exact arithmetic: 320 samples of a cycle times an integer, summed without rounding."""
    tensors = vocoder_tensors(VOCODER_DIMS)
    tensors["m_source.l_linear.weight"][0, 4] = 1.0  # the fifth tone alone
    source = HarmonicSource(VOCODER_DIMS, tensors)
    num_frames, hop = 3000, 50
    pitch = torch.full((1, num_frames), 203.125, dtype=torch.float64)  # 13/1536 of a cycle in a sample: exact in fp64
    pitch[:, ::3] = 187.5
    phase, parts = torch.zeros(1, source.num_tones, dtype=torch.float64), list[Tensor]()
    for part in torch.split(pitch, hop, dim=1):
        silence = torch.zeros(1, hop, SAMPLES)
        parts.append(source(part, phase, silence, at_start=not parts))
        phase = source.advance(phase, source.increments(part))[:, -1]
    assert phase.min() >= 0
    assert phase.max() < 1
    centres = list(accumulate(5 * SAMPLES * float(hertz) / 24_000 for hertz in pitch[0]))
    last = num_frames - hop // 2
    middle = torch.cat(parts, dim=1)[0, last * SAMPLES + SAMPLES // 2]
    cycles = centres[last] + 5 * 0.5 * float(pitch[0, last + 1]) / 24_000
    assert abs(float(middle) - math.tanh(0.1 * math.sin(2 * math.pi * (cycles % 1)))) < 1e-6
