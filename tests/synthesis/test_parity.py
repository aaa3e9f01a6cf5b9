"""The parity command at toy size: every bound holds, and a fault in any network is found."""

import json
import zlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from serve_app.model.checkpoint import load_checkpoint
from serve_app.model.toy_checkpoint import write_networks
from serve_app.synthesis.parity import Row, main, measure


def test_every_bound_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--size", "toy"]) == 0
    lines = capsys.readouterr().out.splitlines()
    figures = json.loads(lines[-1])
    assert figures["holds"]
    assert max(figures["logits"], figures["mel"], figures["samples"]) < 1e-4
    assert sum(line.startswith("mel") for line in lines) == 6


def test_a_wrong_weight_in_any_network_is_found(tmp_path: Path) -> None:
    """Ours reads the caches, upstream the .pt files; one weight of each cache is off by a percent, checksum and all."""
    write_networks(tmp_path, "toy")
    load_checkpoint(tmp_path)
    for network, name in (
        ("llm", "llm.model.model.layers.1.mlp.down_proj.weight"),
        ("flow", "decoder.estimator.mid_blocks.1.1.0.attn1.to_v.weight"),
        ("hift", "resblocks.4.convs2.1.weight"),
    ):
        cache = tmp_path / f"{network}.serve.safetensors"
        with safe_open(str(cache), framework="pt") as file:
            notes = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (it is not a dict)
        changed = {key: value * 1.01 if key == name else value.clone() for key, value in tensors.items()}
        assert name in changed
        checksums = json.loads(notes["checksums"]) | {name: zlib.crc32(changed[name].numpy().tobytes())}
        cache.unlink()
        save_file(changed, cache, metadata=notes | {"checksums": json.dumps(checksums)})
    verdicts: dict[str, set[bool]] = {}
    for row in measure(tmp_path, (26,), 30):
        verdicts.setdefault(row.quantity, set()).add(row.holds)
    assert verdicts == {"logits": {False}, "mel": {False}, "samples": {False}}


@pytest.mark.parametrize("value", [2e-4, float("nan")])
def test_a_difference_does_not_hold(value: float) -> None:
    ours, theirs = torch.zeros(3), torch.tensor([0.0, value, 0.0])
    assert not Row.of("mel", "case", ours, theirs).holds
    assert Row.of("mel", "case", ours, ours).holds
