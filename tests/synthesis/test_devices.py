"""What would meet a GPU, on a device of shapes without numbers (meta): it lets no tensor of the CPU into a product, and
gives nothing back, so that a step that mixes the two, or that waits for the device to decide something, fails here."""

import pytest
import torch

from serve_app.model.checkpoint import Checkpoint
from serve_app.model.fixed_windows import FixedWindows
from serve_app.model.flow import Flow, FlowState
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.model.paged_chunks import PagedChunks
from serve_app.model.vocoder import Vocoder
from serve_app.synthesis.mel_stretch import StretchState, stretch
from serve_app.synthesis.sampling import Sampler

DEVICE = torch.device("meta")


@torch.inference_mode()
def test_chunks_of_the_flow(checkpoint: Checkpoint) -> None:
    flow = Flow.from_tensors(checkpoint.dims.flow, checkpoint.flow).to(DEVICE)
    flow.estimator.to(torch.bfloat16)
    flow.chunks = PagedChunks(flow, 20, lambda call: call)
    flow.chunks.rehearse(1, 2)
    mel = torch.zeros((60, 80), device=DEVICE)

    def begin() -> FlowState:
        return flow.begin(torch.zeros(192, device=DEVICE), torch.zeros(30, dtype=torch.int64), mel)

    states = [begin(), begin()]
    for count in (28, 28, 9):
        mels = flow.render(states, [torch.zeros(count, dtype=torch.int64)] * 2)
        assert all(part.device == DEVICE and len(part) == 2 * min(count, 25) for part in mels)
    assert states[0].clone().num_tokens == 59


@torch.inference_mode()
def test_windows_of_the_vocoder(checkpoint: Checkpoint) -> None:
    vocoder = Vocoder.from_tensors(checkpoint.dims.vocoder, checkpoint.vocoder).to(DEVICE)
    vocoder.windows = FixedWindows(vocoder, checkpoint.dims.flow.chunk_frames, lambda call: call)
    vocoder.windows.rehearse(2)
    states, sizes = [vocoder.open(1), vocoder.open(2)], []
    for final in (False, False, True):
        samples = vocoder.render(states, [torch.zeros((50, 80), device=DEVICE)] * 2, [final] * 2)
        assert all(part.device == DEVICE for part in samples)
        sizes.append(len(samples[1]))
    assert sum(sizes) == 150 * checkpoint.dims.vocoder.samples_per_frame


@torch.inference_mode()
def test_steps_of_the_language_model_and_the_draw(checkpoint: Checkpoint) -> None:
    dims = checkpoint.dims.language_model
    model = LanguageModel.from_tensors(dims, checkpoint.language_model).to(DEVICE).reduce(torch.bfloat16)
    cache = KVCache.allocate(dims, 3, 256, torch.bfloat16, DEVICE)
    prompt = model.embed_prefix(torch.zeros(5, dtype=torch.int64), torch.zeros(3, dtype=torch.int64))
    assert model.prefill(prompt, cache, cache.take(), 0).device == DEVICE
    rows = torch.zeros((2, 3), dtype=torch.int64, device=DEVICE)
    ids, slots, positions = rows.unbind(1)
    logits = model.decode_span(ids, cache, slots, positions, 128)
    stops, random = torch.ones((2, 3), dtype=torch.bool, device=DEVICE), torch.zeros((2, 2), device=DEVICE)
    sampler = Sampler(checkpoint.dims.sampling)
    recent = torch.zeros((2, sampler.window), dtype=torch.int64, device=DEVICE)
    assert sampler(logits, recent, stops, random).shape == (2,)


@torch.inference_mode()
@pytest.mark.parametrize("speed", [0.5, 2.0])
def test_another_speed(speed: float) -> None:
    state = StretchState(speed)
    for final in (False, True):
        assert stretch(torch.zeros((50, 80), device=DEVICE), state, final=final).device == DEVICE
    assert state.num_out == 100 / speed
