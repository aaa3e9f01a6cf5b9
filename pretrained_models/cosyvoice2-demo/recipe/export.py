"""Assemble the checkpoint directory from the training states: CosyVoice2's files and names, tensors in half precision.

python export.py --work WORK --out pretrained_models/cosyvoice2-demo
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import dims
import torch
from language import Codebook, LanguageModel
from safetensors.torch import save_file
from tokenizers import Tokenizer


def _yaml(values: dict[str, Any], spaces: int, references: dict[str, str]) -> str:
    """YAML lines of a mapping of plain values, lists in flow style, nested mappings one level deeper."""
    lines = []
    for key, value in values.items():
        if key in references:
            lines.append(f"{' ' * spaces}{key}: {references[key]}")
        elif isinstance(value, dict):
            lines += [f"{' ' * spaces}{key}:", _yaml(value, spaces + 4, {})]
        else:
            text = repr(value) if isinstance(value, (str, bool)) else json.dumps(value)
            lines.append(f"{' ' * spaces}{key}: {text}")
    return "\n".join(lines)


def yaml_text() -> str:
    """cosyvoice2.yaml in the structure of upstream's examples/libritts/cosyvoice2/conf/cosyvoice2.yaml."""
    hidden = dims.LM["hidden_size"]
    return f"""# A tiny demo checkpoint in the format of CosyVoice2: smaller sizes, the same structure. See README.md.
sample_rate: 24000
llm_input_size: {hidden}
llm_output_size: {hidden}
spk_embed_dim: 192
qwen_pretrain_path: ''
token_frame_rate: 25
token_mel_ratio: 2

# stream related params
chunk_size: {dims.CHUNK_TOKENS} # streaming inference chunk size, in token
num_decoding_left_chunks: -1 # streaming inference flow decoder left chunk size, <0 means use all left chunks

# model params
llm: !new:cosyvoice.llm.llm.Qwen2LM
    llm_input_size: !ref <llm_input_size>
    llm_output_size: !ref <llm_output_size>
    speech_token_size: {dims.NUM_CODES}
    length_normalized_loss: True
    lsm_weight: 0
    mix_ratio: [5, 15]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
{_yaml(dims.SAMPLING, 8, {})}

flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
    input_size: 512
    output_size: 80
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: {dims.NUM_CODES}
    input_frame_rate: !ref <token_frame_rate>
    only_mask_loss: True
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: 3
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
{_yaml(dims.ENCODER, 8, {"static_chunk_size": "!ref <chunk_size>"})}
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: 240
        n_spks: 1
        spk_emb_dim: 80
        cfm_params: !new:omegaconf.DictConfig
            content:
{_yaml(dims.CFM, 16, {"sigma_min": "1e-06"})}
        estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder
{
        _yaml(
            dims.ESTIMATOR,
            12,
            {
                "static_chunk_size": "!ref <chunk_size> * <token_mel_ratio>",
                "num_decoding_left_chunks": "!ref <num_decoding_left_chunks>",
            },
        )
    }

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
{_yaml(dims.VOCODER, 4, {"sampling_rate": "!ref <sample_rate>"})}
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
{_yaml(dims.F0_PREDICTOR, 8, {})}

# processor functions
get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1920
    num_mels: 80
    sampling_rate: !ref <sample_rate>
    hop_size: 480
    win_size: 1920
    fmin: 0
    fmax: 8000
    center: False
"""


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Half precision. Tensors that share storage go on sharing it, and all-zero ones are stored as a single zero."""
    done: dict[int, torch.Tensor] = {}
    result = {}
    for name, value in state.items():
        key = value.data_ptr()
        if key not in done:
            done[key] = value.detach().to(torch.float16).contiguous().clone()
            if value.numel() and not value.any():
                done[key] = torch.zeros(1, dtype=torch.float16).expand(value.shape)
        result[name] = done[key]
    return result


def language_state(work: Path) -> dict[str, torch.Tensor]:
    model = LanguageModel(Codebook.load(work), Tokenizer.from_file(str(work / "bpe.json")))
    model.load_state_dict(torch.load(work / "state/language.pt", weights_only=True)["average"])
    return model.export_state()


def flow_state(work: Path) -> dict[str, torch.Tensor]:
    """The averaged flow. Its four upsampled layers add nothing (see flow.py), so their other weights may be zero."""
    state = torch.load(work / "state/flow.pt", weights_only=True)["average"]
    for name, value in state.items():
        if name.startswith("encoder.up_encoders.") and value.dim() == 2:
            value.zero_()
    return state


def code_state(work: Path) -> dict[str, torch.Tensor]:
    """What gives the normalised voice's codes: nothing that speaks needs it, but `restart.py` does."""
    state: dict[str, torch.Tensor] = torch.load(work / "state/codes.pt", weights_only=True)["codes"]
    return state


def blank_language_model(work: Path, folder: Path) -> None:
    """CosyVoice-BlankEN: Qwen2's config, the tokenizer, and a stub for weights (llm.pt holds the real ones)."""
    folder.mkdir(exist_ok=True)
    dims.lm_config().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"architectures": ["Qwen2ForCausalLM"], "rope_theta": dims.LM["rope_theta"], "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({"model.norm.weight": torch.ones(dims.LM["hidden_size"])}, folder / "model.safetensors", {"format": "pt"})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(work / "tokenizer" / name, folder / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    out: Path = args.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "cosyvoice2.yaml").write_text(yaml_text())
    torch.save(half(language_state(args.work)), out / "llm.pt")
    torch.save(half(flow_state(args.work)), out / "flow.pt")
    (out / "recipe").mkdir(exist_ok=True)
    torch.save(half(code_state(args.work)), out / "recipe/codes.pt")
    vocoder = torch.load(args.work / "state/vocoder.pt", weights_only=True)["model"]
    torch.save(half({f"generator.{name}": value for name, value in vocoder.items()}), out / "hift.pt")
    for name in ("speech_tokenizer_v2.onnx", "campplus.onnx"):
        shutil.copy(args.work / "onnx" / name, out / name)
    blank_language_model(args.work, out / "CosyVoice-BlankEN")
    files = [path for path in out.rglob("*") if path.is_file() and "recipe" not in path.parts]
    for path in files:
        print(f"{path.stat().st_size / 1e6:7.2f} MB {path.relative_to(out)}")
    print(f"{sum(path.stat().st_size for path in files) / 1e6:7.2f} MB in all")


if __name__ == "__main__":
    main()
