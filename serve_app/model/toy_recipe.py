"""Sizes of the checkpoints that `toy_checkpoint` writes, and the yaml that states them the way upstream's does."""

from dataclasses import replace
from typing import Literal

from serve_app.model.dims import (
    CheckpointDims,
    EncoderDims,
    EstimatorDims,
    FlowDims,
    LanguageModelDims,
    SamplingDims,
    VocoderDims,
)

Size = Literal["toy", "real"]

_REAL = CheckpointDims(
    language_model=LanguageModelDims(
        hidden=896,
        layers=24,
        query_heads=14,
        kv_heads=2,
        head_dim=64,
        ffn=4864,
        rms_eps=1e-6,
        rope_theta=1e6,
        text_vocab=151936,
    ),
    flow=FlowDims(
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
    ),
    vocoder=VocoderDims(
        sample_rate_hz=24_000,
        in_channels=80,
        base_channels=512,
        nb_harmonics=8,
        nsf_alpha=0.1,
        nsf_sigma=0.003,
        nsf_voiced_threshold_hz=10.0,
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
        f0_channels=512,
    ),
    sampling=SamplingDims(top_p=0.8, top_k=25, win_size=10, tau_r=0.1),
    sample_rate_hz=24_000,
)

# The flow's encoder stays 512 wide: upstream writes that width into its code. Widths that are equal at the real size
# for no reason, or would hide a mix-up, differ: attention inside the estimator is 128 wide in blocks of 64.
_TOY = replace(
    _REAL,
    language_model=replace(
        _REAL.language_model, hidden=64, layers=2, query_heads=4, kv_heads=2, head_dim=16, ffn=128, text_vocab=1024
    ),
    flow=replace(
        _REAL.flow,
        encoder=replace(_REAL.flow.encoder, linear_units=128, num_blocks=2),
        estimator=replace(
            _REAL.flow.estimator, channels=64, attention_head_dim=32, n_blocks=1, num_mid_blocks=2, num_heads=4
        ),
    ),
    vocoder=replace(_REAL.vocoder, base_channels=64, f0_channels=32),
)

DIMS: dict[Size, CheckpointDims] = {"toy": _TOY, "real": _REAL}
"""toy: seconds of speech in a fraction of a second on one core; real: CosyVoice2-0.5B."""


