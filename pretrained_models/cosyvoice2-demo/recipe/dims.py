"""The demo checkpoint's sizes, once: the networks of upstream's classes, built from them for training."""

import functools
from typing import Any

# isort: off
import upstream  # noqa: F401 - before cosyvoice
from cosyvoice.flow.decoder import CausalConditionalDecoder
from cosyvoice.flow.flow import CausalMaskedDiffWithXvec
from cosyvoice.flow.flow_matching import CausalConditionalCFM
from cosyvoice.hifigan.f0_predictor import ConvRNNF0Predictor
from cosyvoice.hifigan.generator import HiFTGenerator
from cosyvoice.transformer.upsample_encoder import UpsampleConformerEncoder
from omegaconf import DictConfig
from transformers import Qwen2Config

# isort: on

CHUNK_TOKENS = 25
NUM_CODES = 6561
TEXT_VOCABULARY = 1664  # 1600 BPE tokens, 20 special ones, spare rows

LM: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 5,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "max_position_embeddings": 32768,
    "vocab_size": TEXT_VOCABULARY,
    "tie_word_embeddings": True,
}
SAMPLING: dict[str, Any] = {"top_p": 0.3, "top_k": 3, "win_size": 10, "tau_r": 1.0}
ENCODER: dict[str, Any] = {
    "output_size": 512,
    "attention_heads": 8,
    "linear_units": 128,
    "num_blocks": 0,
    "dropout_rate": 0.1,
    "positional_dropout_rate": 0.1,
    "attention_dropout_rate": 0.1,
    "normalize_before": True,
    "input_layer": "linear",
    "pos_enc_layer_type": "rel_pos_espnet",
    "selfattention_layer_type": "rel_selfattn",
    "input_size": 512,
    "use_cnn_module": False,
    "macaron_style": False,
    "static_chunk_size": CHUNK_TOKENS,
}
ESTIMATOR: dict[str, Any] = {
    "in_channels": 320,
    "out_channels": 80,
    "channels": [128],
    "dropout": 0.0,
    "attention_head_dim": 32,
    "n_blocks": 1,
    "num_mid_blocks": 4,
    "num_heads": 4,
    "act_fn": "gelu",
    "static_chunk_size": 2 * CHUNK_TOKENS,
    "num_decoding_left_chunks": -1,
}
CFM: dict[str, Any] = {
    "sigma_min": 1e-6,
    "solver": "euler",
    "t_scheduler": "cosine",
    "training_cfg_rate": 0.0,
    "inference_cfg_rate": 0.0,
    # Read by cosyvoice-serve; upstream's code takes 10.
    "n_timesteps": 5,
    "reg_loss_type": "l1",
}
VOCODER: dict[str, Any] = {
    "in_channels": 80,
    "base_channels": 128,
    "nb_harmonics": 8,
    "sampling_rate": 24000,
    "nsf_alpha": 0.1,
    "nsf_sigma": 0.003,
    "nsf_voiced_threshold": 10,
    "upsample_rates": [8, 5, 3],
    "upsample_kernel_sizes": [16, 11, 7],
    "istft_params": {"n_fft": 16, "hop_len": 4},
    "resblock_kernel_sizes": [3, 7],
    "resblock_dilation_sizes": [[1, 3], [1, 3]],
    "source_resblock_kernel_sizes": [7, 7, 7],
    "source_resblock_dilation_sizes": [[1], [1], [1]],
    "lrelu_slope": 0.1,
    "audio_limit": 0.99,
}
F0_PREDICTOR: dict[str, Any] = {"num_class": 1, "in_channels": 80, "cond_channels": 96}


@functools.lru_cache
def lm_config() -> Qwen2Config:
    return Qwen2Config(**LM)


def build_flow() -> CausalMaskedDiffWithXvec:
    decoder = CausalConditionalCFM(
        in_channels=240,
        n_spks=1,
        spk_emb_dim=80,
        cfm_params=DictConfig(CFM),
        estimator=CausalConditionalDecoder(**ESTIMATOR),
    )
    return CausalMaskedDiffWithXvec(
        input_size=512,
        output_size=80,
        spk_embed_dim=192,
        output_type="mel",
        vocab_size=NUM_CODES,
        input_frame_rate=25,
        only_mask_loss=True,
        token_mel_ratio=2,
        pre_lookahead_len=3,
        encoder=UpsampleConformerEncoder(**ENCODER),
        decoder=decoder,
    )


def build_vocoder() -> HiFTGenerator:
    return HiFTGenerator(f0_predictor=ConvRNNF0Predictor(**F0_PREDICTOR), **VOCODER)
