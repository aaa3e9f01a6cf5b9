"""Upstream's flow and vocoder, built from our dims with random weights, as yardsticks."""

import logging
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from serve_app.model.dims import EncoderDims, EstimatorDims, FlowDims


def _stub(name: str, **names: object) -> None:
    module = ModuleType(name)
    vars(module).update(names)
    sys.modules.setdefault(name, module)


# Upstream's networks import torchaudio and a training stack for the sake of a logger and of functions not used here.
_stub("cosyvoice.utils.file_utils", logging=logging, convert_onnx_to_trt=None, export_cosyvoice2_vllm=None)
_stub("matcha.utils")
_stub("matcha.utils.pylogger", get_pylogger=logging.getLogger)


TOY_FLOW = FlowDims(
    vocab=40,
    input_size=32,
    mel_bins=80,  # upstream's CFM has 80 in its code
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
        n_blocks=1,
        num_mid_blocks=2,
        num_heads=2,
    ),
)

REAL_FLOW = FlowDims(
    vocab=6561,
    input_size=512,
    mel_bins=80,
    speaker_dim=192,
    lookahead=3,
    chunk_tokens=25,
    token_mel_ratio=2,
    cfg_rate=0.7,
    encoder=EncoderDims(input_size=512, output_size=512, attention_heads=8, linear_units=2048, num_blocks=6),
    estimator=EstimatorDims(
        in_channels=320,
        out_channels=80,
        channels=256,
        attention_head_dim=64,
        n_blocks=4,
        num_mid_blocks=12,
        num_heads=8,
    ),
)


@dataclass(frozen=True)
class UpstreamFlow:
    """Upstream's `CausalMaskedDiffWithXvec`, and its tensors by name."""

    network: Any
    tensors: dict[str, Tensor]

    @torch.inference_mode()
    def render(self, ids: Tensor, speaker: Tensor, prompt_mel: Tensor, lookahead: int) -> Tensor:
        """The whole sequence at once, under the streaming mask.

        ids: [N + lookahead], the prompt's included; prompt_mel: [2 P, 80] -> [2 N, 80], the prompt's frames included.
        """
        encoder, decoder = self.network.encoder, self.network.decoder
        embedded = self.network.input_embedding(ids)[None]
        length = len(ids) - lookahead
        context = embedded[:, length:] if lookahead else torch.zeros(0, 0, 0)
        h, _ = encoder(embedded[:, :length], torch.tensor([len(ids)]), context=context, streaming=True)
        mu = self.network.encoder_proj(h).transpose(1, 2).contiguous()
        cond = torch.zeros_like(mu)
        visible = min(len(prompt_mel), mu.shape[2])
        cond[:, :, :visible] = prompt_mel[:visible].T
        projected = self.network.spk_embed_affine_layer(torch.nn.functional.normalize(speaker[None], dim=1))
        mask = torch.ones(1, 1, mu.shape[2])
        mel, _ = decoder(mu=mu, mask=mask, spks=projected, cond=cond, n_timesteps=10, streaming=True)
        frames: Tensor = mel[0].T
        return frames

    @torch.inference_mode()
    def inference(self, ids: Tensor, prompt_ids: Tensor, speaker: Tensor, prompt_mel: Tensor, finalize: bool) -> Tensor:
        """Upstream's own entry point. ids: [N], lookahead included unless finalize -> the frames behind the prompt."""
        mel, _ = self.network.inference(
            ids[None],
            torch.tensor([len(ids)]),
            prompt_ids[None],
            torch.tensor([len(prompt_ids)]),
            prompt_mel[None],
            torch.tensor([len(prompt_mel)]),
            speaker[None],
            streaming=True,
            finalize=finalize,
        )
        frames: Tensor = mel[0].T
        return frames


def build_flow(dims: FlowDims, seed: int) -> UpstreamFlow:
    from cosyvoice.flow.decoder import CausalConditionalDecoder
    from cosyvoice.flow.flow import CausalMaskedDiffWithXvec
    from cosyvoice.flow.flow_matching import CausalConditionalCFM
    from cosyvoice.transformer.upsample_encoder import PreLookaheadLayer, Upsample1D, UpsampleConformerEncoder
    from omegaconf import DictConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size = dims.encoder.output_size
        encoder = UpsampleConformerEncoder(
            output_size=size,
            attention_heads=dims.encoder.attention_heads,
            linear_units=dims.encoder.linear_units,
            num_blocks=dims.encoder.num_blocks,
            input_layer="linear",
            pos_enc_layer_type="rel_pos_espnet",
            selfattention_layer_type="rel_selfattn",
            input_size=dims.encoder.input_size,
            use_cnn_module=False,
            macaron_style=False,
            static_chunk_size=dims.chunk_tokens,
        )
        # Upstream has 512 in its code for these two.
        encoder.pre_lookahead_layer = PreLookaheadLayer(channels=size, pre_lookahead_len=dims.lookahead)
        encoder.up_layer = Upsample1D(channels=size, out_channels=size, stride=dims.token_mel_ratio)
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
        cfm = {
            "sigma_min": 1e-06,
            "solver": "euler",
            "t_scheduler": "cosine",
            "training_cfg_rate": 0.2,
            "inference_cfg_rate": dims.cfg_rate,
            "reg_loss_type": "l1",
        }
        decoder = CausalConditionalCFM(
            in_channels=240, n_spks=1, spk_emb_dim=80, cfm_params=DictConfig(cfm), estimator=estimator
        )
        torch.manual_seed(seed)  # the CFM has seeded it with 0
        network = CausalMaskedDiffWithXvec(
            input_size=dims.input_size,
            output_size=dims.mel_bins,
            spk_embed_dim=dims.speaker_dim,
            vocab_size=dims.vocab,
            token_mel_ratio=dims.token_mel_ratio,
            pre_lookahead_len=dims.lookahead,
            encoder=encoder,
            decoder=decoder,
        ).eval()
        disturb(network)
    return UpstreamFlow(network, dict(network.state_dict()))


@torch.no_grad()
def disturb(network: nn.Module) -> None:
    """Norms and biases start as ones and zeros, which would hide faults."""
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
