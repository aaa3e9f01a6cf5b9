"""Upstream's flow and vocoder with random weights: the yardsticks of the tests beside this file."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from serve_app.model.dims import EncoderDims, EstimatorDims, FlowDims, VocoderDims
from serve_app.model.toy_checkpoint import Draw, flow_tensors, hift_tensors
from serve_app.synthesis import upstream

FLOW_DIMS = FlowDims(
    vocab=40,
    input_size=32,
    mel_bins=80,  # upstream's solver has 80 in its code
    speaker_dim=24,
    lookahead=3,
    chunk_tokens=25,
    token_mel_ratio=2,
    cfg_rate=0.7,
    encoder=EncoderDims(
        input_size=32, output_size=32, attention_heads=2, linear_units=48, num_blocks=2, num_up_blocks=4
    ),
    estimator=EstimatorDims(
        in_channels=320,
        out_channels=80,
        channels=32,
        attention_head_dim=16,
        n_blocks=2,
        num_mid_blocks=1,
        num_heads=2,
    ),
)

VOCODER_DIMS = VocoderDims(
    sample_rate_hz=24_000,
    in_channels=80,
    base_channels=32,
    nb_harmonics=8,
    nsf_alpha=0.1,
    nsf_sigma=0.003,
    nsf_voiced_threshold_hz=115.0,  # so that random pitches lie on both sides
    upsample_rates=(8, 5, 3),
    upsample_kernel_sizes=(16, 11, 7),
    istft_n_fft=16,
    istft_hop_len=4,
    resblock_kernel_sizes=(3, 7, 11),
    resblock_dilation_sizes=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    source_resblock_kernel_sizes=(7, 7, 11),
    source_resblock_dilation_sizes=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    lrelu_slope=0.1,
    audio_limit=0.99,
    f0_channels=16,
)


@dataclass(frozen=True, eq=False)
class UpstreamFlow:
    """network: `CausalMaskedDiffWithXvec`, of any width. tensors: its weights by name."""

    network: Any
    tensors: dict[str, Tensor]

    @classmethod
    def build(cls, dims: FlowDims, seed: int) -> "UpstreamFlow":
        network, size = upstream.build_flow(dims), dims.encoder.output_size
        # Upstream has the width 512 in its code for these two.
        encoder = network.encoder
        encoder.pre_lookahead_layer = type(encoder.pre_lookahead_layer)(size, dims.lookahead)
        encoder.up_layer = type(encoder.up_layer)(size, size, dims.token_mel_ratio)
        tensors = flow_tensors(dims, Draw(seed))
        network.load_state_dict(tensors)
        return cls(network.eval().requires_grad_(False), tensors)

    @torch.inference_mode()
    def render(self, ids: Tensor, prompt_mel: Tensor, speaker: Tensor, num_prompt: int, *, ended: bool) -> Tensor:
        """Everything recomputed from the first token, the way upstream streams.

        ids: [N], the prompt's num_prompt first, and the lookahead last unless ended. -> the frames behind the prompt's.
        """
        prompt, tokens = ids[:num_prompt], ids[num_prompt:]
        mel, _ = self.network.inference(
            tokens[None],
            torch.tensor([len(tokens)]),
            prompt[None],
            torch.tensor([num_prompt]),
            prompt_mel[None],
            torch.tensor([len(prompt_mel)]),
            speaker[None],
            streaming=True,
            finalize=ended,
        )
        frames: Tensor = mel[0].T
        return frames


@dataclass(frozen=True, eq=False)
class UpstreamVocoder:
    """network: `HiFTGenerator` with its weight norm folded. tensors: its weights by name."""

    network: Any
    tensors: dict[str, Tensor]

    @classmethod
    def build(cls, dims: VocoderDims, seed: int) -> "UpstreamVocoder":
        network = upstream.build_vocoder(dims)
        network.load_state_dict(hift_tensors(dims, Draw(seed)))
        for module in network.modules():
            if parametrize.is_parametrized(module, "weight"):
                parametrize.remove_parametrizations(module, "weight")
        return cls(network.eval().requires_grad_(False), dict(network.state_dict()))
