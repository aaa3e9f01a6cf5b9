"""A checkpoint directory with random weights, in upstream's format to the letter: for tests, parity and a first start.

What it says is noise, but it behaves: sentences end after a plausible number of tokens, mels are finite, the sound is
neither silent nor clipped. Tokenizer and ONNX files are `preprocess/toy_frontend.py`'s part.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from serve_app.model import flow, language_model, vocoder
from serve_app.model.checkpoint import Checkpoint
from serve_app.model.dims import FlowDims, LanguageModelDims, VocoderDims
from serve_app.model.file_names import CONFIG_FILE, YAML_FILE
from serve_app.model.toy_recipe import DIMS, Size, config_json, yaml_text

VOICE = "toy"
"""The voice in spk2info.pt."""

_EOS_LOGIT = 5.7
"""Against other logits of standard deviation 2; found by trying."""

_NORMS = ("norm", ".block.2.", "embed.out.1.")
"""Parts of the names of normalisation layers, whose weights are near one."""

_NOT_WEIGHT_NORMED = ("m_source.", "source_downs.", "f0_predictor.classifier.")
"""The vocoder's layers without weight norm."""


def write_networks(directory: Path, size: Size, seed: int = 0) -> None:
    """Writes the yaml, the three .pt files, Qwen2's config with an empty model, and spk2info.pt with one voice.

    Equal seeds write equal tensors. The real size takes 2.5 GB of disk and about as much memory.
    """
    dims = DIMS[size]
    (directory / CONFIG_FILE).parent.mkdir(parents=True, exist_ok=True)
    (directory / YAML_FILE).write_text(yaml_text(dims), encoding="utf-8")
    (directory / CONFIG_FILE).write_text(json.dumps(config_json(dims.language_model), indent=2), encoding="utf-8")
    # transformers wants some weights there; upstream loads llm.pt over them.
    stub = {"model.norm.weight": torch.ones(dims.language_model.hidden)}
    save_file(stub, (directory / CONFIG_FILE).with_name("model.safetensors"), metadata={"format": "pt"})

    draw = Draw(seed)
    torch.save(llm_tensors(dims.language_model, draw), directory / "llm.pt")
    torch.save(flow_tensors(dims.flow, draw), directory / "flow.pt")
    torch.save(hift_tensors(dims.vocoder, draw), directory / "hift.pt")
    speaker = draw.normal((1, dims.flow.speaker_dim))
    torch.save({VOICE: {"embedding": speaker}}, directory / "spk2info.pt")


def random_checkpoint(size: Size, seed: int = 0) -> Checkpoint:
    """The weights of `write_networks`, as they are once loaded, without any file."""
    dims, draw = DIMS[size], Draw(seed)
    llm = llm_tensors(dims.language_model, draw)
    for name in language_model.UNUSED_TENSORS:
        del llm[name]
    return Checkpoint(dims, llm, flow_tensors(dims.flow, draw), _vocoder_tensors(dims.vocoder, draw))


class Draw:
    """Random tensors of one seed. device: "meta" makes shapes without numbers."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._device = device
        self._generator = torch.Generator().manual_seed(seed) if device == "cpu" else None

    def normal(self, shape: tuple[int, ...], std: float = 1.0, mean: float = 0.0) -> Tensor:
        return torch.empty(shape, device=self._device).normal_(mean, std, generator=self._generator)

    def weights(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Scaled so that what goes through layers of any width stays of the order of one."""
        return {name: self._weight(name, shape) for name, shape in shapes.items()}

    def _weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        if any(part in name for part in _NORMS) or name.endswith("alpha"):
            return self.normal(shape, 0.1, 0.0 if name.endswith("bias") else 1.0)
        if len(shape) == 1 or "pos_bias" in name:
            return self.normal(shape, 0.05)
        if "embed" in name and ".out." not in name and "affine" not in name:
            return self.normal(shape)
        fan_in = torch.Size(shape[1:]).numel()
        return self.normal(shape, fan_in**-0.5)


def llm_tensors(dims: LanguageModelDims, draw: Draw) -> dict[str, Tensor]:
    """llm.pt, by upstream's names."""
    tensors = draw.weights(language_model.expected_tensors(dims))
    # A peaked distribution, and an end token with a constant place among its leaders: about one stop in 40 draws.
    tensors["llm_decoder.weight"] *= 2.0
    tensors["llm_decoder.weight"][dims.eos_id :] = 0.0
    tensors["llm_decoder.bias"][dims.eos_id] = _EOS_LOGIT
    tensors["llm_decoder.bias"][dims.eos_id + 1 :] = -20.0
    # Tied, as in the published file.
    tensors["llm.model.lm_head.weight"] = tensors[f"{language_model.BACKBONE}embed_tokens.weight"]
    return tensors


def flow_tensors(dims: FlowDims, draw: Draw) -> dict[str, Tensor]:
    """flow.pt, by upstream's names."""
    return draw.weights(flow.expected_tensors(dims))


def _vocoder_tensors(dims: VocoderDims, draw: Draw) -> dict[str, Tensor]:
    """hift.pt, weight norm folded."""
    tensors = draw.weights(vocoder.expected_tensors(dims))
    for name in tensors:
        if "resblocks." in name and name.endswith(".weight"):
            tensors[name] *= 0.3  # three blocks of six convolutions add up in each of three stages
    half = dims.istft_n_fft // 2 + 1
    tensors["conv_post.bias"][:half] = 0.5  # log-magnitudes, for speech-like loudness
    # Around 120 Hz, now and then below the 10 Hz that count as voiced.
    tensors["f0_predictor.classifier.weight"] *= 150.0
    tensors["f0_predictor.classifier.bias"][:] = 120.0
    return tensors


def hift_tensors(dims: VocoderDims, draw: Draw) -> dict[str, Tensor]:
    """hift.pt, by upstream's names: weight norm not folded."""
    split: dict[str, Tensor] = {}
    for name, tensor in _vocoder_tensors(dims, draw).items():
        if name.endswith(".weight") and not name.startswith(_NOT_WEIGHT_NORMED):
            stem = name.removesuffix("weight") + "parametrizations.weight."
            split[f"{stem}original0"] = tensor.flatten(1).norm(dim=1).reshape(-1, *(1,) * (tensor.ndim - 1))
            split[f"{stem}original1"] = tensor * 0.5  # only its direction counts
        else:
            split[name] = tensor
    return split
