"""Loading a checkpoint directory: equal to what was written, safe with hostile files, clear about wrong ones."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from serve_app.model.checkpoint import Checkpoint, CheckpointFault, load_checkpoint
from serve_app.model.plain_yaml import PlainYaml
from serve_app.model.read_dims import read_dims
from serve_app.model.toy_recipe import DIMS

TensorDict = dict[str, Tensor]


@pytest.fixture
def directory(toy_networks: Path, toy_tensors: Checkpoint, tmp_path: Path) -> Path:
    """A copy to be changed, not cached but for the flow, which is large and therefore linked."""
    assert toy_tensors.flow
    copy = tmp_path / "checkpoint"
    shutil.copytree(toy_networks, copy, ignore=shutil.ignore_patterns("flow.*", "*.serve.safetensors"))
    for name in ("flow.pt", "flow.serve.safetensors"):
        os.link(toy_networks / name, copy / name)
    return copy


def caches(directory: Path) -> set[str]:
    """The networks that are cached, the flow apart."""
    return {path.name.split(".")[0] for path in directory.glob("*.serve.safetensors")} - {"flow"}


def load_pt(path: Path) -> TensorDict:
    content: TensorDict = torch.load(path, weights_only=True)
    return content


def edit_yaml(directory: Path, old: str, new: str) -> None:
    path = directory / "cosyvoice2.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def equal(a: TensorDict, b: TensorDict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- sizes


def test_sizes_come_back_as_written(toy_networks: Path) -> None:
    assert read_dims(toy_networks) == DIMS["toy"]


def test_sizes_are_those_of_the_yaml(directory: Path) -> None:
    edit_yaml(directory, "linear_units: 128", "linear_units: 96")
    edit_yaml(directory, "chunk_size: 25", "chunk_size: 20")
    edit_yaml(directory, "t_scheduler: 'cosine'", "t_scheduler: 'cosine'\n                n_timesteps: 5")
    expected = replace(
        DIMS["toy"].flow, num_steps=5, chunk_tokens=20, encoder=replace(DIMS["toy"].flow.encoder, linear_units=96)
    )
    assert read_dims(directory).flow == expected


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("channels: [64]", "channels: [64, 64]", "an estimator of 2 resolutions"),
        ("t_scheduler: 'cosine'", "t_scheduler: 'linear'", "t_scheduler is linear, not cosine"),
        ("t_scheduler: 'cosine'", "n_timesteps: 0", "0 Euler steps"),
        ("sample_rate: 24000", "sample_rate: 22050", "sample_rate is 22050, not 24000"),
        ("        num_blocks: 2\n", "", "lacks flow.encoder.num_blocks"),
        ("base_channels: 64", "base_channels: wide", "hift.base_channels is not a whole number"),
        ("chunk_size: 25", "chunk_size: !ref <chunk_size>", "run in a circle"),
        ("chunk_size: 25", "chunk_size: !ref <nothing>", "refers to <nothing>"),
        ("attention_heads: 8", "attention_heads: 7", "512 channels do not divide among 7 heads"),
        ("in_channels: 320", "in_channels: 240", "not four times 80"),
        ("llm_input_size: 64", "llm_input_size: 65", "llm.llm_input_size is not the hidden_size 64"),
    ],
)
def test_wrong_yaml_is_named(directory: Path, old: str, new: str, message: str) -> None:
    edit_yaml(directory, old, new)
    with pytest.raises(CheckpointFault, match=message):
        read_dims(directory)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: !ref <b> * <c.d>\nb: 3\nc: {d: 4}", 12),
        ("a: !ref <c[d][1]>\nc: {d: [1, 2]}", 2),
        ("a: !ref (<b> + 1) // 2 - -<b>\nb: !ref <c>\nc: 5", 8),
        ("a: !ref <b> / 2\nb: 4", 2),
    ],
)
def test_references_are_computed(tmp_path: Path, text: str, expected: int) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert PlainYaml.read(tmp_path / "x.yaml").integer("a") == expected


@pytest.mark.parametrize("expression", ["__import__('os').getpid()", "<b>.real", "2 ** 99999999", "[1][0]"])
def test_references_compute_nothing_else(tmp_path: Path, expression: str) -> None:
    (tmp_path / "x.yaml").write_text(f'a: !ref "{expression}"\nb: 3')
    with pytest.raises(CheckpointFault, match="a is not a whole number"):
        PlainYaml.read(tmp_path / "x.yaml").integer("a")


@pytest.mark.parametrize(
    "rope", [{"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}, {"rope_theta": 5e5}]
)
def test_rotary_base_of_old_and_new_transformers(directory: Path, rope: dict[str, object]) -> None:
    path = directory / "CosyVoice-BlankEN/config.json"
    config = json.loads(path.read_text())
    del config["rope_theta"]
    path.write_text(json.dumps(config | rope))
    assert read_dims(directory).language_model.rope_theta == 5e5


# --- hostile files


class _Payload:
    """Pickles to a call that creates a file."""

    def __init__(self, proof: Path) -> None:
        self._proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self._proof),))


@pytest.mark.parametrize("name", ["llm.pt", "flow.pt", "hift.pt"])
@pytest.mark.parametrize("legacy", [False, True])
def test_pickle_payload_does_not_run(directory: Path, name: str, legacy: bool) -> None:
    proof = directory / "it-ran"
    (directory / name).unlink()
    torch.save({"weight": _Payload(proof)}, directory / name, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(CheckpointFault, match=f"{name} cannot be read safely"):
        load_checkpoint(directory)
    assert not proof.exists()
    # The payload is a working one: the unrestricted unpickler runs it.
    torch.load(directory / name, weights_only=False)
    assert proof.exists()


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/object/new:os.mkdir"])
def test_yaml_payload_does_not_run(directory: Path, tag: str) -> None:
    proof = directory / "it-ran"
    edit_yaml(directory, "sample_rate: 24000", f"sample_rate: {tag} ['{proof}']")
    with pytest.raises(CheckpointFault, match=r"cosyvoice2\.yaml cannot be read"):
        load_checkpoint(directory)
    assert not proof.exists()


@pytest.mark.parametrize("tag", ["!apply:os.mkdir", "!new:os.mkdir", "!name:os.mkdir"])
def test_hyperpyyaml_tags_are_only_data(directory: Path, tag: str) -> None:
    proof = directory / "it-ran"
    edit_yaml(directory, "allowed_special: 'all'", f"allowed_special: {tag} ['{proof}']")
    assert read_dims(directory) == DIMS["toy"]
    assert not proof.exists()


# --- tensors


def test_names_are_upstreams_with_weight_norm_folded(toy_networks: Path, toy_tensors: Checkpoint) -> None:
    llm, hift = load_pt(toy_networks / "llm.pt"), load_pt(toy_networks / "hift.pt")
    assert llm.keys() - toy_tensors.language_model.keys() == {"llm.model.lm_head.weight"}
    assert equal(toy_tensors.flow, load_pt(toy_networks / "flow.pt"))

    conv = nn.utils.parametrizations.weight_norm(nn.ConvTranspose1d(64, 32, 16))
    conv.load_state_dict({name: hift[f"ups.0.{name}"] for name in conv.state_dict()})
    assert torch.equal(toy_tensors.vocoder["ups.0.weight"], conv.weight)
    assert torch.equal(toy_tensors.vocoder["source_downs.0.weight"], hift["source_downs.0.weight"])
    assert not [name for name in toy_tensors.vocoder if "parametrizations" in name]


def test_variants_of_hift_load_equally(directory: Path, toy_tensors: Checkpoint) -> None:
    """The prefix of upstream's training, and the names that older torch gave weight norm."""
    hift = load_pt(directory / "hift.pt")
    renamed = {
        "generator."
        + name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): tensor
        for name, tensor in hift.items()
    }
    torch.save({**renamed, "epoch": 3, "step": 1000}, directory / "hift.pt")
    assert equal(load_checkpoint(directory).vocoder, toy_tensors.vocoder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_upcast_and_stays_small_on_disk(directory: Path, dtype: torch.dtype) -> None:
    llm = load_pt(directory / "llm.pt")
    torch.save({name: tensor.to(dtype) for name, tensor in llm.items()}, directory / "llm.pt")
    for _ in range(2):  # the second time from the cache
        loaded = load_checkpoint(directory).language_model
        for name, tensor in loaded.items():
            assert tensor.dtype == torch.float32
            assert torch.equal(tensor, llm[name].to(dtype).float())
    size = (directory / "llm.serve.safetensors").stat().st_size
    assert size < 1.1 * sum(2 * tensor.numel() for tensor in loaded.values())


def test_shared_storage_loads_and_stays_shared(directory: Path) -> None:
    """Tied layers and views of a larger tensor, as a small checkpoint may have them."""
    llm = load_pt(directory / "llm.pt")
    first, second = "llm.model.model.layers.0.mlp.gate_proj.weight", "llm.model.model.layers.1.mlp.gate_proj.weight"
    llm[first] = llm[second] = llm[first].half()
    together = torch.cat([llm["llm_decoder.weight"], llm["speech_embedding.weight"]]).half()
    llm["llm_decoder.weight"], llm["speech_embedding.weight"] = together.chunk(2)
    torch.save(llm, directory / "llm.pt")
    for _ in range(2):
        loaded = load_checkpoint(directory).language_model
        assert loaded[second].data_ptr() == loaded[first].data_ptr()
        assert torch.equal(loaded[second], llm[first].float())
        assert torch.equal(loaded["speech_embedding.weight"], together.chunk(2)[1].float())


def test_every_fault_is_named_at_once(directory: Path) -> None:
    llm, hift = load_pt(directory / "llm.pt"), load_pt(directory / "hift.pt")
    del llm["llm_decoder.bias"]
    llm["surprise"] = torch.zeros(1)
    hift["conv_pre.bias"] = torch.zeros(7)
    hift["resblocks.0.convs1.0.parametrizations.weight.original1"] = torch.zeros(32, 32, 5)
    torch.save(llm, directory / "llm.pt")
    torch.save(hift, directory / "hift.pt")
    edit_yaml(directory, "linear_units: 128", "linear_units: 129")
    with pytest.raises(CheckpointFault) as caught:
        load_checkpoint(directory)
    lines = {line.strip() for line in str(caught.value).splitlines()[1:]}
    assert {
        "llm.pt: llm_decoder.bias is missing",
        "llm.pt: surprise is not known",
        "hift.pt: conv_pre.bias has shape [7], not [64]",
        "hift.pt: resblocks.0.convs1.0.weight has shape [32, 32, 5], not [32, 32, 3]",
        "flow.pt: encoder.encoders.1.feed_forward.w_1.weight has shape [128, 512], not [129, 512]",
    } <= lines
    assert len(lines) == 4 + 3 * 6  # the flow's: w_1 weight and bias, w_2 weight, in six layers
    assert not caches(directory)  # nothing faulty is cached


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(2, dtype=torch.int64), torch.eye(2).to_sparse()])
def test_what_is_not_a_float_tensor_is_refused(directory: Path, value: object) -> None:
    torch.save({**load_pt(directory / "llm.pt"), "llm_decoder.bias": value}, directory / "llm.pt")
    with pytest.raises(CheckpointFault, match=r"llm_decoder\.bias is not a tensor of floating-point numbers"):
        load_checkpoint(directory)


