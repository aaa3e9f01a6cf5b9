"""Upstream's own modules, built from a checkpoint directory: the yardstick of parity and of benchmarks.

The only file that imports upstream's `cosyvoice` package (the optional extra `reference`). It is given sizes and state
dicts, never the directory's yaml, which upstream's loader would execute.
"""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from serve_app.model.dims import CheckpointDims, FlowDims, LanguageModelDims, SamplingDims, VocoderDims
from serve_app.model.file_names import CONFIG_FILE
from serve_app.model.read_dims import read_dims
from serve_app.model.stored_network import read_pickle

_HELP = "upstream's modules are missing: install the extra `reference` of cosyvoice-serve, or run `make setup`"


@contextmanager
def _quiet() -> Iterator[None]:
    """Old dependencies warn at length while upstream's modules are imported and built."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True, slots=True, eq=False)
class Upstream:
    """Upstream's three networks with a checkpoint's weights, fp32 on the CPU, in evaluation mode.

    language_model: `Qwen2LM`; flow: `CausalMaskedDiffWithXvec`; vocoder: `HiFTGenerator`.
    """

    dims: CheckpointDims
    language_model: Any
    flow: Any
    vocoder: Any


def load_upstream(directory: Path) -> Upstream:
    """Raises ImportError without the extra `reference`, CheckpointFault for an unreadable directory, RuntimeError from
    torch for tensors that do not fit."""
    dims = read_dims(directory)
    upstream = Upstream(
        dims,
        build_language_model(dims.language_model, dims.sampling, (directory / CONFIG_FILE).parent),
        build_flow(dims.flow),
        build_vocoder(dims.vocoder),
    )
    for network, name in (
        (upstream.language_model, "llm"),
        (upstream.flow, "flow"),
        (upstream.vocoder, "hift"),
    ):
        tensors = {
            key.removeprefix("generator."): value for key, value in read_pickle(directory / f"{name}.pt").items()
        }
        network.load_state_dict({key: value for key, value in tensors.items() if isinstance(value, Tensor)})
        network.eval().requires_grad_(False)
    return upstream


class _Cache:
    """transformers' cache with the subscript by which upstream asks how much it holds."""

    def __init__(self, past: Any) -> None:
        self.past = past

    def __getitem__(self, layer: int) -> tuple[Tensor, Tensor]:
        layer_cache = self.past.layers[layer]
        return layer_cache.keys, layer_cache.values


@torch.inference_mode()
def fed_scores(upstream: Upstream, text: Tensor, transcript: Tensor, prompt: Tensor, script: Sequence[int]) -> Tensor:
    """What upstream's `inference_bistream` draws from while it says `script`: log-probabilities [len(script), V].

    text: [T] tokens, which arrive one by one; transcript: [L]; prompt: [N] speech tokens; script: the speech tokens
    that it says, and the end token. The packaged code lets the model choose when it first asks for text; here it does
    so when upstream's of 2026 does: when the prompt's last block of speech is full.
    """
    dims, model = upstream.dims.language_model, upstream.language_model
    first_fill = dims.speech_block - len(prompt) % dims.speech_block
    script = list(script)
    scores: list[Tensor] = []
    forward = model.llm.forward_one_step

    def step(xs: Tensor, masks: Tensor, cache: _Cache | None = None) -> tuple[Tensor, _Cache]:
        hidden, past = forward(xs, masks, cache.past if cache is not None else None)
        return hidden, _Cache(past)

    def draw(given: Tensor, decoded: list[int], unused: int) -> Tensor:
        if len(decoded) == first_fill:
            return torch.tensor([dims.fill_id])
        scores.append(given)
        return torch.tensor([script[len(scores) - 1]])

    with mock.patch.object(model, "sampling", draw), mock.patch.object(model.llm, "forward_one_step", step):
        said = model.inference_bistream(
            text=(token[None, None] for token in text),
            prompt_text=transcript[None],
            prompt_text_len=torch.tensor([len(transcript)]),
            prompt_speech_token=prompt[None],
            prompt_speech_token_len=torch.tensor([len(prompt)]),
            embedding=torch.zeros(1, 0),
        )
        for _ in said:
            pass
    return torch.stack(scores)


@_quiet()
def build_language_model(dims: LanguageModelDims, sampling: SamplingDims, pretrained: Path) -> Any:
    """`Qwen2LM` without the checkpoint's weights. pretrained: directory of Qwen2's config.json and safetensors."""
    with _importing():
        from cosyvoice.llm.llm import Qwen2Encoder, Qwen2LM  # noqa: PLC0415 (optional)
        from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    # It would report every weight that the directory's stub lacks; they all come from llm.pt.
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        encoder = Qwen2Encoder(str(pretrained))
    finally:
        transformers_logging.set_verbosity(verbosity)
        transformers_logging.enable_progress_bar()
    return Qwen2LM(
        llm_input_size=dims.hidden,
        llm_output_size=dims.hidden,
        speech_token_size=dims.speech_vocab,
        llm=encoder,
        sampling=_ras_sampling(sampling),
        mix_ratio=[dims.text_block, dims.speech_block],
    )


