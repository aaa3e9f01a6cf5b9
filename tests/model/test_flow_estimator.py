"""The flow's estimator, chunk by chunk, against upstream's on the whole sequence at every Euler step."""

import pytest
import torch
from torch import Tensor

from serve_app.model import flow_estimator
from serve_app.model.flow_estimator import Estimator, EstimatorState
from serve_app.model.toy_checkpoint import Draw
from tests.model.upstream_networks import FLOW_DIMS, UpstreamFlow

DIMS, CHUNK = FLOW_DIMS.estimator, FLOW_DIMS.chunk_frames
TIMES = [0.0, 0.1, 0.7]
BOUND = 2e-5


@pytest.fixture(scope="module")
def upstream() -> UpstreamFlow:
    torch.set_num_threads(1)
    return UpstreamFlow.build(FLOW_DIMS, seed=1)


@pytest.fixture(scope="module")
def estimator(upstream: UpstreamFlow) -> Estimator:
    prefix = "decoder.estimator."
    tensors = {
        name.removeprefix(prefix): tensor for name, tensor in upstream.tensors.items() if name.startswith(prefix)
    }
    with torch.no_grad():
        return Estimator(DIMS, tensors, TIMES, 2, CHUNK)


def random_input(num_frames: int, seed: int) -> Tensor:
    """[steps, 2, num_frames, in_channels]: each step and each row sees something else."""
    shape = (len(TIMES), 2, num_frames, DIMS.in_channels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def whole(upstream: UpstreamFlow, x: Tensor) -> Tensor:
    """x: [steps, 2, T, in_channels] -> [steps, 2, T, out_channels]."""
    outputs = []
    for time, inputs in zip(TIMES, x.transpose(2, 3), strict=True):
        state, mu, speaker, prompt = inputs.chunk(4, dim=1)
        mask, times = torch.ones(2, 1, x.shape[2]), torch.full((2,), time)
        network = upstream.network.decoder.estimator
        # Upstream repeats one speaker vector over time; as a part of mu it may differ from frame to frame.
        outputs.append(network(state, mask, torch.cat((mu, speaker), dim=1), times, None, prompt, streaming=True))
    return torch.stack(outputs).transpose(2, 3)


def render(
    estimator: Estimator, states: list[EstimatorState], inputs: list[Tensor], num_valid: list[int]
) -> list[Tensor]:
    """One chunk of B streams, each [steps, 2, T, C]."""
    run = estimator.begin(states, num_valid)
    batch = torch.cat(inputs, dim=1)
    outputs = torch.stack([estimator(batch[step], run, step) for step in range(len(TIMES))])
    estimator.commit(run, states, num_valid)
    return [part[:, :, :count] for part, count in zip(torch.split(outputs, 2, dim=1), num_valid, strict=True)]


@pytest.mark.parametrize("num_frames", [2, 50, 52, 118])
@torch.inference_mode()
def test_streamed_equals_whole_at_every_step(estimator: Estimator, upstream: UpstreamFlow, num_frames: int) -> None:
    x = random_input(num_frames, num_frames)
    state, parts = estimator.open(poison=True), []
    for part in torch.split(x, CHUNK, dim=2):
        parts += render(estimator, [state], [part], [part.shape[2]])
    assert (torch.cat(parts, dim=2) - whole(upstream, x)).abs().max() < BOUND


@torch.inference_mode()
def test_streams_of_a_batch_keep_to_themselves(estimator: Estimator, upstream: UpstreamFlow) -> None:
    """One chunk ahead of another, which ends with padding behind it."""
    ahead, ending = random_input(100, 1), random_input(50, 2)
    states = [estimator.open(poison=True) for _ in range(2)]
    render(estimator, states[:1], [ahead[:, :, :50]], [50])
    clone = states[0].clone()
    first, second = render(estimator, states, [ahead[:, :, 50:], ending], [50, 18])
    assert (first - whole(upstream, ahead)[:, :, 50:]).abs().max() < BOUND
    assert (second - whole(upstream, ending[:, :, :18])).abs().max() < BOUND
    again = render(estimator, [clone], [ahead[:, :, 50:]], [50])
    assert (again[0] - first).abs().max() < BOUND
    assert clone.num_bytes >= states[0].num_bytes


@torch.inference_mode()
def test_a_stale_read_fails_loudly() -> None:
    """The poison works: a state that claims more than was written gives NaN."""
    with torch.no_grad():
        estimator = Estimator(DIMS, Draw(1).weights(flow_estimator.expected_tensors(DIMS)), TIMES, 2, CHUNK)
    state = estimator.open(poison=True)
    state.context.reserve()
    state.context.commit(CHUNK)
    state.context.reserve()
    assert render(estimator, [state], [random_input(50, 1)], [50])[0].isnan().all()