def yaml_text(dims: CheckpointDims) -> str:
    """cosyvoice2.yaml: what upstream's `CosyVoice2` looks up in it, under upstream's names and tags."""
    lm, flow, hift, sampling = dims.language_model, dims.flow, dims.vocoder, dims.sampling
    return f"""\
__set_seed1: !apply:random.seed [1986]
__set_seed2: !apply:numpy.random.seed [1986]
__set_seed3: !apply:torch.manual_seed [1986]

sample_rate: {dims.sample_rate_hz}
llm_input_size: {lm.hidden}
llm_output_size: {lm.hidden}
spk_embed_dim: {flow.speaker_dim}
qwen_pretrain_path: ''
token_frame_rate: 25
token_mel_ratio: {flow.token_mel_ratio}
chunk_size: {flow.chunk_tokens}
num_decoding_left_chunks: -1

llm: !new:cosyvoice.llm.llm.Qwen2LM
    llm_input_size: !ref <llm_input_size>
    llm_output_size: !ref <llm_output_size>
    speech_token_size: {lm.speech_vocab}
    length_normalized_loss: True
    lsm_weight: 0
    mix_ratio: [{lm.text_block}, {lm.speech_block}]
    llm: !new:cosyvoice.llm.llm.Qwen2Encoder
        pretrain_path: !ref <qwen_pretrain_path>
    sampling: !name:cosyvoice.utils.common.ras_sampling
        top_p: {sampling.top_p}
        top_k: {sampling.top_k}
        win_size: {sampling.win_size}
        tau_r: {sampling.tau_r}

flow: !new:cosyvoice.flow.flow.CausalMaskedDiffWithXvec
    input_size: {flow.input_size}
    output_size: {flow.mel_bins}
    spk_embed_dim: !ref <spk_embed_dim>
    output_type: 'mel'
    vocab_size: {flow.vocab}
    input_frame_rate: !ref <token_frame_rate>
    only_mask_loss: True
    token_mel_ratio: !ref <token_mel_ratio>
    pre_lookahead_len: {flow.lookahead}
    encoder: !new:cosyvoice.transformer.upsample_encoder.UpsampleConformerEncoder
        output_size: {flow.encoder.output_size}
        attention_heads: {flow.encoder.attention_heads}
        linear_units: {flow.encoder.linear_units}
        num_blocks: {flow.encoder.num_blocks}
        dropout_rate: 0.1
        positional_dropout_rate: 0.1
        attention_dropout_rate: 0.1
        normalize_before: True
        input_layer: 'linear'
        pos_enc_layer_type: 'rel_pos_espnet'
        selfattention_layer_type: 'rel_selfattn'
        input_size: {flow.encoder.input_size}
        use_cnn_module: False
        macaron_style: False
        static_chunk_size: !ref <chunk_size>
    decoder: !new:cosyvoice.flow.flow_matching.CausalConditionalCFM
        in_channels: {3 * flow.mel_bins}
        n_spks: 1
        spk_emb_dim: {flow.mel_bins}
        cfm_params: !new:omegaconf.DictConfig
            content:
                sigma_min: 1e-06
                solver: 'euler'
                t_scheduler: 'cosine'
                training_cfg_rate: 0.2
                inference_cfg_rate: {flow.cfg_rate}
                reg_loss_type: 'l1'
        estimator: !new:cosyvoice.flow.decoder.CausalConditionalDecoder
            in_channels: {flow.estimator.in_channels}
            out_channels: {flow.estimator.out_channels}
            channels: [{flow.estimator.channels}]
            dropout: 0.0
            attention_head_dim: {flow.estimator.attention_head_dim}
            n_blocks: {flow.estimator.n_blocks}
            num_mid_blocks: {flow.estimator.num_mid_blocks}
            num_heads: {flow.estimator.num_heads}
            act_fn: 'gelu'
            static_chunk_size: !ref <chunk_size> * <token_mel_ratio>
            num_decoding_left_chunks: !ref <num_decoding_left_chunks>

hift: !new:cosyvoice.hifigan.generator.HiFTGenerator
    in_channels: {hift.in_channels}
    base_channels: {hift.base_channels}
    nb_harmonics: {hift.nb_harmonics}
    sampling_rate: !ref <sample_rate>
    nsf_alpha: {hift.nsf_alpha}
    nsf_sigma: {hift.nsf_sigma}
    nsf_voiced_threshold: {hift.nsf_voiced_threshold_hz:g}
    upsample_rates: {list(hift.upsample_rates)}
    upsample_kernel_sizes: {list(hift.upsample_kernel_sizes)}
    istft_params:
        n_fft: {hift.istft_n_fft}
        hop_len: {hift.istft_hop_len}
    resblock_kernel_sizes: {list(hift.resblock_kernel_sizes)}
    resblock_dilation_sizes: {[list(sizes) for sizes in hift.resblock_dilation_sizes]}
    source_resblock_kernel_sizes: {list(hift.source_resblock_kernel_sizes)}
    source_resblock_dilation_sizes: {[list(sizes) for sizes in hift.source_resblock_dilation_sizes]}
    lrelu_slope: {hift.lrelu_slope}
    audio_limit: {hift.audio_limit}
    f0_predictor: !new:cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor
        num_class: 1
        in_channels: {hift.in_channels}
        cond_channels: {hift.f0_channels}

get_tokenizer: !name:cosyvoice.tokenizer.tokenizer.get_qwen_tokenizer
    token_path: !ref <qwen_pretrain_path>
    skip_special_tokens: True
allowed_special: 'all'
feat_extractor: !name:matcha.utils.audio.mel_spectrogram
    n_fft: 1920
    num_mels: {hift.in_channels}
    sampling_rate: !ref <sample_rate>
    hop_size: {hift.samples_per_frame}
    win_size: 1920
    fmin: 0
    fmax: 8000
    center: False
"""


def config_json(dims: LanguageModelDims) -> dict[str, object]:
    """CosyVoice-BlankEN/config.json: Qwen2's configuration, as transformers 4 wrote it for the published model."""
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "hidden_act": "silu",
        "hidden_size": dims.hidden,
        "initializer_range": 0.02,
        "intermediate_size": dims.ffn,
        "max_position_embeddings": 32768,
        "model_type": "qwen2",
        "num_attention_heads": dims.query_heads,
        "num_hidden_layers": dims.layers,
        "num_key_value_heads": dims.kv_heads,
        "rms_norm_eps": dims.rms_eps,
        "rope_theta": dims.rope_theta,
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": dims.text_vocab,
    }