@_quiet()
def build_flow(dims: FlowDims) -> Any:
    """`CausalMaskedDiffWithXvec` without the checkpoint's weights."""
    with _importing():
        from cosyvoice.flow.decoder import CausalConditionalDecoder  # noqa: PLC0415
        from cosyvoice.flow.flow import CausalMaskedDiffWithXvec  # noqa: PLC0415
        from cosyvoice.flow.flow_matching import CausalConditionalCFM  # noqa: PLC0415
        from cosyvoice.transformer.upsample_encoder import UpsampleConformerEncoder  # noqa: PLC0415
        from omegaconf import DictConfig  # noqa: PLC0415

    encoder = UpsampleConformerEncoder(
        input_size=dims.encoder.input_size,
        output_size=dims.encoder.output_size,
        attention_heads=dims.encoder.attention_heads,
        linear_units=dims.encoder.linear_units,
        num_blocks=dims.encoder.num_blocks,
        input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet",
        selfattention_layer_type="rel_selfattn",
        use_cnn_module=False,
        macaron_style=False,
        static_chunk_size=dims.chunk_tokens,
    )
    estimator = CausalConditionalDecoder(
        in_channels=dims.estimator.in_channels,
        out_channels=dims.estimator.out_channels,
        channels=[dims.estimator.channels],
        dropout=0.0,
        attention_head_dim=dims.estimator.attention_head_dim,
        n_blocks=dims.estimator.n_blocks,
        num_mid_blocks=dims.estimator.num_mid_blocks,
        num_heads=dims.estimator.num_heads,
        act_fn="gelu",
        static_chunk_size=dims.chunk_frames,
        num_decoding_left_chunks=-1,
    )
    solver = {
        "sigma_min": 1e-6,
        "solver": "euler",
        "t_scheduler": "cosine",
        "training_cfg_rate": 0.2,
        "inference_cfg_rate": dims.cfg_rate,
        "reg_loss_type": "l1",
    }
    with torch.random.fork_rng(devices=[]):  # its constructor seeds torch with 0
        decoder = CausalConditionalCFM(
            in_channels=3 * dims.mel_bins,
            n_spks=1,
            spk_emb_dim=dims.mel_bins,
            cfm_params=DictConfig(solver),
            estimator=estimator,
        )
    return CausalMaskedDiffWithXvec(
        input_size=dims.input_size,
        output_size=dims.mel_bins,
        spk_embed_dim=dims.speaker_dim,
        vocab_size=dims.vocab,
        token_mel_ratio=dims.token_mel_ratio,
        pre_lookahead_len=dims.lookahead,
        encoder=encoder,
        decoder=decoder,
    )


@_quiet()
def build_vocoder(dims: VocoderDims) -> Any:
    """`HiFTGenerator` without the checkpoint's weights."""
    with _importing():
        from cosyvoice.hifigan.f0_predictor import ConvRNNF0Predictor  # noqa: PLC0415
        from cosyvoice.hifigan.generator import HiFTGenerator  # noqa: PLC0415

    return HiFTGenerator(
        in_channels=dims.in_channels,
        base_channels=dims.base_channels,
        nb_harmonics=dims.nb_harmonics,
        sampling_rate=dims.sample_rate_hz,
        nsf_alpha=dims.nsf_alpha,
        nsf_sigma=dims.nsf_sigma,
        nsf_voiced_threshold=dims.nsf_voiced_threshold_hz,
        upsample_rates=list(dims.upsample_rates),
        upsample_kernel_sizes=list(dims.upsample_kernel_sizes),
        istft_params={"n_fft": dims.istft_n_fft, "hop_len": dims.istft_hop_len},
        resblock_kernel_sizes=list(dims.resblock_kernel_sizes),
        resblock_dilation_sizes=[list(sizes) for sizes in dims.resblock_dilation_sizes],
        source_resblock_kernel_sizes=list(dims.source_resblock_kernel_sizes),
        source_resblock_dilation_sizes=[list(sizes) for sizes in dims.source_resblock_dilation_sizes],
        lrelu_slope=dims.lrelu_slope,
        audio_limit=dims.audio_limit,
        f0_predictor=ConvRNNF0Predictor(in_channels=dims.in_channels, cond_channels=dims.f0_channels),
    )


def _ras_sampling(dims: SamplingDims) -> Callable[[Tensor, list[int], int], Tensor]:
    """Upstream's `ras_sampling` as of 2026, which bans a repeated token; the packaged one only draws again."""
    from cosyvoice.utils.common import nucleus_sampling, random_sampling  # noqa: PLC0415

    def sample(scores: Tensor, decoded: list[int], unused: int) -> Tensor:
        drawn: Tensor = nucleus_sampling(scores, top_p=dims.top_p, top_k=dims.top_k)
        repeats = decoded[-dims.win_size :].count(int(drawn))
        if repeats >= dims.win_size * dims.tau_r:
            drawn = random_sampling(scores.index_fill(0, drawn, -torch.inf), decoded, unused)
        return drawn

    return sample


@contextmanager
def _importing() -> Iterator[None]:
    """Lets upstream's networks be imported without what surrounds them: torchaudio, a training framework and a logger
    that reconfigures the whole process. The placeholders are gone afterwards."""
    placeholders: dict[str, dict[str, object]] = {
        "cosyvoice.utils.file_utils": {
            "logging": logging,
            "convert_onnx_to_trt": None,
            "export_cosyvoice2_vllm": None,
        },
        "matcha.utils": {},
        "matcha.utils.pylogger": {"get_pylogger": logging.getLogger},
    }
    placed = []
    for name, content in placeholders.items():
        if name not in sys.modules:
            module = ModuleType(name)
            vars(module).update(content)
            sys.modules[name] = module
            placed.append(name)
    try:
        yield
    except ModuleNotFoundError as error:
        raise ImportError(f"{_HELP} ({error})") from error
    finally:
        for name in placed:
            del sys.modules[name]