def test_half_of_a_weight_norm_is_refused(directory: Path) -> None:
    hift = load_pt(directory / "hift.pt")
    del hift["conv_pre.parametrizations.weight.original0"]
    torch.save(hift, directory / "hift.pt")
    with pytest.raises(CheckpointFault, match=r"conv_pre.* has no magnitude"):
        load_checkpoint(directory)


@pytest.mark.parametrize("name", ["llm.pt", "cosyvoice2.yaml", "CosyVoice-BlankEN/config.json"])
def test_missing_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    with pytest.raises(CheckpointFault, match=name):
        load_checkpoint(directory)


@pytest.mark.parametrize("kept", [0.0, 0.5])
def test_truncated_file_is_named(directory: Path, kept: float) -> None:
    content = (directory / "llm.pt").read_bytes()
    (directory / "llm.pt").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(CheckpointFault, match=r"llm\.pt cannot be read safely"):
        load_checkpoint(directory)


# --- the cache


def test_cache_equals_source_and_spares_reading_it(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_checkpoint(directory)
    assert caches(directory) == {"llm", "hift"}

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a .pt was read")

    monkeypatch.setattr(torch, "load", refuse)
    second = load_checkpoint(directory)
    for network in ("language_model", "flow", "vocoder"):
        assert equal(getattr(first, network), getattr(second, network))


def test_cache_of_another_source_is_rebuilt(directory: Path) -> None:
    load_checkpoint(directory)
    llm = load_pt(directory / "llm.pt")
    llm["llm_decoder.bias"] += 1.0
    torch.save(llm, directory / "llm.pt")
    assert torch.equal(load_checkpoint(directory).language_model["llm_decoder.bias"], llm["llm_decoder.bias"])
    with safe_open(str(directory / "llm.serve.safetensors"), framework="pt") as file:
        assert torch.equal(file.get_tensor("llm_decoder.bias"), llm["llm_decoder.bias"])


@pytest.mark.parametrize("damage", [b"", b"rubbish, not safetensors", None])
def test_damaged_cache_is_rebuilt(directory: Path, toy_tensors: Checkpoint, damage: bytes | None) -> None:
    load_checkpoint(directory)
    cache = directory / "llm.serve.safetensors"
    whole = cache.read_bytes()
    damaged = whole[:-100] if damage is None else damage
    cache.unlink()  # the tensors loaded before still map the old file
    cache.write_bytes(damaged)
    assert equal(load_checkpoint(directory).language_model, toy_tensors.language_model)
    assert len(cache.read_bytes()) == len(whole)


def test_one_flipped_bit_in_the_data_of_a_cache_is_noticed(directory: Path, toy_tensors: Checkpoint) -> None:
    load_checkpoint(directory)
    cache = directory / "llm.serve.safetensors"
    whole = cache.read_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    cache.unlink()  # the tensors loaded before still map the old file
    cache.write_bytes(flipped)
    assert equal(load_checkpoint(directory).language_model, toy_tensors.language_model)
    assert cache.read_bytes()[-100:] == whole[-100:]  # the notes in its head come in any order


def test_directory_that_cannot_be_written_only_means_no_cache(
    directory: Path, toy_tensors: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("read-only")

    # Not chmod: tests may run as root, whom permissions do not bind.
    monkeypatch.setattr("serve_app.model.stored_network.tempfile.mkstemp", refuse)
    assert equal(load_checkpoint(directory).language_model, toy_tensors.language_model)
    assert not caches(directory)


def test_full_disk_leaves_no_half_cache(
    directory: Path, toy_tensors: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr("serve_app.model.stored_network.save_file", fill)
    before = set(directory.iterdir())
    assert equal(load_checkpoint(directory).language_model, toy_tensors.language_model)
    assert set(directory.iterdir()) == before
