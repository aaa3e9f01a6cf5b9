"""The toy checkpoint is one that upstream's code loads, and that behaves; the real size is upstream's to the letter."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from serve_app.model.checkpoint import Checkpoint, load_checkpoint
from serve_app.model.dims import CheckpointDims
from serve_app.model.flow import Flow
from serve_app.model.kv_cache import KVCache
from serve_app.model.language_model import LanguageModel
from serve_app.model.toy_checkpoint import (
    Draw,
    flow_tensors,
    hift_tensors,
    llm_tensors,
    random_checkpoint,
    write_networks,
)
from serve_app.model.toy_recipe import DIMS, config_json
from serve_app.model.vocoder import Vocoder
from serve_app.synthesis.upstream import build_flow, build_language_model, build_vocoder


def test_what_is_made_up_in_memory_is_what_is_written_and_loaded(toy_networks: Path) -> None:
    written, made_up = load_checkpoint(toy_networks), random_checkpoint("toy")
    assert made_up.dims == written.dims
    for name in ("language_model", "flow", "vocoder"):
        ours, theirs = getattr(made_up, name), getattr(written, name)
        assert ours.keys() == theirs.keys()
        for key, tensor in ours.items():
            torch.testing.assert_close(tensor, theirs[key], atol=1e-6, rtol=1e-6)


def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.filterwarnings("ignore")  # of old dependencies
def test_upstreams_own_loader_reads_it(toy_networks: Path) -> None:
    """hyperpyyaml builds upstream's classes from the yaml, and their strict `load_state_dict` takes the tensors."""
    from hyperpyyaml import load_hyperpyyaml

    build_flow(DIMS["toy"].flow)  # imports upstream without its training stack
    text = (toy_networks / "cosyvoice2.yaml").read_text()
    text = text[: text.index("get_tokenizer:")]  # the front end's part pulls in that stack
    built: dict[str, Any] = load_hyperpyyaml(
        text, overrides={"qwen_pretrain_path": str(toy_networks / "CosyVoice-BlankEN")}
    )
    assert type(built["llm"]).__name__ == "Qwen2LM"
    for part, name in (("llm", "llm"), ("flow", "flow"), ("hift", "hift")):
        built[part].load_state_dict(torch.load(toy_networks / f"{name}.pt", weights_only=True), strict=True)


@pytest.mark.parametrize("size", ["toy", "real"])
def test_names_and_shapes_are_upstreams(size: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against upstream's modules, built without memory for their numbers."""
    import transformers

    dims: CheckpointDims = DIMS[size]
    draw = Draw(0, device="meta")
    config = transformers.Qwen2Config(**config_json(dims.language_model))
    monkeypatch.setattr(
        transformers.Qwen2ForCausalLM, "from_pretrained", lambda _: transformers.Qwen2ForCausalLM(config)
    )
    # The vocoder computes with its layers' strides while it is built, which needs numbers; it is small.
    hift = build_vocoder(dims.vocoder)
    with torch.device("meta"):
        llm = build_language_model(dims.language_model, dims.sampling, tmp_path)
        flow = build_flow(dims.flow)
    assert shapes(llm_tensors(dims.language_model, draw)) == shapes(llm.state_dict())
    assert shapes(flow_tensors(dims.flow, draw)) == shapes(flow.state_dict())
    assert shapes(hift_tensors(dims.vocoder, draw)) == shapes(hift.state_dict())


def test_real_size_is_the_published_one() -> None:
    draw, dims = Draw(0, device="meta"), DIMS["real"]
    counts = {
        "llm": llm_tensors(dims.language_model, draw),
        "flow": flow_tensors(dims.flow, draw),
        "hift": hift_tensors(dims.vocoder, draw),
    }
    numbers = {name: sum(tensor.numel() for tensor in tensors.values()) for name, tensors in counts.items()}
    tied = 151936 * 896  # the text head is the text embedding
    assert {name: len(tensors) for name, tensors in counts.items()} == {"llm": 295, "flow": 1121, "hift": 328}
    assert numbers == {"llm": 505_803_812 + tied, "flow": 112_549_360, "hift": 20_821_295}


def test_equal_seeds_write_equal_tensors(toy_networks: Path, tmp_path: Path) -> None:
    def tensors(directory: Path) -> dict[str, Tensor]:
        content: dict[str, Tensor] = torch.load(directory / "llm.pt", weights_only=True)
        return content

    first = tensors(toy_networks)
    for seed, same in ((0, True), (1, False)):
        write_networks(tmp_path / str(seed), "toy", seed=seed)
        other = tensors(tmp_path / str(seed))
        assert torch.equal(first["llm_decoder.weight"], other["llm_decoder.weight"]) is same
        shutil.rmtree(tmp_path / str(seed))


@torch.inference_mode()
def test_sentences_end_between_their_bounds(toy_tensors: Checkpoint) -> None:
    """With plain sampling from the 25 best; the stop token is masked up to twice the text's length."""
    model = LanguageModel.from_tensors(toy_tensors.dims.language_model, toy_tensors.language_model)
    cache = KVCache.allocate(model.dims, 1, 512)
    num_text_tokens, lengths = 10, []
    for seed in range(12):
        generator = torch.Generator().manual_seed(seed)
        slot = cache.take()
        text = torch.randint(0, model.dims.text_vocab, (num_text_tokens,), generator=generator)
        prefix = model.embed_prefix(text, text[:0])
        logits, length = model.prefill(prefix, cache, slot, 0), 0
        while length < 20 * num_text_tokens:
            if length < 2 * num_text_tokens:
                logits[model.dims.eos_id :] = -torch.inf
            best = logits.topk(25)
            token = best.indices[best.values.softmax(-1).multinomial(1, generator=generator)]
            if token.item() >= model.dims.eos_id:
                break
            at = torch.tensor([len(prefix) + length])
            logits = model.decode(token, cache, torch.tensor([slot]), at)[0]
            length += 1
        lengths.append(length)
        cache.give_back(slot)
    assert min(lengths) >= 2 * num_text_tokens
    assert sum(length < 20 * num_text_tokens for length in lengths) >= 10
    assert sum(length > 3 * num_text_tokens for length in lengths) >= 3


def test_sound_is_neither_silent_nor_clipped(toy_tensors: Checkpoint) -> None:
    flow = Flow.from_tensors(toy_tensors.dims.flow, toy_tensors.flow)
    vocoder = Vocoder.from_tensors(toy_tensors.dims.vocoder, toy_tensors.vocoder)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 6561, (75,), generator=generator)
    state = flow.open(torch.randn(192, generator=generator), ids[:25], torch.randn(50, 80, generator=generator) - 5)
    mel = torch.cat([flow.render([state], [ids[start : start + 28]])[0] for start in (25, 50)])
    assert mel.shape[1] == 80
    assert 0.5 < mel.std() < 4
    samples = vocoder.render([vocoder.open(0)], [mel], [True])[0]
    assert len(samples) == 480 * len(mel)
    assert 0.02 < samples.square().mean().sqrt() < 0.3
    assert samples.abs().max() < 0.99


def test_writing_over_a_cached_checkpoint_is_noticed(tmp_path: Path) -> None:
    """A new seed in the same directory is not answered with the old one's cache."""
    write_networks(tmp_path, "toy", seed=0)
    first = load_checkpoint(tmp_path).language_model["llm_decoder.weight"]
    write_networks(tmp_path, "toy", seed=1)
    assert not torch.equal(load_checkpoint(tmp_path).language_model["llm_decoder.weight"], first)
