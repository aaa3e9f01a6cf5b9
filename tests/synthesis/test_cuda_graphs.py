"""Captured calls, with a recorder that replays by calling again at the same addresses, as a graph does."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from serve_app.model.fixed_windows import FixedWindows
from serve_app.model.flow import Flow
from serve_app.model.paged_chunks import PagedChunks
from serve_app.model.toy_checkpoint import Draw, flow_tensors
from serve_app.model.vocoder import Vocoder
from serve_app.synthesis.cuda_graphs import FixedCall, Graphs
from tests.model.test_flow import BOUND, Utterance
from tests.model.test_vocoder import random_mel
from tests.model.upstream_networks import FLOW_DIMS, VOCODER_DIMS, UpstreamVocoder


def record(call: FixedCall, inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    outputs = tuple(output.clone().fill_(torch.nan) for output in call(*inputs))

    def replay() -> None:
        for output, fresh in zip(outputs, call(*inputs), strict=True):
            output.copy_(fresh)

    return replay, outputs


def forbid(call: FixedCall, inputs: tuple[Tensor, ...]) -> tuple[Callable[[], None], tuple[Tensor, ...]]:
    raise RuntimeError("operation not permitted when stream is capturing")


def double(x: Tensor) -> tuple[Tensor, ...]:
    return (2 * x,)


def test_shapes_of_a_warm_up_are_captured_and_others_run_eagerly() -> None:
    graphs = Graphs(record)
    call = graphs.wrap(double)
    with graphs.capturing():
        assert call(torch.ones(3))[0].tolist() == [2, 2, 2]
        call(torch.ones(3))
        call(torch.ones(4))
    assert graphs.num_captured == 2
    first, second = call(torch.full((3,), 5.0)), call(torch.full((3,), 7.0))
    assert (first[0].tolist(), second[0].tolist()) == ([10] * 3, [14] * 3), "outputs are the caller's own"
    assert call(torch.ones(5))[0].tolist() == [2] * 5
    assert graphs.num_captured == 2


def test_without_a_recorder_every_call_is_eager() -> None:
    graphs = Graphs.on(torch.device("cpu"))
    with graphs.capturing():
        assert graphs.wrap(double)(torch.ones(1))[0].item() == 2
    assert graphs.num_captured == 0


def test_a_failed_capture_is_said_once_and_calls_go_on_eagerly(caplog: pytest.LogCaptureFixture) -> None:
    graphs = Graphs(forbid)
    calls = [graphs.wrap(double), graphs.wrap(double)]
    with graphs.capturing(), caplog.at_level(logging.WARNING):
        assert [call(torch.ones(n))[0].sum().item() for call in calls for n in (1, 2)] == [2, 4, 2, 4]
    assert len(caplog.records) == 1
    assert "not permitted when stream is capturing" in caplog.text


def test_a_flow_of_captured_chunks_equals_the_eager_one() -> None:
    torch.set_num_threads(1)
    tensors = flow_tensors(FLOW_DIMS, Draw(7))
    eager, captured = (Flow.from_tensors(FLOW_DIMS, tensors) for _ in range(2))
    graphs = Graphs(record)
    captured.chunks = chunks = PagedChunks(captured, 8, graphs.wrap, poison=True)
    with graphs.capturing():
        chunks.rehearse(max_streams=2, max_context=4)
    assert graphs.num_captured == 4
    utterances = [Utterance(28, 60, seed=1), Utterance(0, 50, seed=2)]
    expected = [torch.cat(utterance.stream(eager, utterance.open(eager))) for utterance in utterances]
    states = [utterance.open(captured) for utterance in utterances]
    mels: list[list[Tensor]] = [[], []]
    for _ in range(2):
        windows = [utterance.window(state) for utterance, state in zip(utterances, states, strict=True)]
        for row, mel in enumerate(captured.render(states, windows)):
            mels[row].append(mel)
    mels[0] += utterances[0].stream(captured, states[0])
    assert graphs.num_captured == 4, "every shape was known"
    for whole, parts in zip(expected, mels, strict=True):
        assert (torch.cat(parts) - whole).abs().max() < BOUND


def test_a_vocoder_of_captured_windows_equals_the_eager_one() -> None:
    torch.set_num_threads(1)
    tensors = UpstreamVocoder.build(VOCODER_DIMS, seed=1).tensors
    eager, captured = (Vocoder.from_tensors(VOCODER_DIMS, tensors) for _ in range(2))
    graphs = Graphs(record)
    captured.windows = windows = FixedWindows(captured, 50, graphs.wrap)
    with graphs.capturing():
        windows.rehearse(max_streams=2)
    assert graphs.num_captured == 3 * 4 * 2, "kinds, sizes, batches"
    mels = [random_mel(124, seed) for seed in range(2)]
    samples = []
    for vocoder in (eager, captured):
        states = [vocoder.open(seed) for seed in range(2)]
        turns = zip(*(torch.split(mel, [24, 50, 50]) for mel in mels), strict=True)
        parts = [vocoder.render(states, turn, [number == 2] * 2) for number, turn in enumerate(turns)]
        samples.append([torch.cat(of_one) for of_one in zip(*parts, strict=True)])
    assert graphs.num_captured == 24, "every shape was known"
    for whole, streamed in zip(*samples, strict=True):
        assert len(whole) == 124 * VOCODER_DIMS.samples_per_frame
        assert (streamed - whole).abs().max() < BOUND
