"""The vocoder in fixed shapes against the one that pads nothing."""

import random

import pytest
import torch
from torch import Tensor

from serve_app.model.fixed_windows import FixedWindows
from serve_app.model.paged_chunks import FixedCall
from serve_app.model.vocoder import Vocoder
from tests.model.test_vocoder import BOUND, SAMPLES, random_mel, vocoder_tensors
from tests.model.upstream_networks import VOCODER_DIMS, UpstreamVocoder

CHUNK_FRAMES = 50


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.set_num_threads(1)
    return UpstreamVocoder.build(VOCODER_DIMS, seed=1).tensors


def build(tensors: dict[str, Tensor], shapes: list[tuple[int, ...]] | None = None) -> tuple[Vocoder, FixedWindows]:
    """shapes: gets the shape of the mel of each call."""

    def wrap(call: FixedCall) -> FixedCall:
        def watched(*inputs: Tensor) -> tuple[Tensor, ...]:
            if shapes is not None:
                shapes.append(tuple(inputs[0].shape[:2]))
            return call(*inputs)

        return watched

    vocoder = Vocoder.from_tensors(VOCODER_DIMS, tensors)
    vocoder.windows = windows = FixedWindows(vocoder, CHUNK_FRAMES, wrap)
    return vocoder, windows


def random_hops(seed: int, num_frames: int) -> list[int]:
    """Hops that add up; of some streams a single one, of some many small ones."""
    generator = random.Random(seed)
    longest, hops = generator.choice((5, 30, 70)), list[int]()
    while sum(hops) < num_frames:
        hops.append(min(generator.randint(0, longest), num_frames - sum(hops)))
    return hops


def stream_together(
    vocoder: Vocoder, mels: list[Tensor], plans: list[list[int]], held_back: int | None
) -> list[Tensor]:
    """All streams in step while they last, each to its own end."""
    states = [vocoder.open(seed, first_lookahead_frames=held_back) for seed in range(len(mels))]
    parts = [torch.split(mel, plan) for mel, plan in zip(mels, plans, strict=True)]
    outputs: list[list[Tensor]] = [[] for _ in mels]
    for turn in range(max(len(plan) for plan in plans)):
        rows = [row for row, plan in enumerate(plans) if turn < len(plan)]
        final = [turn == len(plans[row]) - 1 for row in rows]
        rendered = vocoder.render([states[row] for row in rows], [parts[row][turn] for row in rows], final)
        for row, samples in zip(rows, rendered, strict=True):
            outputs[row].append(samples)
    return [torch.cat(samples) for samples in outputs]


@pytest.mark.parametrize("held_back", [None, 4])
def test_streams_of_random_hops_equal_those_without_padding(tensors: dict[str, Tensor], held_back: int | None) -> None:
    shapes: list[tuple[int, ...]] = []
    vocoder, _ = build(tensors, shapes)
    lengths = [190, 120, 83, 47, 20, 3, 1]
    mels = [random_mel(length, seed) for seed, length in enumerate(lengths)]
    plans = [random_hops(seed, length) for seed, length in enumerate(lengths)]
    plans[1] = [24, 50, 46]  # what a service sends
    ours = stream_together(vocoder, mels, plans, held_back)
    plain = stream_together(Vocoder.from_tensors(VOCODER_DIMS, tensors), mels, plans, held_back)
    for length, samples, expected in zip(lengths, ours, plain, strict=True):
        assert len(samples) == length * SAMPLES
        assert (samples - expected).abs().max() < BOUND
    assert {batch for batch, _ in shapes} <= {1, 2, 4, 8}
    assert len({frames for _, frames in shapes}) <= 8, "four sizes, with a left context and without"


def test_company_changes_nothing_to_float_noise(tensors: dict[str, Tensor]) -> None:
    vocoder, _ = build(tensors)
    mel, plan = random_mel(150, 3), [24, 50, 50, 26]
    (alone,) = stream_together(vocoder, [mel], [plan], None)
    together = stream_together(
        vocoder, [mel, *(random_mel(200, seed) for seed in (4, 5))], [plan, [100, 100], [200]], None
    )
    assert (together[0] - alone).abs().max() < BOUND


def test_no_shape_of_usual_hops_is_new_after_a_rehearsal(tensors: dict[str, Tensor]) -> None:
    shapes: list[tuple[int, ...]] = []
    vocoder, windows = build(tensors, shapes)
    windows.rehearse(2)
    rehearsed = set(shapes)
    shapes.clear()
    stream_together(vocoder, [random_mel(174, seed) for seed in range(2)], [[24, 50, 50, 50], [50, 50, 50, 24]], None)
    assert len(shapes) >= 4
    assert set(shapes) <= rehearsed


@torch.inference_mode()
def test_what_lies_around_a_window_is_not_heard(tensors: dict[str, Tensor]) -> None:
    """The same windows in a larger frame: other padding, the same samples."""
    vocoder, _ = build(tensors)
    roomy, windows = build(tensors)
    windows._sizes = [3 * CHUNK_FRAMES]
    mel = random_mel(124, 8)
    expected, ours = (stream_together(each, [mel], [[24, 50, 50]], None)[0] for each in (vocoder, roomy))
    assert (ours - expected).abs().max() < BOUND


def test_a_single_short_utterance_is_computed_without_padding() -> None:
    shapes: list[tuple[int, ...]] = []
    vocoder, _ = build(vocoder_tensors(VOCODER_DIMS), shapes)
    assert len(vocoder.render([vocoder.open(1)], [random_mel(30, 1)], [True])[0]) == 30 * SAMPLES
    assert shapes == []
